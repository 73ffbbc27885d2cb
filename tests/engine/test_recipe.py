import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from slam_potsa import InputError
from slam_potsa.data.feature_store import add_features
from slam_potsa.data.manifest import read_manifest
from slam_potsa.engine.recipe import literal, load_recipe
from slam_potsa.engine.stages import check_recipe, command, recordings_to_hear
from tests.support import refusal, refused, tiny_recipe

RECIPE_TEXT = (Path(__file__).resolve().parents[2] / "docs" / "recipe.md").read_text()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts") / "world"
    tiny_recipe.parts(folder)
    return folder


def test_the_papers_recipe():
    recipe = load_recipe("potsa")
    folders = [f"outputs/potsa/{name}" for name in ("1_asr", "2_s2tt", "3_potsa")]
    assert [str(stage.folder) for stage in recipe.stages] == folders
    asr, s2tt, potsa = configs = [stage.config for stage in recipe.stages]
    assert (asr.dataset_config.tasks, s2tt.dataset_config.tasks) == (["asr"], ["s2tt"])
    for config in (asr, s2tt):
        assert not config.alignment.active and not config.language_bias.enabled
        assert config.dataset_config.pairing == "none"
        assert config.dataset_config.train_data_path == "data/covost2/train.jsonl"
    assert list(potsa.alignment.active) == ["ot"] and potsa.language_bias.enabled
    starts = [None, *(f"{folder}/best/model.pt" for folder in folders[:2])]
    assert [config.ckpt_path for config in configs] == starts
    assert [config.train_config.lr for config in configs] == [1e-4, 1e-4, 1e-5]
    assert list(recipe.tests) == ["test", "zero_shot"]
    assert recipe.processes == 4


def test_overrides_go_where_they_are_meant():
    given = ["asr.train_config.lr=3e-5", "train_config.seed=7", "potsa.alignment=ot"]
    given += ["output_dir=elsewhere", "processes=2", "tests.zero_shot=null"]
    recipe = load_recipe("potsa", [*given, "engine=native", "s2tt.ckpt_path=mine.pt"])
    asr, s2tt, potsa = (stage.config for stage in recipe.stages)
    assert (asr.train_config.lr, s2tt.train_config.lr) == (3e-5, 1e-4)
    assert {c.train_config.seed for c in (asr, s2tt, potsa)} == {7}
    assert potsa.alignment.terms["ot"].cost_scale == "dim"
    assert {c.engine for c in (asr, potsa)} == {"native"} and s2tt.ckpt_path == "mine.pt"
    assert potsa.train_config.output_dir == "elsewhere/3_potsa" and list(recipe.tests) == ["test"]
    assert recipe.processes == 2


def test_wrong_values_of_all_stages_come_at_once():
    error = refusal(load_recipe, "potsa", ["asr.train_config.lr=-1", "potsa.alignment.lamda=3"])
    asr, potsa = error.problems
    assert asr.startswith("asr: train_config.lr") and potsa.startswith("potsa: ")
    assert "lamda" in potsa
    refused("recipe='potsaa': expected the path .*potsa", load_recipe, "potsaa")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"output_dir": None}, "output_dir"),
        ({"stages": {}}, "stages by name"),
        ({"stages": {"decode": {}}}, "stage 'decode': expected a name"),
        ({"stages": {"a": {"trainconfig": {"lr": 1}}}}, "trainconfig.lr"),
        ({"processes": 0}, "processes=0"),
        ({"processes": "two"}, "two"),
        ({"extra": 1}, "extra.*expected a YAML file with output_dir"),
        ({"stages": {"a": {"choose": "none"}}}, "a: .*choose"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, change, message):
    content = {"output_dir": "o", "stages": {"a": {}}} | change
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    refused(message, load_recipe, str(path))


def test_a_stage_may_choose_a_group_and_an_experiment(tmp_path):
    drawn = {"alignment": "mse", "alignment/schedule": "random"}
    stages = {
        "one": {},
        "two": {"choose": drawn, "train_config": {"train_parts": ["projector", "llm"]}},
    }
    content = {"output_dir": "o", "all": {"experiment": "table1_ours"}, "stages": stages}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(content))
    one, two = (stage.config for stage in load_recipe(str(tmp_path / "r.yaml")).stages)
    assert one.ckpt_path == "outputs/potsa/2_s2tt/best/model.pt"  # the experiment's: the first
    assert list(one.alignment.terms) == ["ot"] and one.train_config.freeze_llm
    assert (list(two.alignment.terms), two.alignment.schedule.strategy) == (["mse"], "random")
    assert two.ckpt_path == "o/1_one/best/model.pt" and not two.train_config.freeze_llm


