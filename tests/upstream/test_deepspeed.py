"""SLAM-LLM's unmodified DeepSpeed loop on a CPU: each ZeRO stage, each precision."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from slam_potsa.config.compose import compose_config, conf_dir
from slam_potsa.data.jsonl import read_log
from slam_potsa.data.manifest import read_manifest, write_manifest
from slam_potsa.engine.decode import Translator
from slam_potsa.model.carried_state import CarriedState
from slam_potsa.model.checkpoint import carried_bias, read_checkpoint
from slam_potsa.model.factory import model_factory
from tests.support import slam_llm, tiny
from tests.upstream.test_slam_host import assert_decodes_alike, launch

pytest.importorskip("deepspeed")
pytestmark = slam_llm.NEEDED


def settings(folder: Path, stage: int, precision: str) -> str:
    """Our file where there is one; ZeRO-3 really partitions, however small the parameters are."""
    if stage < 3 and precision in ("fp16", "bf16"):
        return f"zero{stage}_{precision}"
    wanted = json.loads((conf_dir() / "deepspeed" / f"zero{stage}_bf16.json").read_text())
    del wanted["bf16"]
    if precision != "none":
        wanted[precision] = {"enabled": True}
    wanted["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    path = folder / "settings.json"
    path.write_text(json.dumps(wanted))
    return str(path)


SLOW = [(1, "none", 1, 1), (1, "fp16", 1, 2), (1, "bf16", 2, 1), (2, "none", 2, 1)]
SLOW += [(2, "fp16", 1, 1), (2, "bf16", 1, 2), (3, "none", 1, 1), (3, "bf16", 2, 1)]
CASES = [(2, "bf16", 2, 1), (3, "fp16", 2, 1)]
CASES += [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]


@pytest.mark.parametrize(("stage", "precision", "processes", "accumulation"), CASES)
def test_trains_saves_and_decodes(tmp_path, stage, precision, processes, accumulation):
    config = tiny.world(tmp_path, sentences=8)
    train = config.train_config
    train.validation_interval, train.num_epochs = 4, 2 * processes
    train.gradient_accumulation_steps = accumulation
    config.deepspeed_config = settings(tmp_path, stage, precision)
    overrides = tiny.overrides(config) + ["engine=slam_llm"]
    launch("tests/support/finetune_deepspeed_on_cpu.py", overrides, processes)

    run = Path(train.output_dir)
    lines = read_log(run / "metrics.jsonl")
    skipped = 16 // accumulation - len(lines)  # by fp16, while its loss scale settles
    assert skipped == 0 or (precision == "fp16" and skipped < 8)
    assert [line["step"] for line in lines] == list(range(len(lines)))
    assert all(math.isfinite(line["ce"]) and math.isfinite(line["ot"]) for line in lines)
    assert all(len(line["layers"]) == 1 for line in lines)
    saved = sorted(run.glob("potsa_epoch_*/pytorch_model.bin"), key=lambda p: p.stat().st_mtime)
    usable(saved[-1], config)
    usable(run / "model.pt", config)
    if (stage, precision, processes) == (2, "bf16", 2):
        assert_decodes_alike(config, saved[-1], tmp_path)
    if stage == 3:
        schedules = schedule_of_every_rank(saved[-1].parent)
        assert len(schedules) == processes and all(found == schedules[0] for found in schedules)
    if saved[-1].parent.name.startswith(f"potsa_epoch_{train.num_epochs}_"):
        same_weights(saved[-1], run / "model.pt")


@pytest.mark.parametrize(("stage", "precision"), [(2, "bf16"), (3, "none")])
def test_ranks_may_have_text_alone_while_the_encoder_trains(tmp_path, stage, precision):
    """One row a rank a step: in a third of the steps the other one has no speech, or none has."""
    config = tiny.world(tmp_path, sentences=8)
    train, data = config.train_config, config.dataset_config
    spoken = read_manifest(data.train_data_path)
    text = [replace(u, key=f"text-{u.key}", audio=None) for u in spoken]
    write_manifest(data.train_data_path, [*spoken, *text])
    data.tasks, data.task_shares, data.pairing = ["asr", "mt"], [1, 1], "none"
    config.language_bias.enabled, config.alignment.terms = False, {}
    train.train_parts, train.batch_size_training = ["projector", "encoder"], 1
    train.num_epochs, train.validation_interval = 1, 12
    config.deepspeed_config = settings(tmp_path, stage, precision)
    overrides = tiny.overrides(config) + ["engine=slam_llm"]
    launch("tests/support/finetune_deepspeed_on_cpu.py", overrides, 2)
    lines = read_log(Path(train.output_dir) / "metrics.jsonl")
    assert len(lines) == 24 and all(math.isfinite(line["ce"]) for line in lines)
    state = read_checkpoint(Path(train.output_dir) / "model.pt")
    assert any(name.startswith("encoder.") for name in state)
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "parts"), [(2, ["projector", "llm.lora"]), (3, ["projector"])])
def test_speech_is_aligned_with_text(tmp_path, stage, parts):
    """The text's own pass through an LLM that DeepSpeed holds."""
    config = tiny.world(tmp_path, sentences=8)
    train = config.train_config
    config.alignment = compose_config(["alignment=[ai_sta,ot]"]).alignment
    train.train_parts, train.num_epochs, train.validation_interval = parts, 1, 4
    config.deepspeed_config = settings(tmp_path, stage, "bf16")
    overrides = tiny.overrides(config) + ["engine=slam_llm"]
    launch("tests/support/finetune_deepspeed_on_cpu.py", overrides, 2)
    lines = read_log(Path(train.output_dir) / "metrics.jsonl")
    assert len(lines) == 4
    assert all(math.isfinite(line[name]) for line in lines for name in ("ce", "ai_sta", "ot"))
    state = read_checkpoint(Path(train.output_dir) / "model.pt")
    assert any("lora" in name for name in state) == ("llm.lora" in parts)


def schedule_of_every_rank(folder: Path) -> list[dict]:
    """ZeRO-3: every rank saves its own buffers, the carried schedule among them."""
    found = []
    for path in sorted(folder.glob("global_step*/zero_pp_rank_*_model_states.pt")):
        module = torch.load(path, map_location="cpu", weights_only=False)["module"]
        (name,) = [name for name in module if name.endswith("schedule_state.as_buffer")]
        carried = CarriedState()
        carried.load_state_dict({"as_buffer": module[name]}, strict=False)
        state = json.loads(carried.read())
        found.append({"step": state["step"], "schedule": state["schedule"]})
    return found


def same_weights(theirs: Path, ours: Path) -> None:
    """Our checkpoint at the end is what SLAM-LLM put together from the partitions, in float32."""
    theirs, ours = read_checkpoint(theirs), read_checkpoint(ours)
    names = [name for name in ours if not name.endswith(".as_parameter")]
    assert len(names) > 50
    for name in names:
        assert torch.equal(ours[name], theirs[name].float()), name


def usable(checkpoint: Path, config) -> None:
    """Loads, with its schedule and without the bias file, and decodes natively."""
    state = read_checkpoint(checkpoint)
    assert carried_bias(state) and all(torch.isfinite(tensor).all() for tensor in state.values())
    config.ckpt_path = str(checkpoint)
    sections = {"alignment": config.alignment, "ckpt_path": config.ckpt_path}
    model, _ = model_factory(config.train_config, config.model_config, **sections)
    found = model.controller.state_from_carried()
    assert found["step"] > 0 and found["schedule"] is not None
    decoded = Translator(config).decode(config.dataset_config.val_data_path, progress=False)
    assert len(decoded) == 24
