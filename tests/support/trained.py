"""A run directory as training leaves it, without the training."""

import dataclasses
from pathlib import Path

import torch
import yaml

from slam_potsa.engine.decode import Translator, load_run
from slam_potsa.engine.encode import estimate_bias
from slam_potsa.engine.run_directory import CONFIG, MODEL
from slam_potsa.model.checkpoint import save_checkpoint
from slam_potsa.model.encoder import load_encoder
from slam_potsa.model.factory import model_factory
from tests.support import tiny


def untrained_run(folder: Path, *, compensated: bool = True, seed: int = 0) -> Translator:
    """A tiny model with fresh weights, saved as the run `folder / "run"` and loaded from there."""
    config = tiny.world(folder, sentences=6, languages=("en", "es", "ru"))
    return save_run(config, compensated=compensated, seed=seed)


@torch.no_grad()
def make_it_listen(model: torch.nn.Module) -> None:
    """Weights so large that random ones answer differently to different speech."""
    model.encoder_projector.linear.weight.mul_(10)
    for name, weight in model.encoder_projector.named_parameters():
        if "crossattention" in name and weight.dim() == 2:
            weight.mul_(6)


def save_run(config, *, compensated: bool = True, seed: int = 0) -> Translator:
    run = Path(config.train_config.output_dir)
    run.mkdir(parents=True, exist_ok=True)
    manifest = config.dataset_config.train_data_path
    config.dataset_config.test_data_path = manifest
    config.language_bias.enabled = compensated
    if compensated:
        model = config.model_config
        encoder = load_encoder(model.encoder_path_hf, model.encoder_window)
        estimate_bias([manifest], encoder, progress=False).save(run / "bias.safetensors")
        config.language_bias.path = str(run / "bias.safetensors")
    torch.manual_seed(seed)
    model, _ = model_factory(
        config.train_config, config.model_config, language_bias=config.language_bias
    )
    save_checkpoint(model, run / MODEL)
    (run / CONFIG).write_text(yaml.safe_dump(dataclasses.asdict(config)))
    return Translator(load_run(run), device="cpu")
