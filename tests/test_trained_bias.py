import pytest
import torch

from slam_potsa import InputError
from slam_potsa.config.check import check
from slam_potsa.data.languages import language_id
from slam_potsa.data.manifest import read_manifest, write_manifest
from slam_potsa.engine import native
from slam_potsa.engine.decode import Translator, load_run
from slam_potsa.engine.prepare import check_inputs, provide_bias
from slam_potsa.engine.share import export_run
from slam_potsa.model.checkpoint import TRAINED_TABLE, read_checkpoint, save_checkpoint
from slam_potsa.model.language_bias import LanguageBias
from tests.support import refused, tiny

EN, FR, RU = (torch.tensor([language_id(code)]) for code in ("en", "fr", "ru"))


def table(**options) -> LanguageBias:
    biases = {"fr": torch.tensor([1.0, 5.0]), "en": torch.tensor([3.0, 1.0])}
    return LanguageBias(biases, trained=True, **options)


@pytest.mark.parametrize(
    ("center", "own", "other"), [("all", -1.0, 0.0), ("language_only", -0.5, 0.5)]
)
def test_a_row_gets_the_gradient_of_its_language(center, own, other):
    bias = table(center=center)
    bias(torch.zeros(1, 3, 2), None, EN).sum().backward()  # three frames
    assert bias.trained.grad.tolist() == [[3 * own] * 2, [3 * other] * 2]


def test_what_it_has_become_is_saved_and_loaded(tmp_path):
    bias = table()
    with torch.no_grad():
        bias.trained += 1
    bias.save(tmp_path / "b.safetensors")
    again, loaded = LanguageBias.load(tmp_path / "b.safetensors"), table()
    loaded.load_state_dict(bias.state_dict())
    for other in (again, loaded):
        assert other.biases["en"].tolist() == [4, 2]
        assert other.lookup(FR).tolist() == [[2, 6]]
        assert other.lookup(RU).tolist() == [[3, 4]]  # the mean of what they have become
    with pytest.raises(InputError, match="no language bias for ru"):
        table(unseen_language="error")(torch.zeros(1, 3, 2), None, RU)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = tiny.world(tmp_path_factory.mktemp("world"))
    config.language_bias.trained, config.language_bias.lr = True, 0.1
    config.train_config.num_epochs = 1
    return config


def trained(config, folder, stops=(0,), **bias):
    """What a run's table has become, by language."""
    for stop in stops:
        parts = {"language_bias": bias, "native": {"max_steps": stop}}
        run = tiny.changed(config, train_config={"output_dir": str(folder)}, **parts)
        model = native.finetune(run)
    known = LanguageBias.load(folder / "language_bias.safetensors").languages
    return dict(zip(known, read_checkpoint(model)[TRAINED_TABLE], strict=True))


def biases(config, folder, **changes):
    """The file that a training in `folder` would begin with."""
    run = tiny.changed(config, train_config={"output_dir": str(folder)}, **changes)
    provide_bias(run, progress=False)
    return folder / "language_bias.safetensors"


def test_it_trains_at_its_rate_resumes_exactly_and_decodes(config, tmp_path):
    found = trained(config, tmp_path / "whole")
    means = LanguageBias.load(tmp_path / "whole" / "language_bias.safetensors").biases
    moved = {code: (found[code] - means[code]).abs().max() for code in means}
    assert all(0.01 < distance < 0.5 for distance in moved.values())
    again = trained(config, tmp_path / "halves", stops=(2, 0))
    assert all(torch.equal(again[code], found[code]) for code in found)
    still = trained(config, tmp_path / "still", lr=0.0)
    assert all(torch.equal(still[code], means[code]) for code in means)

    fixed, given = load_run(tmp_path / "whole"), export_run(tmp_path / "whole", tmp_path / "given")
    fixed.language_bias.trained, fixed.language_bias.lr = False, None
    for run in (fixed, load_run(tmp_path / "whole"), load_run(given)):
        bias = Translator(run).model.encoder_projector.language_bias
        assert torch.equal(bias.lookup(EN)[0], found["en"])


def test_a_training_goes_on_with_the_trained_table(config, tmp_path):
    """Whatever the means are: only a language that is new to it gets its own."""
    learned = LanguageBias({"en": torch.ones(16), "it": torch.zeros(16)}, trained=True)
    model = torch.nn.Module()
    model.encoder_projector = torch.nn.Module()
    model.encoder_projector.language_bias = learned
    save_checkpoint(model, tmp_path / "model.pt")
    means = LanguageBias.load(biases(config, tmp_path / "means")).biases
    found = biases(config, tmp_path / "on", ckpt_path=str(tmp_path / "model.pt"))
    table = LanguageBias.load(found).biases
    assert table.keys() == {"en", "es", "it", "ru"}
    assert all(torch.equal(table[code], learned.biases[code]) for code in ("en", "it"))
    assert all(torch.equal(table[code], means[code]) for code in ("es", "ru"))


def test_a_language_without_a_row_is_refused_before_training(config, tmp_path):
    path = tmp_path / "b.safetensors"
    LanguageBias({"en": torch.zeros(16), "es": torch.zeros(16)}).save(path)
    lacking = tiny.changed(config, language_bias={"path": str(path)})
    refused("has no row for 'ru', which is in the training manifest", check_inputs, lacking)
    heard = [u for u in read_manifest(config.dataset_config.train_data_path) if u.language != "ru"]
    manifest = tmp_path / "heard.jsonl"
    write_manifest(manifest, heard)
    lacking.dataset_config.train_data_path = str(manifest)
    check_inputs(lacking)


@pytest.mark.parametrize(
    ("bias", "engine", "message"),
    [
        ({"trained": False}, "auto", "language_bias.lr is not read"),
        ({}, "slam_llm", "SLAM-LLM has one rate"),
        ({"enabled": False}, "auto", "the table is a part of the projector"),
    ],
)
def test_options_that_do_not_fit(config, bias, engine, message):
    refused(message, check, tiny.changed(config, language_bias=bias, engine=engine))