@pytest.mark.parametrize(
    "value", ["a, b", "it's", "line\nbreak", "x=1", "", None, True, 1e-5, ["a'", 2]]
)
def test_values_survive_hydras_command_line(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(f"key={literal(value)}").value()
    assert parsed == value


def test_all_that_is_missing_is_said_at_once(world, tmp_path):
    path = tiny_recipe.write(tmp_path, world=world, tests={"zero": "nowhere.jsonl"})
    given = [
        f"model_config.llm_path={tmp_path / 'no-llm'}",
        f"asr.dataset_config.train_data_path={tmp_path / 'no.jsonl'}",
        "potsa.train_config.batch_size_training=500",
        f"s2tt.language_bias.path={tmp_path / 'no.safetensors'}",
    ]
    text = str(refusal(check_recipe, load_recipe(str(path), given)))
    assert "asr: " in text and "no.jsonl: no such file" in text
    assert "asr: model_config.llm_path" in text and "potsa: model_config.llm_path" in text
    assert "potsa: the training manifest has 12 items, fewer than one batch of 500" in text
    assert "s2tt: language_bias.path" in text and "test zero: nowhere.jsonl" in text
    assert not (tmp_path / "out").exists()


def test_recordings_are_heard_once_those_with_stored_features_never(world, tmp_path, monkeypatch):
    recipe = load_recipe(str(tiny_recipe.write(tmp_path, world=world)))
    check_recipe(recipe)
    assert not recipe.stages[0].folder.parent.exists()
    monkeypatch.setattr("slam_potsa.data.audio.load_audio", lambda *_: 1 / 0)
    check_recipe(recipe)  # the manifest is marked, as `slam-potsa prepare` does
    manifest, store = recipe.tests["test"], tmp_path / "features"
    keys = [utterance.key for utterance in read_manifest(manifest)]
    for stage in recipe.stages:
        stage.config.dataset_config.feature_store = str(store)
    for held, heard in ((keys[:-1], [manifest]), (keys, [])):
        add_features(store, "encoder", 4, [(key, np.zeros((2, 4))) for key in held])
        assert recordings_to_hear(recipe) == heard


def test_more_processes_than_gpus_are_refused_with_what_to_set(world, tmp_path, monkeypatch):
    recipe = load_recipe(str(tiny_recipe.write(tmp_path, world=world, processes=4)))
    check_recipe(recipe, recordings=False)  # on a CPU there may be any number
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(InputError, match="processes=4, but 2 GPUs are here: set processes=2"):
        check_recipe(recipe, recordings=False)
    check_recipe(recipe._replace(processes=2), recordings=False)


def test_other_gpus_as_the_recipes_text_has_them():
    """docs/recipe.md, "Other GPUs": as much a step, and validated as often, on any of them."""
    four, one = load_recipe("potsa"), load_recipe("potsa_24gb")
    expected = [(64, 1000), (64, 1000), (32, 97)]
    assert seen_a_step(four) == seen_a_step(one) == expected
    rows = [line.split("|")[1:-1] for line in RECIPE_TEXT.splitlines() if line.startswith("| ")]
    rows = [[cell.split()[0] for cell in row] for row in rows if row[0].split()[0].isdigit()]
    assert [row[0] for row in rows] == ["1", "2", "4", "8"]
    names = ["train_config.gradient_accumulation_steps", "train_config.validation_interval"]
    keys = [*names, *(f"potsa.{name}" for name in names), "processes"]
    for gpus, *numbers in rows:
        given = [f"{k}={n}" for k, n in zip(keys, [*numbers, gpus], strict=True)]
        assert seen_a_step(load_recipe("potsa", given)) == expected


def seen_a_step(recipe) -> list[tuple[int, int]]:
    """Of every stage: items a step, and steps between validations."""
    found = []
    for train in (stage.config.train_config for stage in recipe.stages):
        accumulation = train.gradient_accumulation_steps
        items = train.batch_size_training * accumulation * recipe.processes
        found.append((items, train.validation_interval // accumulation))
    return found


def test_a_stages_command():
    recipe = load_recipe("potsa", ["processes=3"])
    plain = command(recipe, recipe.stages[0])
    assert plain[:2] == [sys.executable, "-m"] and "torch.distributed.run" in plain
    assert plain[plain.index("--nproc_per_node") + 1] == "3"
    assert plain[-3:] == ["-m", "slam_potsa.engine.launch", "outputs/potsa/1_asr"]
