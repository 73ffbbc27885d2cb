"""Which parts train: stages one after another, what they keep, and what is refused."""

from dataclasses import replace

import pytest
import torch

from slam_potsa import InputError
from slam_potsa.cli import main
from slam_potsa.config.check import check
from slam_potsa.data.manifest import read_manifest, write_manifest
from slam_potsa.data.predictions import read_predictions
from slam_potsa.engine import launch, native
from slam_potsa.engine.prepare import check_inputs
from slam_potsa.engine.recipe import load_recipe
from slam_potsa.engine.run_directory import best_checkpoint
from slam_potsa.model.checkpoint import carried_bias, read_checkpoint
from slam_potsa.model.encoder import load_encoder
from slam_potsa.model.factory import models_built
from slam_potsa.model.language_bias import LanguageBias
from tests.engine.test_stages import killed_in_the_second_stage
from tests.support import refusal, refused, tiny, tiny_recipe

PLAIN = {
    "choose": {"alignment": "none"},
    "language_bias": {"enabled": False},
    "dataset_config": {"tasks": ["asr"], "asr_prompt": "USER : ", "pairing": "none"},
}
LORA = ["projector", "llm.lora"]


def trains(*parts: str, **train) -> dict:
    return {**PLAIN, "train_config": {"train_parts": list(parts), **train}}


STAGES = {
    "adapter": trains("projector"),
    "last": trains("projector", "encoder.last_1"),
    "joint": trains("projector", "encoder", "llm.lora", encoder_lr=1e-4),
    "potsa": {"train_config": {"train_parts": LORA}},
}


MIXED = {"tasks": ["asr", "s2tt", "mt", "instruct"], "task_shares": [3, 3, 1, 1]}


def write(folder, stages=STAGES, **top):
    """The third stage has rows of text alone."""
    mixed = folder / "world/data/mixed.jsonl"
    data = PLAIN["dataset_config"] | MIXED | {"train_data_path": str(mixed)}
    stages = stages | {"joint": stages["joint"] | {"dataset_config": data}}
    path = tiny_recipe.write(folder, stages=stages, **top)
    spoken = read_manifest(mixed.with_name("manifest.jsonl"))
    text = [replace(u, key=f"text-{u.key}", audio=None) for u in spoken[:4]]
    write_manifest(mixed, [*spoken, *text])
    tiny.whisper(folder / "world/whisper", layers=2)
    return load_recipe(str(path))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """By stage: its best checkpoint, and its model as it began and as it ended, by name."""
    recipe, seen = write(tmp_path_factory.mktemp("parts")), {}

    def run(_recipe, stage):
        with models_built() as models:
            begun = native.model_factory

            def keep(*args, **options):
                model, tokenizer = begun(*args, **options)
                seen[stage.name] = [{n: p.clone() for n, p in model.named_parameters()}]
                return model, tokenizer

            native.model_factory = keep
            try:
                launch.train_stage(stage.config)
            finally:
                native.model_factory = begun
            seen[stage.name].append(dict(models[0].named_parameters()))
        return 0

    tiny_recipe.train(recipe, run)
    kept = {s.name: read_checkpoint(best_checkpoint(s.folder)) for s in recipe.stages}
    return recipe, seen, kept


def moved(seen, name: str) -> set[str]:
    begin, end = seen[name]
    return {key for key in begin if not torch.equal(begin[key], end[key])}


def test_what_is_frozen_does_not_move_by_one_bit_and_what_trains_does(finished):
    _, seen, _ = finished
    part = {name: {key.partition(".")[0] for key in moved(seen, name)} for name in seen}
    assert part["adapter"] == {"encoder_projector"}
    assert part["last"] == {"encoder_projector", "encoder"}
    assert not any("layers.0." in key or "conv" in key for key in moved(seen, "last"))
    assert part["joint"] == {"encoder_projector", "encoder", "llm"}
    assert all("lora_" in key for key in moved(seen, "joint") if key.startswith("llm."))
    assert not any("embed_positions" in key for key in moved(seen, "joint"))
    assert part["potsa"] == {"encoder_projector", "llm"}


