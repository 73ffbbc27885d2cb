"""A run directory as training leaves it, without the training."""

import dataclasses
from pathlib import Path

import torch
import yaml

from slam_potsa.data.dataset import get_speech_dataset
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


def build(config, **changes):
    """A model with fresh weights and the data that it is trained on."""
    torch.manual_seed(0)
    rest = {name: getattr(config, name) for name in ("language_bias", "alignment", "decode")}
    model, tokenizer = model_factory(config.train_config, config.model_config, **rest | changes)
    return model, get_speech_dataset(config.dataset_config, tokenizer, "train")


def one_step(model: torch.nn.Module, batch: dict):
    """The loss of a training step that moves nothing, and the line that is told of it."""
    lines = []
    model.controller.listeners.append(lines.append)
    loss = model.train()(**batch)[0].loss
    loss.backward()
    torch.optim.SGD(model.encoder_projector.parameters(), lr=0.0).step()
    model.controller.flush()
    return loss.item(), lines[0]


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
