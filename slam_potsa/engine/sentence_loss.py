"""How far a model is from the right translation of each sentence, whatever it would write itself.

    ce_i = −1/A_i Σ_a ln p(y_ia | speech_i, prompt, y_i1 … y_i(a−1))        in nats a token

over the A_i tokens of the target and its end. It moves with every model, where BLEU stands still
until a word changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from tqdm import tqdm

from slam_potsa.data.dataset import IGNORED, build_dataset
from slam_potsa.data.manifest import Utterance
from slam_potsa.data.tasks import needed_fields, task_to_decode
from slam_potsa.engine.decode import Translator
from slam_potsa.errors import refuse


@torch.inference_mode()
def sentence_losses(
    translator: Translator,
    utterances: Sequence[Utterance],
    base: Path | None = None,
    progress: bool = False,
) -> dict[str, float]:
    """Key -> ce_i of each of `utterances`, whose audio paths are relative to `base`.

    Raises InputError where one of them has no target.
    """
    data = translator.config.dataset_config
    asked = [task_to_decode(data.tasks, data.test_task)]
    needs = needed_fields(asked)
    refuse(
        f"utterance {u.key!r}: {name} is not there, which its loss is taken of"
        for u in utterances
        for name in needs
        if getattr(u, name) is None
    )
    data = replace(data, inference_mode=False, tasks=asked)
    dataset = build_dataset(data, utterances, translator.tokenizer, base)
    losses: list[float] = []
    size = translator.config.train_config.val_batch_size
    translator.model.eval()
    for batch in tqdm(_batches(dataset, size), disable=not progress, desc="losses", unit="batch"):
        batch = translator.to_device(batch)
        logits = translator.model(**batch)[0].logits.float()
        labels = batch["labels"][:, batch["label_start"] :]
        values = F.cross_entropy(
            logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
        )
        losses += (values.sum(1) / (labels != IGNORED).sum(1)).tolist()
    return {u.key: loss for u, loss in zip(utterances, losses, strict=True)}


def _batches(dataset: Any, size: int) -> Iterator[dict[str, Any]]:
    for start in range(0, len(dataset), size):
        yield dataset.collator([dataset[i] for i in range(start, min(start + size, len(dataset)))])