def test_checkpoints_hold_what_was_ever_trained_and_the_next_stage_begins_with_it(finished):
    recipe, seen, kept = finished
    names = list(seen)
    for before, after in zip(names, names[1:], strict=False):
        begun = seen[after][0]
        for key, tensor in kept[before].items():
            assert ".as_" in key or torch.equal(begun[key], tensor), key
        assert kept[before].keys() <= kept[after].keys()
    encoder = {key for key in kept["potsa"] if key.startswith("encoder.")}
    assert encoder == {key for key in kept["joint"] if key.startswith("encoder.")}
    assert all(torch.equal(kept["potsa"][key], kept["joint"][key]) for key in encoder)
    assert not any(key.startswith("encoder.") for key in kept["adapter"])
    # Biases are those of the encoder that was trained.
    model = recipe.stages[-1].config.model_config
    bias = LanguageBias.from_bytes(carried_bias(kept["potsa"]))
    where = model.encoder_path_hf, model.encoder_window
    assert bias.fingerprint == load_encoder(*where, kept["joint"]).fingerprint()
    assert bias.fingerprint != load_encoder(*where).fingerprint()


def test_a_part_has_its_rate(finished):
    config, off = finished[0].stages[2].config, {"enabled": False}
    sections = config.train_config, config.model_config
    model, _ = native.model_factory(*sections, language_bias=off, alignment={"terms": {}})
    groups = native.parameter_groups(model, config.train_config)
    assert [group["lr"] for group in groups] == [1e-3, 1e-4, 1e-3]
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(len(group["params"]) for group in groups) == len(trained)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"train_parts": []}, "nothing would train"),
        ({"train_parts": ["projector", "decoder"]}, "found 'decoder', expected some of"),
        ({"train_parts": ["projector", "llm", "llm.lora"]}, "each of projector, encoder and llm"),
        ({"train_parts": ["encoder"]}, "a new projector would stay random"),
        ({"encoder_lr": 1e-5}, "encoder_lr is not read"),
        ({"train_parts": LORA, "llm_lr": 1e-5, "enable_deepspeed": True}, "one rate for all"),
        ({"train_parts": ["projector", "encoder"]}, "its biases go stale"),
    ],
)
def test_parts_that_make_no_sense_are_refused(tmp_path, change, said):
    config = tiny_recipe.PotsaConfig()
    for name, value in change.items():
        setattr(config.train_config, name, value)
    refused(said, check, config)


def test_layers_that_are_not_there_are_refused(finished):
    config = finished[0].stages[1].config
    config.train_config.train_parts = ["projector", "encoder.last_3"]
    refused("encoder.last_3, but .* has 2 layers", check_inputs, config)


def test_a_stage_that_cannot_take_up_what_came_before_is_refused_at_once(finished, tmp_path):
    last = {"train_config": {"train_parts": ["projector"]}, "language_bias": {"path": "b"}}
    error = refusal(write, tmp_path, STAGES | {"potsa": last})
    assert "stage joint trained llm.lora" in str(error)
    assert "language_bias.path is of the encoder before last trained it" in str(error)
    start = best_checkpoint(finished[0].stages[2].folder)
    config = finished[0].stages[0].config
    options = {"language_bias": config.language_bias, "ckpt_path": str(start)}
    with pytest.raises(InputError, match="has LoRA weights: put llm.lora into"):
        native.model_factory(config.train_config, config.model_config, **options)


def test_slam_llms_switches_follow_from_the_parts(finished):
    config = finished[0].stages[2].config
    from slam_potsa.engine.slam_llm import to_slam

    train = to_slam(config).train_config
    assert not train.freeze_encoder and train.freeze_llm and train.use_peft
    train.freeze_llm = False
    said = "freeze_llm=False, but train_parts"
    refused(said, native.model_factory, train, config.model_config)


def test_a_model_of_speech_translates_text_that_it_does_not_hear(finished, tmp_path):
    """Zero-shot, and trained: `decode --task mt`, of rows with and without audio."""
    joint = finished[0].stages[2]
    mixed, out = joint.config.dataset_config.train_data_path, tmp_path / "out"
    line = ["decode", str(joint.folder), mixed, "--task", "mt", "--output", str(out)]
    assert main(line) == 0
    found = read_predictions(f"{out}_predictions.jsonl")
    assert len(found) == 22 and [item.source for item in found[-4:]] == [""] * 4
    assert main([*line[:4], "s2tt", *line[5:]]) == 2  # which needs audio


@pytest.mark.slow
def test_it_is_killed_in_its_second_stage_and_continues_to_the_same_model(finished, tmp_path):
    recipe = finished[0]
    killed_in_the_second_stage(recipe.stages[0].folder.parents[1], recipe, tmp_path)
