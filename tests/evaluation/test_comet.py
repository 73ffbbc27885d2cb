"""COMET through a stand-in module with its API (unbabel-comet 2.2.7): load, predict, scores."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from slam_potsa.errors import InputError
from slam_potsa.evaluation.comet import Comet, installed
from slam_potsa.evaluation.scores import score
from tests.support.predictions import make


class Model:
    """Scores a translation by the share of the reference's words that it has."""

    def predict(self, samples, batch_size=16, gpus=1, **options):
        assert gpus in (0, 1) and all(set(s) == {"src", "mt", "ref"} for s in samples)
        self.samples = samples
        shares = [
            len(set(s["mt"].split()) & set(s["ref"].split())) / len(set(s["ref"].split()))
            for s in samples
        ]
        return SimpleNamespace(scores=shares, system_score=sum(shares) / len(shares))


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
    return module


def with_transcripts(items):
    return [type(item)(**vars(item) | {"transcript": f"src {item.key}"}) for item in items]


def test_a_corpus_has_the_mean_of_its_segments_times_100(comet):
    items = with_transcripts(make(["fr", "de"]))
    model = Comet.load("Unbabel/wmt22-comet-da")
    table = score(items, bootstrap=0, comet=model)
    output = Model().predict(model.model.samples)
    assert table.row("all, pooled").more["COMET"].value == pytest.approx(100 * output.system_score)
    parts = [table.row(name).more["COMET"].value for name in ("de", "fr")]
    assert table.row("all, mean of languages").more["COMET"].value == pytest.approx(sum(parts) / 2)
    assert table.signatures[-1].startswith("COMET|model:wmt22-comet-da|scale:100")
    assert model.model.samples[0] == {
        "src": "src fr-0",
        "mt": items[0].prediction,
        "ref": items[0].reference,
    }


def test_transcriptions_have_none(comet):
    table = score(with_transcripts(make(["en", "fr"])), bootstrap=0, comet=Comet.load("a/b"))
    assert "COMET" in table.row("fr").more
    assert not table.row("en").more and not table.row("all, pooled").more


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


def test_where_it_is_not_installed_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "comet", None)
    assert not installed()
    with pytest.raises(InputError, match="an environment of its own.*--comet a/b --dump FOLDER"):
        Comet.load("a/b")
