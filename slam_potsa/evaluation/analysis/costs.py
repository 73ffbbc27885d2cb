"""Transport costs of recordings that mean the same against recordings that do not."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from slam_potsa.evaluation.retrieval import means_by_hearing
from slam_potsa.objective.transport import TransportOptions, transport

BATCH = 32  # pairs solved at once


@dataclass(frozen=True)
class Cost:
    """Mean ⟨Γ, C⟩ of recordings that mean the same, and of the same recordings mixed up."""

    matched: float
    mismatched: float

    @property
    def ratio(self) -> float:
        """matched / mismatched: below 1 where meaning shows; 1 where all costs are 0 (collapse)."""
        return self.matched / self.mismatched if self.mismatched > 0 else 1.0


@dataclass(frozen=True)
class TransportCosts:
    """Attributes:
    pairs: (a, b) in alphabetical order -> Cost.
    means: of both costs over pairs, grouped as those of `Retrieval`.
    compared: how many pairs of recordings `matched` is the mean of, in all.
    """

    pairs: dict[tuple[str, str], Cost]
    means: dict[str, Cost]
    compared: int


def transport_costs(
    tokens: Sequence[Tensor],
    sentences: Sequence[str],
    languages: Sequence[str],
    *,
    heard: Iterable[str] | None = None,
    epsilon: float = TransportOptions.epsilon,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> TransportCosts:
    """⟨Γ, C⟩ of eq. 3 between parallel recordings, and between the same ones mixed up.

    C_ij = ‖x_i − y_j‖², divided by nothing, so the unit is that of the tap squared. For a pair of
    languages, sentence k's recording in a is set against sentence k's in b (matched), and against
    sentence k + 1's (mismatched): both means are over the same recordings. A gap between the two
    opens without alignment too: hold it against a run without. Both falling together is a space
    that shrinks, and the ratio stays.

    Args:
        tokens: [t_i, D] of n recordings. Of several recordings of a sentence the first counts;
            language pairs that share fewer than two sentences are left out.
        epsilon: of the plan Γ, times the mean cost of each pair of recordings.
        seed: of the order of sentences, which says what is mixed with what.
    """
    first: dict[tuple[str, str], int] = {}
    for row, place in enumerate(zip(languages, sentences, strict=True)):
        first.setdefault(place, row)
    rows: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for a, b in combinations(sorted(set(languages)), 2):
        shared = sorted(s for language, s in first if language == a and (b, s) in first)
        random.Random(f"costs:{seed}").shuffle(shared)
        if len(shared) > 1:
            rows[a, b] = [(first[a, s], first[b, s]) for s in shared]
    matched = [pair for pairs in rows.values() for pair in pairs]
    mismatched = [
        (x, y)
        for pairs in rows.values()
        for (x, _), (_, y) in zip(pairs, pairs[1:] + pairs[:1], strict=True)
    ]
    values = _costs([*matched, *mismatched], tokens, epsilon, torch.device(device))
    return _summed(rows, values[: len(matched)], values[len(matched) :], heard)


def _costs(
    pairs: Sequence[tuple[int, int]], tokens: Sequence[Tensor], epsilon: float, device: torch.device
) -> list[float]:
    costs: list[float] = []
    for start in range(0, len(pairs), BATCH):
        chosen = pairs[start : start + BATCH]
        (x, x_mask), (y, y_mask) = (
            _padded([tokens[row] for row in side], device) for side in zip(*chosen, strict=True)
        )
        found = transport(x, y, x_mask, y_mask, epsilon=epsilon, cost_scale="none")
        costs += found.cost.tolist()
    return costs


def _padded(rows: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows], device=device)
    padded = pad_sequence(list(rows), batch_first=True).to(device)
    return padded, torch.arange(padded.shape[1], device=device) < lengths[:, None]


def _summed(
    rows: dict[tuple[str, str], list[tuple[int, int]]],
    matched: list[float],
    mismatched: list[float],
    heard: Iterable[str] | None,
) -> TransportCosts:
    pairs, start = {}, 0
    for pair, members in rows.items():
        end = start + len(members)
        sums = (sum(costs[start:end]) / len(members) for costs in (matched, mismatched))
        pairs[pair], start = Cost(*sums), end
    heard = None if heard is None else set(heard)
    sides = [
        means_by_hearing({pair: getattr(cost, side) for pair, cost in pairs.items()}, heard)
        for side in ("matched", "mismatched")
    ]
    means = {group: Cost(sides[0][group], sides[1][group]) for group in sides[0]}
    return TransportCosts(pairs, means, start)
