"""One vector a recording, from any named activation of a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from slam_potsa.engine.decode import Translator


@torch.inference_mode()
def pooled_vectors(translator: Translator, manifest: str | Path, tap: str = "projector") -> Tensor:
    """Mean over valid tokens of the tap (see `model.taps`): [n, D], in the manifest's order."""
    dataset = translator.dataset(manifest)
    model, size = translator.model, translator.config.train_config.val_batch_size
    pooled = []
    for start in range(0, len(dataset), size):
        items = [dataset[i] for i in range(start, min(start + size, len(dataset)))]
        batch = translator.to_device(dataset.collator(items))
        inputs = ("audio_mel", "audio_mel_post_mask", "encoder_features", "language_ids")
        with model.controller.recorder.recording({tap}) as taps:
            model.project(**{name: batch[name] for name in inputs if name in batch})
            tensor, mask = taps[tap]
        pooled.append(_mean(tensor.float(), mask).cpu())
    return torch.cat(pooled)


def _mean(tensor: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return tensor.mean(1)
    valid = mask.bool()[..., None]
    return torch.where(valid, tensor, 0.0).sum(1) / valid.sum(1)
