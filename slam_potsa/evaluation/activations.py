"""What a trained model makes of parallel recordings: every named activation (tap) in one pass."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from slam_potsa.data.dataset import build_dataset
from slam_potsa.data.feature_store import FeatureStore
from slam_potsa.data.manifest import Utterance, read_manifest
from slam_potsa.errors import InputError, collecting, refuse

if TYPE_CHECKING:
    from slam_potsa.engine.decode import Translator
    from slam_potsa.model.taps import Tap

INPUTS = ("audio_mel", "audio_mel_post_mask", "encoder_features", "language_ids")


def read_recordings(
    manifests: Iterable[str | Path],
    *,
    sentences: int | None = None,
    seed: int = 0,
    heard: Iterable[str] = (),
) -> list[Utterance]:
    """All utterances of the manifests, or those of so many sentences drawn of the parallel ones.

    Their audio paths are no longer relative to the manifest. The draw depends on the seed and the
    sentences alone.

    Raises:
        InputError: bad lines; a key in two manifests; fewer than two languages; a language with
            fewer than two sentences that another has too; a `heard` language that is not spoken.
    """
    rows, problems = [], []
    for path in map(Path, manifests):
        with collecting(problems):
            rows += _placed(path)
    refuse(problems)
    keys = Counter(row.key for row in rows)
    if twice := [key for key in keys if keys[key] > 1]:
        problems.append(
            f"the manifests share {len(twice)} keys, such as {twice[0]!r}; expected each but once"
        )
    refuse([*problems, *_language_problems(rows, heard)])
    if sentences is None:
        return rows
    chosen = set(_drawn(rows, seed)[:sentences])
    rows = [row for row in rows if row.sentence_id in chosen]
    refuse(f"with {sentences} sentences: {problem}" for problem in _language_problems(rows))
    return rows


def detail_rows(rows: Sequence[Utterance], sentences: int, seed: int) -> list[int]:
    """The rows of so many sentences, of those in the most languages.

    So languages are compared on the same content.
    """
    spoken = _languages(rows)
    chosen = set(sorted(_drawn(rows, seed), key=lambda name: -len(spoken[name]))[:sentences])
    return [number for number, row in enumerate(rows) if row.sentence_id in chosen]


def _placed(manifest: Path) -> list[Utterance]:
    """Its utterances, with audio paths that are not relative to it."""
    return [replace(u, audio=str(manifest.parent / u.audio)) for u in read_manifest(manifest)]


def _languages(rows: Iterable[Utterance]) -> dict[str, set[str]]:
    """sentence -> languages."""
    spoken: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        spoken[row.sentence_id].add(row.language)
    return spoken


def _drawn(rows: Iterable[Utterance], seed: int) -> list[str]:
    """The sentences of two languages or more, in an order drawn by the seed."""
    parallel = sorted(name for name, spoken in _languages(rows).items() if len(spoken) > 1)
    return random.Random(f"analysis:{seed}").sample(parallel, len(parallel))


def _language_problems(rows: Sequence[Utterance], heard: Iterable[str] = ()) -> list[str]:
    names, spoken = sorted({row.language for row in rows}), _languages(rows).values()
    shared = {name: sum(name in each and len(each) > 1 for each in spoken) for name in names}
    return [
        f"language {name!r}: {count} of its sentences are spoken in another language too; expected "
        "at least 2 (the same sentence_id), or leave the language out"
        for name, count in shared.items()
        if count < 2
    ] + [
        f"heard {name!r}: not spoken in these manifests, which have {', '.join(names)}"
        for name in heard
        if name not in names
    ]


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


def pooled_vectors(translator: Translator, manifest: str | Path, tap: str = "projector") -> Tensor:
    """Mean over valid tokens of the tap (see `model.taps`): [n, D], in the manifest's order."""
    return record(translator, _placed(Path(manifest)), [tap])[tap].pooled


def speech_dataset(translator: Translator, rows: Sequence[Utterance]) -> Any:
    """A dataset of `rows` as the model reads them.

    From the run's feature store where it has them all, or where the model keeps no encoder (then
    InputError names the missing ones); otherwise from the recordings themselves.
    """
    data = translator.config.dataset_config
    store = data.feature_store
    if store and translator.model.encoder is not None:
        held = FeatureStore.open(store)
        store = store if all(row.key in held for row in rows) else None
    # A row's prompt is built but not looked at here: manifests without a target will do.
    spoken = [replace(u, target_language=u.target_language or u.language) for u in rows]
    data = replace(data, feature_store=store, inference_mode=True)
    return build_dataset(data, spoken, translator.tokenizer)


@torch.inference_mode()
def record(
    translator: Translator,
    rows: Sequence[Utterance],
    taps: Iterable[str],
    *,
    keep: Collection[int] = (),
    positions: int = 80,
    progress: bool = False,
) -> dict[str, Recorded]:
    """Run encoder and projector once over `rows` and keep `taps`.

    Args:
        keep: rows whose tokens are kept: all tokens of the tap, or `positions` evenly spaced ones
            where it has more (encoder frames). They cost 4 · positions · D bytes a row and tap.

    Raises:
        InputError: the model's output is not finite.
    """
    found = {tap: Recorded([None] * len(rows), {}) for tap in taps}
    recorder = translator.model.controller.recorder
    with tqdm(total=len(rows), desc="recording", unit="utt", disable=not progress) as bar:
        for places, batch in _batches(translator, rows):
            with recorder.recording(found) as recorded:
                translator.model.project(**{k: batch[k] for k in INPUTS if k in batch})
                for tap, (pooled, tokens) in found.items():
                    for number, row in enumerate(places):
                        valid = _valid(recorded[tap], number)
                        pooled[row] = valid.mean(0).cpu()
                        if row in keep:
                            tokens[row] = _spaced(valid, positions).cpu()
            bar.update(len(places))
    whole = {tap: Recorded(torch.stack(pooled), tokens) for tap, (pooled, tokens) in found.items()}
    if bad := [tap for tap, (pooled, _) in whole.items() if not pooled.isfinite().all()]:
        raise InputError(
            f"{', '.join(bad)}: the model's output holds NaN or infinity; is the checkpoint one of "
            "a run that diverged, or the precision too low (model_config.llm_dtype)?"
        )
    return whole


def _batches(
    translator: Translator, rows: Sequence[Utterance]
) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """(row numbers, batch on the device), the longest recordings first."""
    dataset, train = speech_dataset(translator, rows), translator.config.train_config
    order = sorted(range(len(rows)), key=lambda i: -(rows[i].duration or 0.0))
    size = train.val_batch_size
    loader = DataLoader(
        dataset,
        batch_size=size,
        sampler=order,
        collate_fn=dataset.collator,
        num_workers=train.num_workers_dataloader,
    )
    for number, batch in enumerate(loader):
        yield order[number * size : (number + 1) * size], translator.to_device(batch)


def _valid(tap: Tap, row: int) -> Tensor:
    """The tokens of a row that are no padding, [t, D] in float32."""
    tokens = tap.tensor[row] if tap.mask is None else tap.tensor[row][tap.mask[row]]
    return tokens.float()


def _spaced(tokens: Tensor, positions: int) -> Tensor:
    """At most `positions` tokens, evenly spaced, the first and last too."""
    if len(tokens) <= positions:
        return tokens.clone()
    places = torch.linspace(0, len(tokens) - 1, positions, device=tokens.device)
    return tokens[places.round().long()]
