"""Configurations that SLAM-LLM would only trip over later, each with its remedy."""

import json
from pathlib import Path

import pytest

from slam_potsa.config import NativeConfig, PotsaConfig
from slam_potsa.engine import deepspeed, launch
from slam_potsa.engine.slam_llm import first_validation, preflight
from slam_potsa.errors import InputError
from tests.support import refused, tiny


@pytest.fixture(autouse=True)
def _launched(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")


@pytest.fixture
def config(tmp_path) -> PotsaConfig:
    """8 pairs to train on, 16 utterances to validate on: 4 batches an epoch, 4 of validation."""
    manifest = str(tiny.recordings(tmp_path, sentences=8, languages=("en", "es")))
    config = PotsaConfig()
    config.dataset_config.train_data_path = config.dataset_config.val_data_path = manifest
    train = config.train_config
    train.output_dir = str(tmp_path / "run")
    train.batch_size_training, train.val_batch_size, train.num_epochs = 2, 4, 2
    train.validation_interval, train.warmup_steps, train.total_steps = 4, 2, 100
    return config


def problems(config: PotsaConfig, world_size: int = 1) -> list[str]:
    try:
        preflight(config, world_size)
    except InputError as error:
        return error.problems
    return []


def with_deepspeed(config: PotsaConfig, folder: Path, **settings) -> PotsaConfig:
    """`settings` over those of zero2_bf16; None removes a key."""
    given = deepspeed.read_settings("zero2_bf16") | settings
    merged = {k: v for k, v in given.items() if v is not None}
    (folder / "settings.json").write_text(json.dumps(merged))
    config.train_config.enable_deepspeed = True
    config.deepspeed_config = str(folder / "settings.json")
    return config


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("run_validation", False, "run_validation=false"),
        ("val_batch_size", 17, "train_config.val_batch_size to 16 or less"),
        ("batch_size_training", 9, "train_config.batch_size_training to 8 or less"),
        ("validation_interval", 9, "set it to 4 or less"),
        ("total_steps", 4, "optimizer step 4"),
    ],
)
def test_each_trap_is_named_with_its_remedy(config, key, value, named):
    setattr(config.train_config, key, value)
    assert [named in problem for problem in problems(config)] == [True]


def test_every_process_needs_a_batch_of_validation(config, monkeypatch):
    assert problems(config) == problems(config, world_size=2) == []
    config.train_config.batch_size_training = 1
    assert problems(config, world_size=4) == []
    (problem,) = problems(config, world_size=6)
    assert "16 items on 6 processes are 3 each" in problem and "to 3 or less" in problem
    config.native.bf16 = True
    monkeypatch.delenv("LOCAL_RANK")
    found = problems(config, world_size=6)
    assert len(found) == 3 and "torchrun" in found[1]  # all at once


@pytest.mark.parametrize("batches", [1, 3, 10])
@pytest.mark.parametrize("interval", [1, 2, 7, 12, 25])
@pytest.mark.parametrize("accumulation", [1, 2, 3, 4])
def test_first_validation_is_where_the_loop_would_have_it(batches, interval, accumulation):
    steps = 0
    expected = None
    for epoch in range(3):
        for micro in range(1, batches + 1):
            steps += micro % accumulation == 0 or micro == batches
            if (epoch * (batches // accumulation) + micro) % interval == 0 and expected is None:
                expected = steps
    assert first_validation(batches, 3, interval, accumulation) == expected


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_our_deepspeed_files_pass_and_take_the_trainers_values(config, stage, precision):
    config.train_config.enable_deepspeed = True
    config.train_config.gradient_accumulation_steps = 4
    config.deepspeed_config = f"zero{stage}_{precision}"
    assert problems(config) == []
    Path(config.train_config.output_dir).mkdir()
    deepspeed.write_settings(config, world_size=2)
    deepspeed.use_settings(config)
    written = json.loads(Path(config.deepspeed_config).read_text())
    assert written["optimizer"]["params"]["lr"] == config.train_config.lr
    assert written["scheduler"]["params"]["total_num_steps"] == 100
    assert written["gradient_accumulation_steps"] == 4
    assert config.train_config.gradient_accumulation_steps == 1
    assert written["zero_optimization"]["stage"] == stage and written[precision]["enabled"]
    assert not list(deepspeed.left_auto(written))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"zero_optimization": {"stage": 0}}, "stage 0"),
        ({"zero_optimization": None}, "stage 0"),
        ({"fp16": {"enabled": True}}, "both enabled"),
        ({"optimizer": None}, "optimizer.params.lr"),
        ({"gradient_clipping": "auto"}, 'gradient_clipping="auto"'),
        ({"gradient_accumulation_steps": 2}, "says 2"),
        ({"gradient_accumulation_steps": None}, "says nothing"),
        ({"gradient_accumulation_steps": None, "train_batch_size": 8}, "says nothing"),
    ],
)
def test_each_trap_of_the_deepspeed_file_is_named(config, tmp_path, settings, named):
    config.train_config.gradient_accumulation_steps = 2
    with_deepspeed(config, tmp_path, **settings)
    assert [named in problem for problem in problems(config)] == [True]


@pytest.mark.parametrize("average", [True, False])
def test_averages_and_trained_tables_need_whole_weights(config, tmp_path, average):
    config.alignment.teacher = "ema" if average else None
    config.language_bias.trained = not average
    assert problems(config) == []
    with_deepspeed(config, tmp_path, zero_optimization={"stage": 3})
    assert ["start with torchrun" in problem for problem in problems(config)] == [True]


def test_what_only_the_native_host_reads_is_refused_there(config):
    config.native = NativeConfig(bf16=True, max_steps=5, choose_by="bleu", save_interval=1)
    (problem,) = problems(config)
    names = {word.partition("=")[0].rpartition(".")[2] for word in problem.split(": ")[0].split()}
    assert names == {"bf16", "max_steps", "choose_by"}


@pytest.mark.parametrize("content", [None, "[1, 2]", "{broken"])
def test_a_deepspeed_file_that_is_none(config, tmp_path, content):
    with_deepspeed(config, tmp_path).train_config.use_fp16 = True
    (problem,) = problems(config)  # precision comes from the file
    assert "use_fp16" in problem
    config.train_config.use_fp16, settings = False, Path(config.deepspeed_config)
    settings.unlink() if content is None else settings.write_text(content)
    (problem,) = problems(config)
    assert "settings.json" in problem


def test_an_earlier_run_is_not_written_over(config):
    folder = Path(config.train_config.output_dir) / "potsa_epoch_1_step_4"
    folder.mkdir(parents=True)
    (problem,) = problems(config)
    assert "SLAM-LLM cannot resume" in problem and f"{folder.name}/model.pt" in problem
    config.native.resume = "never"
    assert problems(config) == []


def test_deepspeed_needs_slam_llm(config, monkeypatch):
    config.engine, config.train_config.enable_deepspeed = "auto", True
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused("slam_llm, deepspeed, which engine=slam_llm", launch.choose_engine, config)
    config.engine = "native"
    refused("engine=slam_llm", launch._finetune, config)
    config.engine, config.decode_log = "auto", None
    refused("decode_log is not set", launch._inference, config)  # decoding needs neither
