"""Is a free matching of tokens ever better than position by position?

    python benchmarks/matching.py --json benchmarks/results/matching.json

Needs what `make demo` has made.

A sentence searches itself among the English recordings of all test sentences. The cost of two
recordings is that of their entropic transport plan (free), or the mean squared distance of token i
and token i; where they have not the same number of tokens, the English ones are first interpolated
at the same share of their time. R@1 of both, their difference with a 95 % interval (bootstrap over
sentences, all languages of one together), and the share of the plan's mass that lies within a
twentieth of the diagonal. No training: what could pull, not what it would teach.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from slam_potsa.engine.decode import Translator, load_run
from slam_potsa.engine.launch import quieten
from slam_potsa.evaluation.activations import record, rows_of
from slam_potsa.files import atomic_write
from slam_potsa.objective.transport import transport
from slam_potsa.text import table

PIVOT = "en"
WINDOW = 17  # frames, AI-STA's
EPSILON = 0.02  # times the mean cost; below it plans hardly change


def windows(frames: Tensor, number: Tensor) -> Tensor:
    """Means of frames [T, D] over windows; `number` [T]: of each frame's window."""
    kept, piece = number.unique(return_inverse=True)
    sums = torch.zeros(len(kept), frames.shape[1]).index_add_(0, piece, frames)
    return sums / piece.bincount()[:, None]


def even(frames: Tensor) -> Tensor:
    return windows(frames, torch.arange(len(frames)) // WINDOW)


def fired(frames: Tensor) -> Tensor:
    """Integrate and fire: a piece ends where the frames have changed by as much as in any other.

    As CIF, whose weights are learned; here a frame weighs its distance to the one before.
    """
    change = F.pad((frames[1:] - frames[:-1]).norm(dim=1), (1, 0))
    pieces = max(1, round(len(frames) / WINDOW))
    return windows(frames, (change.cumsum(0) / change.sum() * pieces).clamp(max=pieces - 1).long())


def centred(tokens: list[Tensor]) -> list[Tensor]:
    """Query i without its mean over all recordings: what is its own goes, what was said stays."""
    whole = torch.stack(tokens)
    return list(whole - whole.mean(0))


# name -> the tap, and what is made of the tokens of all recordings
KINDS: dict[str, tuple[str, Callable[[list[Tensor]], list[Tensor]]]] = {
    "queries": ("projector", list),
    "queries, centred": ("projector", centred),
    "frames": ("compensated", list),
    f"windows of {WINDOW} frames": ("compensated", lambda rows: [even(row) for row in rows]),
    "windows of equal change": ("compensated", lambda rows: [fired(row) for row in rows]),
}


def costs(x: Tensor, others: list[Tensor], own: int) -> tuple[Tensor, Tensor, float]:
    """Of x [N, D] and each of P others: transport's [P] and position by position's [P]; and the
    share of the plan of x and `own` that is near the diagonal."""
    y, n = pad_sequence(others, batch_first=True), len(x)
    mask = torch.arange(y.shape[1]) < torch.tensor([len(row) for row in others])[:, None]
    repeated = x.expand(len(others), -1, -1)
    ones = torch.ones(len(others), n, dtype=torch.bool)
    found = transport(repeated, y, ones, mask, epsilon=EPSILON)
    resized = [F.interpolate(row.T[None], n, mode="linear")[0].T for row in others]
    aligned = torch.stack([(x - row).square().sum(1).mean() for row in resized])
    plan = found.plan[own, :, : len(others[own])]
    places = [(torch.arange(size) + 0.5) / size for size in plan.shape]
    near = (places[0][:, None] - places[1][None]).abs() <= 0.05
    return found.cost, aligned, float(plan[near].sum())


@torch.inference_mode()
def compare(tokens: list[Tensor], sentences: list[str], languages: list[str]) -> dict:
    """R@1 into PIVOT of every other language, by both costs."""
    pivot = [i for i, code in enumerate(languages) if code == PIVOT]
    place = {sentences[i]: number for number, i in enumerate(pivot)}
    queries = [i for i, c in enumerate(languages) if c != PIVOT and sentences[i] in place]
    hits, diagonal = [], []
    for i in tqdm(queries, leave=False):
        own = place[sentences[i]]
        free, aligned, near = costs(tokens[i], [tokens[j] for j in pivot], own)
        hits.append((int(free.argmin()) == own, int(aligned.argmin()) == own))
        diagonal.append(near)
    by_sentence = np.zeros((len(place), 3))
    for i, (free, aligned) in zip(queries, hits, strict=True):
        by_sentence[place[sentences[i]]] += (free, aligned, 1)
    draws = np.random.default_rng(0).integers(len(place), size=(2000, len(place)))
    sums = by_sentence[draws].sum(1)
    low, high = np.quantile((sums[:, 0] - sums[:, 1]) / sums[:, 2], (0.025, 0.975))
    total = by_sentence.sum(0)
    return {
        "queries": int(total[2]),
        "candidates": len(pivot),
        "free": total[0] / total[2],
        "position": total[1] / total[2],
        "difference": [(total[0] - total[1]) / total[2], low, high],
        "diagonal": float(np.mean(diagonal)),
    }


def text(found: dict[str, dict]) -> str:
    head = ("tokens", "R@1 free", "by position", "difference", "mass near the diagonal")
    lines = [
        (
            kind,
            f"{row['free']:.3f}",
            f"{row['position']:.3f}",
            "{:+.3f} ({:+.3f} to {:+.3f})".format(*row["difference"]),
            f"{row['diagonal']:.2f}",
        )
        for kind, row in found.items()
    ]
    return table(head, lines, left=1)


def main() -> None:
    args = _arguments()
    quieten()
    loaded = load_run(args.run)
    loaded.train_config.val_batch_size = 16
    rows = rows_of(args.manifest)
    taps = sorted({tap for tap, _ in KINDS.values()})
    taken = record(Translator(loaded), rows, taps, keep=range(len(rows)), positions=1500)
    found = {}
    for kind, (tap, made) in KINDS.items():
        tokens = made([taken[tap].tokens[i] for i in range(len(rows))])
        said = [row.sentence_id for row in rows], [row.language for row in rows]
        found[kind] = compare(tokens, *said)
        print(kind, found[kind], flush=True)
    atomic_write(args.json, json.dumps(found, indent=1) + "\n")
    atomic_write(args.json.with_suffix(".txt"), text(found) + "\n")
    print(text(found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("outputs/demo/baseline"))
    parser.add_argument("--manifest", type=Path, default=Path("outputs/demo/data/test.jsonl"))
    parser.add_argument("--json", type=Path, default=Path("outputs/matching.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
