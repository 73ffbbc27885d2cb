"""What a trained model makes of recordings: every named activation (tap) in one pass."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from slam_potsa.data.dataset import build_dataset
from slam_potsa.data.feature_store import FeatureStore
from slam_potsa.data.manifest import Utterance

if TYPE_CHECKING:
    from slam_potsa.engine.decode import Translator
    from slam_potsa.model.taps import Tap

INPUTS = ("audio_mel", "audio_mel_post_mask", "encoder_features", "language_ids")


class Recorded(NamedTuple):
    """One tap of n recordings, on the host in float32, in the order of the recordings.

    pooled [n, D]: mean over valid tokens. tokens: {row: [t, D]} of the rows that were asked for.
    """

    pooled: Tensor
    tokens: dict[int, Tensor]


def tap_names(model: Any) -> tuple[str, ...]:
    """The taps of a model from the encoder on (see `model.taps`), in the order of the forward pass.

    "compensated" only where the run subtracts biases: without, it would be "encoder" again.
    """
    projector = model.encoder_projector
    compensated = ("compensated",) if getattr(projector, "language_bias", None) is not None else ()
    layers = (f"qformer.{number}" for number in range(1, len(projector.layers) + 1))
    return ("encoder", *compensated, *layers, "projector")


def pooled_vectors(translator: Translator, manifest: str | Path, tap: str = "projector") -> Tensor:
    """Mean over valid tokens of the tap (see `model.taps`): [n, D], in the manifest's order."""
    return record(translator, [translator.dataset(manifest)], [tap])[tap].pooled


def speech_dataset(
    translator: Translator, utterances: Sequence[Utterance], base: str | Path | None
) -> Any:
    """A dataset of `utterances` (audio relative to `base`) for `record`.

    Reads the run's feature store where it has them all, or where the model keeps no encoder (then
    InputError names the missing ones); otherwise the recordings themselves.
    """
    data = translator.config.dataset_config
    store = data.feature_store
    if store and translator.model.encoder is not None:
        held = FeatureStore.open(store)
        store = store if all(utterance.key in held for utterance in utterances) else None
    # A row's prompt is built but not looked at here: manifests without a target will do.
    spoken = [replace(u, target_language=u.target_language or u.language) for u in utterances]
    data = replace(data, feature_store=store, inference_mode=True)
    return build_dataset(data, spoken, translator.tokenizer, training=False, base=base)


@torch.inference_mode()
def record(
    translator: Translator,
    datasets: Sequence[Any],
    taps: Iterable[str],
    *,
    keep: Collection[int] = (),
    positions: int = 80,
    progress: bool = False,
) -> dict[str, Recorded]:
    """Run encoder and projector once over all datasets and keep `taps`.

    Args:
        datasets: as `Translator.dataset` makes them; rows are counted through all of them.
        keep: rows whose tokens are kept: all tokens of the tap, or `positions` evenly spaced ones
            where it has more (encoder frames). They cost 4 · positions · D bytes a row and tap.
    """
    from tqdm import tqdm

    taps = list(taps)
    count = sum(len(dataset) for dataset in datasets)
    pooled: dict[str, list[Tensor | None]] = {tap: [None] * count for tap in taps}
    tokens: dict[str, dict[int, Tensor]] = {tap: {} for tap in taps}
    recorder = translator.model.controller.recorder
    with tqdm(total=count, desc="recording", unit="utt", disable=not progress, leave=False) as bar:
        for rows, batch in _batches(translator, datasets):
            with recorder.recording(taps) as found:
                inputs = {name: batch[name] for name in INPUTS if name in batch}
                translator.model.project(**inputs)
                for tap in taps:
                    means = _mean(found[tap]).cpu()
                    for place, row in enumerate(rows):
                        pooled[tap][row] = means[place]
                        if row in keep:
                            tokens[tap][row] = _spaced(found[tap], place, positions).cpu()
            bar.update(len(rows))
    return {tap: Recorded(torch.stack(pooled[tap]), tokens[tap]) for tap in taps}


def _batches(
    translator: Translator, datasets: Sequence[Any]
) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """(row numbers, batch on the device), the longest recordings of a dataset first."""
    train, start = translator.config.train_config, 0
    for dataset in datasets:
        utterances, size = dataset.items.utterances, train.val_batch_size
        order = sorted(range(len(utterances)), key=lambda i: -(utterances[i].duration or 0.0))
        loader = torch.utils.data.DataLoader(
            dataset,
            batch_size=size,
            sampler=order,
            collate_fn=dataset.collator,
            num_workers=train.num_workers_dataloader,
        )
        for number, batch in enumerate(loader):
            rows = [start + row for row in order[number * size : (number + 1) * size]]
            yield rows, translator.to_device(batch)
        start += len(dataset)


def _mean(tap: Tap) -> Tensor:
    tensor, mask = tap.tensor.float(), tap.mask
    if mask is None:
        return tensor.mean(1)
    valid = mask.bool()[..., None]
    return torch.where(valid, tensor, 0.0).sum(1) / valid.sum(1)


def _spaced(tap: Tap, row: int, positions: int) -> Tensor:
    """At most `positions` valid tokens of a row [t, D], evenly spaced, the first and last too."""
    tokens = tap.tensor[row] if tap.mask is None else tap.tensor[row][tap.mask[row].bool()]
    if len(tokens) > positions:
        places = torch.linspace(0, len(tokens) - 1, positions, device=tokens.device)
        tokens = tokens[places.round().long()]
    return tokens.float().clone()
