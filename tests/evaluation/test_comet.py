"""COMET through a stand-in module with its API (unbabel-comet 2.2.7): load, predict, scores."""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest

from slam_potsa.errors import InputError
from slam_potsa.evaluation import comet as comet_module
from slam_potsa.evaluation.comet import Comet
from slam_potsa.evaluation.scores import score
from tests.support.predictions import make


class Model:
    """Scores a translation by the share of the reference's words that it has."""

    def predict(self, samples, batch_size=16, gpus=1, **options):
        assert gpus in (0, 1) and all(set(s) == {"src", "mt", "ref"} for s in samples)
        self.samples = samples
        words = [(set(s["mt"].split()), set(s["ref"].split())) for s in samples]
        return SimpleNamespace(scores=[len(ours & wanted) / len(wanted) for ours, wanted in words])


@pytest.fixture
def comet(monkeypatch):
    """The stand-in; it notes what it was asked to download and to load."""
    module = ModuleType("comet")
    module.asked = []

    def download_model(name):
        module.asked.append(name)
        if "/" not in name:
            raise KeyError(f"Model '{name}' not supported by COMET.")
        return "/downloaded/checkpoints/model.ckpt"

    def load_from_checkpoint(path):
        module.asked.append(path)
        return Model()

    module.download_model, module.load_from_checkpoint = download_model, load_from_checkpoint
    monkeypatch.setitem(sys.modules, "comet", module)
    monkeypatch.setattr(comet_module, "version", lambda name: "2.2.7")
    return module


def test_a_corpus_has_the_mean_of_its_translations_times_100(comet):
    items = [replace(item, transcript=f"src {item.key}") for item in make(["fr", "de", "en"])]
    model = Comet.load("Unbabel/wmt22-comet-da")
    table = score(items, bootstrap=0, comet=model, zero_shot=["fr", "de"])
    scores = Model().predict(model.model.samples).scores
    pooled = table.row("zero-shot, pooled").scores["COMET"].value
    assert pooled == pytest.approx(100 * sum(scores) / 24)
    parts = [table.row(name).scores["COMET"].value for name in ("de", "fr")]
    mean = table.row("zero-shot, mean of languages").scores["COMET"].value
    assert mean == pytest.approx(sum(parts) / 2)
    assert table.signatures[-1].startswith("COMET|model:wmt22-comet-da|scale:100")
    first = {"src": "src fr-0", "mt": items[0].prediction, "ref": items[0].reference}
    assert model.model.samples[0] == first
    # English into English is no translation.
    without = [row.name for row in table.rows if "COMET" not in row.scores]
    assert without == ["en", "all, pooled", "all, mean of languages"]


def test_a_model_is_a_name_a_folder_or_a_checkpoint(comet, tmp_path):
    checkpoint = tmp_path / "checkpoints" / "model.ckpt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"")
    for given in (tmp_path, checkpoint):
        Comet.load(str(given))
    assert comet.asked == [str(checkpoint)] * 2
    Comet.load("a/b")
    assert comet.asked[2:] == ["a/b", "/downloaded/checkpoints/model.ckpt"]
    with pytest.raises(InputError, match="cannot load 'nothing'.*hparams.yaml"):
        Comet.load("nothing")


def test_the_source_is_needed(comet):
    with pytest.raises(InputError, match="12 predictions have no transcript: fr-0"):
        score(make(["fr"]), comet=Comet.load("a/b"))
