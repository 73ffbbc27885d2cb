"""A recipe of three stages on tiny models: asr, s2tt, then POTSA; trains in seconds."""

from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import yaml

from slam_potsa.config import PotsaConfig
from slam_potsa.engine import launch, stages
from slam_potsa.engine.recipe import Recipe, Stage, literal, load_recipe
from tests.support import tiny

MANIFESTS = ("train_data_path", "val_data_path", "test_data_path")


def write(folder: Path, *, output: str = "out", world: Path | None = None, **top) -> Path:
    """`recipe.yaml` in `folder`, its parts (made once) in `world`; `top` replaces its keys."""
    folder.mkdir(parents=True, exist_ok=True)
    config = parts(world or folder / "world")
    everything = asdict(config)
    del everything["ckpt_path"]
    everything["engine"] = "native"
    terms = everything["alignment"].pop("terms")
    content = {
        "output_dir": str(folder / output),
        "all": everything,
        "stages": {
            "asr": _before({"tasks": ["asr"], "asr_prompt": "USER : "}),
            "s2tt": _before({"tasks": ["s2tt"]}),
            "potsa": {"train_config": {"lr": 5e-4}, "alignment": {"terms": terms}},
        },
        "tests": {"test": config.dataset_config.train_data_path},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content | top, sort_keys=False))
    return path


def _before(data: dict) -> dict:
    """English alone, raw encoder output: as CoVoST2's stages."""
    return {
        "choose": {"alignment": "none"},
        "language_bias": {"enabled": False},
        "dataset_config": {**data, "pairing": "none"},
        "train_config": {"batch_size_training": 3},
    }


def parts(world: Path) -> PotsaConfig:
    """tiny.world with dropout, so that a continued run must take up the random numbers too."""
    config = tiny.world(world)
    config.model_config.qformer_dropout = 0.1
    config.train_config.num_epochs = 1
    config.train_config.validation_interval = 2
    config.native.save_interval = 2
    return config


def in_process(_recipe: Recipe, stage: Stage) -> int:
    """Trains a stage here, instead of in a process of its own that imports everything first."""
    launch.train_stage(deepcopy(stage.config))  # a host writes into it
    return 0


def sizes(config: PotsaConfig, output: Path, steps: int) -> list[str]:
    """What makes an experiment tiny, as its command line: parts, paths, sizes; nothing it chose."""
    model, data = asdict(config.model_config), config.dataset_config
    changed = {f"model_config.{name}": value for name, value in model.items()}
    changed |= {f"dataset_config.{name}": data.train_data_path for name in MANIFESTS}
    changed |= {
        "dataset_config.mel_size": data.mel_size,
        "dataset_config.feature_store": None,
        "dataset_config.prompt": data.prompt,
        "train_config.batch_size_training": 2,
        "train_config.gradient_accumulation_steps": 1,
        "train_config.num_workers_dataloader": 0,
        "train_config.run_validation": False,
        "train_config.warmup_steps": 1,
        "train_config.output_dir": str(output),
        "native.max_steps": steps,
    }
    return [f"{name}={literal(value)}" for name, value in changed.items()]


def train(recipe: Recipe, runner=in_process) -> list[str]:
    said: list[str] = []
    stages.run_stages(recipe, runner, said.append)
    return said


def again(folder: Path, tmp_path: Path, *overrides: str) -> Recipe:
    """The finished recipe, in another place."""
    return load_recipe(str(folder / "recipe.yaml"), [f"output_dir={tmp_path / 'out'}", *overrides])
