"""What a trained model makes of parallel recordings: every named activation (tap) in one pass."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from tqdm import tqdm

from slam_potsa.data.dataset import build_dataset
from slam_potsa.data.feature_store import FeatureStore
from slam_potsa.data.manifest import Utterance, read_manifest
from slam_potsa.errors import InputError, collecting, refuse

if TYPE_CHECKING:
    from slam_potsa.engine.decode import Translator

INPUTS = ("audio_mel", "audio_mel_post_mask", "encoder_features", "language_ids")


def rows_of(manifest: str | Path, *needs: str) -> list[Utterance]:
    """The utterances of a manifest, whose audio paths are no longer relative to it."""
    rows, base = read_manifest(manifest, needs=["audio", *needs]), Path(manifest).parent
    return [replace(row, audio=str(base / row.audio)) for row in rows]


def read_recordings(manifests: Iterable[str | Path], heard: Iterable[str] = ()) -> list[Utterance]:
    """All utterances of the manifests.

    Raises InputError: bad lines; a language with fewer than two sentences that another has too; a
    `heard` language that is not spoken.
    """
    rows, problems = [], []
    for path in manifests:
        with collecting(problems):
            rows += rows_of(path)
    refuse(problems)
    counts = Counter(name for spoken in _languages_of(rows).values() for name in spoken)
    names = sorted({row.language for row in rows} | {*heard})
    refuse(
        f"language {name!r}: {counts[name]} of its sentences are spoken in another language too; "
        "expected at least 2 (the same sentence_id), or leave the language out"
        for name in names
        if counts[name] < 2
    )
    return rows


def detail_rows(rows: Sequence[Utterance], sentences: int, seed: int) -> list[int]:
    """The rows of so many sentences, of those in the most languages, drawn by the seed.

    So languages are compared on the same content.
    """
    spoken = _languages_of(rows)
    drawn = random.Random(f"analysis:{seed}").sample(sorted(spoken), len(spoken))
    chosen = sorted(drawn, key=lambda name: -len(spoken[name]))[:sentences]
    return [number for number, row in enumerate(rows) if row.sentence_id in chosen]


def _languages_of(rows: Iterable[Utterance]) -> dict[str, set[str]]:
    """sentence -> its languages, of those with two or more."""
    spoken: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        spoken[row.sentence_id].add(row.language)
    return {name: languages for name, languages in spoken.items() if len(languages) > 1}


def padded(rows: Sequence[Tensor], device: Any) -> tuple[Tensor, Tensor]:
    """Tokens of Q recordings, [n_i, D] each, as [Q, N, D], and which are valid [Q, N]."""
    valid = [torch.ones(len(row), dtype=torch.bool) for row in rows]
    return tuple(pad_sequence(list(each), batch_first=True).to(device) for each in (rows, valid))


class Recorded(NamedTuple):
    """One tap of n recordings, on the host in float32, in the order of the recordings.

    pooled [n, D]: mean over valid tokens. tokens: {row: [t, D]} of the rows that were asked for.
    """

    pooled: Tensor
    tokens: dict[int, Tensor]


def tap_names(model: Any) -> tuple[str, ...]:
    """The taps of a model from the encoder to the projector, in the order of the forward pass.

    "compensated" only where the run subtracts biases: without, it would be "encoder" again.
    """
    projector = model.encoder_projector
    compensated = ("compensated",) if getattr(projector, "language_bias", None) is not None else ()
    layers = (f"qformer.{number}" for number in range(1, len(projector.layers) + 1))
    return ("encoder", *compensated, *layers, "projector")


@torch.inference_mode()
def record(
    translator: Translator,
    rows: Sequence[Utterance],
    taps: Iterable[str],
    *,
    keep: Collection[int] = (),
    positions: int = 80,
) -> dict[str, Recorded]:
    """Run encoder and projector once over `rows` and keep `taps`.

    Args:
        keep: rows whose tokens are kept: all tokens of the tap, or `positions` evenly spaced ones
            where it has more (encoder frames). They cost 4 · positions · D bytes a row and tap.

    Raises InputError where the model's output is not finite.
    """
    model, train = translator.model, translator.config.train_config
    dataset, size = _dataset(translator, rows), train.val_batch_size
    order = sorted(range(len(rows)), key=lambda number: -(rows[number].duration or 0.0))
    loader = DataLoader(
        dataset,
        batch_size=size,
        sampler=order,  # the longest first
        collate_fn=dataset.collator,
        num_workers=train.num_workers_dataloader,
    )
    found = {tap: Recorded([None] * len(rows), {}) for tap in taps}
    for number, batch in enumerate(tqdm(loader, desc="recording", disable=None)):
        batch = translator.to_device({name: batch[name] for name in INPUTS if name in batch})
        with model.controller.recorder.recording(found) as recorded:
            model.project(**batch)
            rows_of_batch = order[number * size : (number + 1) * size]
            for tap, (pooled, tokens) in found.items():
                activation, mask = recorded[tap].tensor, recorded[tap].mask
                for place, row in enumerate(rows_of_batch):
                    valid = activation[place] if mask is None else activation[place][mask[place]]
                    pooled[row] = valid.float().mean(0).cpu()
                    if row in keep:
                        spaced = torch.linspace(0, len(valid) - 1, min(positions, len(valid)))
                        tokens[row] = valid[spaced.round().long()].float().cpu()
    whole = {tap: Recorded(torch.stack(pooled), tokens) for tap, (pooled, tokens) in found.items()}
    if bad := [tap for tap, (pooled, _) in whole.items() if not pooled.isfinite().all()]:
        raise InputError(
            f"{', '.join(bad)}: the model's output holds NaN or infinity; is the checkpoint one of "
            "a run that diverged, or the precision too low (model_config.llm_dtype)?"
        )
    return whole


@contextmanager
def reading(projector: Any) -> Iterator[list[Tensor]]:
    """Within: of each forward of a Q-Former, where its tokens look, [B, N, T] on the host.

    softmax(Q Kᵀ / √d) of the last block that reads the speech, the mean over its heads: a row sums
    to 1 over the valid frames. Encoder frames have heard what is around them, so it is where a
    token looks, not all that it knows. A projector without queries (PART's) leaves the list empty.
    """
    blocks = [each.crossattention for each in projector.layers if hasattr(each, "crossattention")]
    parts = [getattr(last.attention, name) for last in blocks[-1:] for name in ("query", "key")]
    found, kept = [], {}

    def looked(_: Any, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        if kept:
            query, key = (kept.pop(part) for part in parts)
            found.append(_looks(query, key, blocks[-1].attention.num_attention_heads, *inputs))

    with ExitStack() as hooks:
        for part in parts:
            keep = part.register_forward_hook(lambda own, _, output: kept.update({own: output}))
            hooks.enter_context(keep)
        hooks.enter_context(projector.register_forward_hook(looked))
        yield found


def _looks(
    query: Tensor, key: Tensor, heads: int, frames: Tensor, valid: Tensor | None = None
) -> Tensor:
    """[B, N, T]. Of each of W windows n tokens read s frames, [B W, n, D] and [B W, s, D]."""
    (batch, count), windows = frames.shape[:2], len(key) // len(frames)
    valid = frames.new_ones(batch, count) if valid is None else valid
    valid = F.pad(valid.bool(), (0, windows * key.shape[1] - count)).view(len(key), 1, 1, -1)
    query, key = (x.float().unflatten(2, (heads, -1)).transpose(1, 2) for x in (query, key))
    scores = (query @ key.mT / query.shape[3] ** 0.5).masked_fill(~valid, -torch.inf)
    weights = scores.softmax(3).nan_to_num().mean(1).unflatten(0, (batch, windows))
    own = torch.eye(windows, device=weights.device)  # a token looks nowhere but in its window
    spread = torch.einsum("bwns,wv->bwnvs", weights, own)
    return spread.flatten(3).flatten(1, 2)[..., :count].cpu()


def _dataset(translator: Translator, rows: Sequence[Utterance]) -> Any:
    """A dataset of `rows` as the model reads them.

    From the run's feature store where it has them all, or where the model keeps no encoder (then
    InputError names the missing ones); otherwise from the recordings themselves.
    """
    data, store = translator.config.dataset_config, translator.config.dataset_config.feature_store
    if store and translator.model.encoder is not None:
        held = FeatureStore.open(store)
        store = store if all(row.key in held.keys for row in rows) else None
    # A row's prompt is built but not looked at here: manifests without a target will do.
    spoken = [replace(u, target_language=u.target_language or u.language) for u in rows]
    data = replace(data, feature_store=store, inference_mode=True)
    return build_dataset(data, spoken, translator.tokenizer)
