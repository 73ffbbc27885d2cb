"""Runs the frozen encoder over a manifest: stored features and language biases (eq. 1)."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from slam_potsa.data.archives import read_member, split_reference
from slam_potsa.data.audio import HOP_LENGTH, encoder_frames, load_audio, log_mel
from slam_potsa.data.feature_store import FeatureStore, add_features
from slam_potsa.data.manifest import Utterance, manifest_hash, read_manifest
from slam_potsa.errors import InputError, each, refuse
from slam_potsa.files import alone
from slam_potsa.model.encoder import SpeechEncoder
from slam_potsa.model.language_bias import PADDED, BiasStatistics, LanguageBias

BATCH = 8  # utterances at once; on a CPU larger batches gain nothing


def encode(
    encoder: SpeechEncoder,
    utterances: Sequence[Utterance],
    base: Path,
    *,
    batch_size: int = BATCH,
    progress: bool = True,
    attend_padding: bool = False,
) -> Iterator[tuple[Utterance, Tensor]]:
    """Each utterance with its valid encoder frames [T, E], float32; longest first.

    The features do not depend on the order or the batch size beyond rounding.
    """
    # Sorted by length, so that a batch holds little padding and the largest fails first.
    ordered = sorted(utterances, key=lambda u: (-(u.duration or 0.0), u.key))
    device = next(encoder.parameters()).device
    bar = tqdm(total=len(ordered), desc="encoding", unit="utt", disable=not progress, leave=False)
    with bar, torch.inference_mode():
        for start in range(0, len(ordered), batch_size):
            batch = ordered[start : start + batch_size]
            sounds = [load_audio(u.audio, base, duration=u.duration) for u in batch]
            mels = [log_mel(sound, encoder.n_mels, encoder.window) for sound in sounds]
            heard = mels if attend_padding else sounds
            hop = HOP_LENGTH if attend_padding else 1
            frames = [encoder_frames(len(each) * hop) for each in heard]
            mel = torch.nn.utils.rnn.pad_sequence(mels, batch_first=True).to(device)
            width = (mel.shape[1] + 1) // 2
            mask = torch.arange(width, device=device) < torch.tensor(frames, device=device)[:, None]
            hidden = encoder(mel, mask).float().cpu()
            for utterance, row, length in zip(batch, hidden, frames, strict=True):
                yield utterance, row[:length]
            bar.update(len(batch))


def store_features(
    encoder: SpeechEncoder, manifests: Iterable[str | Path], folder: str | Path, **options
) -> FeatureStore:
    """Encode every utterance of `manifests` that `folder` does not hold yet.

    Raises InputError, before any is encoded, where a key is of two recordings.
    """
    spoken = {path: _spoken(path) for path in map(Path, manifests)}
    which = folder, encoder.fingerprint(), encoder.width
    with alone(folder, "is storing features"):
        store = add_features(*which, [])
        recordings = _recordings(store, spoken)
        for manifest, rows in spoken.items():
            missing = [u for u in rows if u.key not in store.keys]
            found = encode(encoder, missing, manifest.parent, **options)
            own = _checksummed(found, manifest.parent, recordings)
            store = add_features(*which, own, recordings)
    return store


def _checksummed(
    found: Iterable[tuple[Utterance, Tensor]], base: Path, recordings: dict[str, int]
) -> Iterator[tuple[str, np.ndarray]]:
    """Keys and features; before each its file's checksum is in `recordings`."""
    for utterance, features in found:
        if utterance.key not in recordings:
            file = _checksum(base, utterance.audio)
            recordings |= {} if file is None else {utterance.key: file}
        yield utterance.key, features.numpy()


def _recordings(store: FeatureStore, spoken: Mapping[Path, list[Utterance]]) -> dict[str, int]:
    """CRC-32 of the files by key, of the store and of what manifests have of it or share; keys are
    unique in each only."""
    known, problems = dict(store.recordings), []
    named = Counter(utterance.key for rows in spoken.values() for utterance in rows)
    for manifest, rows in spoken.items():
        rows = [u for u in rows if u.key in store.keys or named[u.key] > 1]
        found = each(partial(_checksum, manifest.parent), (u.audio for u in rows))
        there = {u.key: found[u.audio] for u in rows if found[u.audio] is not None}
        others = [key for key, file in there.items() if known.setdefault(key, file) != file]
        if others:
            problems.append(
                f"{manifest}: {len(others)} keys (such as {others[0]!r}) are those of other "
                f"recordings in {store.folder} or in a manifest before: give each recording a key "
                "of its own, or another folder; where it was replaced, delete the folder"
            )
    refuse(problems)
    return known


def _checksum(base: Path, reference: str) -> int | None:
    """None where it cannot be read, which matters, and is said, where it is to be encoded."""
    name, member = split_reference(reference)
    with suppress(InputError, OSError):
        path = base / name
        return zlib.crc32(read_member(path, member) if member else path.read_bytes())
    return None


def _spoken(manifest: Path) -> list[Utterance]:
    """The rows that are more than text."""
    return [utterance for utterance in read_manifest(manifest, needs=()) if utterance.audio]


def estimate_bias(
    manifests: Sequence[str | Path],
    encoder: SpeechEncoder | None = None,
    *,
    features: FeatureStore | None = None,
    languages: Iterable[str] | None = None,
    attend_padding: bool = False,
    **options,
) -> LanguageBias:
    """b_l of eq. 1 over the utterances of `manifests`, from stored features or the encoder.

    No transcript or translation is needed. `languages`: only these; None: all. `attend_padding`:
    the frames of the whole window are valid, as in a dataset of that option.
    """
    if attend_padding and features is not None:
        raise InputError("attend_padding needs recordings: a feature store holds no padding")
    statistics = BiasStatistics()
    wanted = None if languages is None else set(languages)
    for manifest in map(Path, manifests):
        utterances = [u for u in _spoken(manifest) if wanted is None or u.language in wanted]
        if features is not None:
            features.require(u.key for u in utterances)
            found = ((u, torch.from_numpy(features[u.key])) for u in utterances)
        else:
            options["attend_padding"] = attend_padding
            found = encode(encoder, utterances, manifest.parent, **options)
        for utterance, hidden in found:
            statistics.update(hidden, utterance.language)
    absent = sorted((wanted or set()) - statistics.counts.keys())
    if absent:
        raise InputError(
            f"languages {', '.join(absent)}: not spoken in {', '.join(map(str, manifests))}, which "
            f"have {', '.join(sorted(statistics.counts)) or 'none of those asked for'}"
        )
    fingerprint = features.fingerprint if features is not None else encoder.fingerprint()
    return LanguageBias(
        statistics.means(),
        statistics.counts,
        fingerprint=fingerprint + PADDED * attend_padding,
        manifest=manifest_hash(manifests),
    )
