r"""The training objective: cross-entropy plus alignment terms over named activations (POTSA eq. 4).

    L = w · L_CE + Σ_terms λ · mean_{k ∈ S} mean_{pairs} distance(first^k, second^k)

(or the sum over pairs, as the authors' working tree has it).

A *tap* is a named activation of one forward pass; a *term* compares two taps. POTSA: w = 1,
λ = 10, both taps ``qformer.{layer}``, rows in pairs, S the layers scheduled now. AI-STA: w = 0.99,
λ = 0.01, speech positions against the transcript's of the same row at fixed LLM layers, text
detached.

Shapes: B rows of a batch, P pairs, N tokens, D width. Source: POTSA (Li et al.), eq. 3–4; AI-STA.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from slam_potsa.objective.checks import unexpected
from slam_potsa.objective.distances import Distance, measured
from slam_potsa.objective.variants import (
    Sides,
    Variant,
    live_rows,
    mean_over_rows,
    plain,
    rolled,
    select,
)


class Tap(NamedTuple):
    """A named activation of one forward pass."""

    tensor: Tensor  # [B, N, D]
    mask: Tensor | None = None  # [B, N] bool, True = valid; None: all


class AlignmentLoss(NamedTuple):
    """What one step is trained on."""

    total: Tensor  # [] differentiable
    terms: dict[str, Tensor]  # name → [] unweighted mean over layers and pairs, detached; a term
    # that had nothing to compare (no pairs, no layers) is absent, for 0 would say "aligned"


@dataclass(frozen=True)
class AlignmentTerm:
    """One thing to align with another.

    ``first`` and ``second`` name taps; ``{layer}`` in a name stands for each layer in turn, and a
    term without it is compared once a step, whatever is scheduled.
    """

    name: str  # in logs; distinct within an objective
    first: str  # tap, such as "qformer.{layer}"
    second: str  # tap; may be the same one, where rows are pairs
    distance: Distance  # (x, y, x_mask, y_mask) -> [P]
    weight: float  # λ; 10 in POTSA, 0.01 in AI-STA
    rows: str = "pairs"  # "pairs": row i with its partner's row; "same": row i with itself
    detach: str = "none"  # "second": no gradient into the second side (frozen anchor, text)
    layers: tuple[int, ...] | None = None  # fixed layers; None: those scheduled at the step
    tokens: str = "raw"  # what is compared; "unit": of length 1, as in the authors' tree
    scale: float = 1.0  # by which they are divided
    warmup_steps: int = 0  # over which λ grows: at step t (from 0) it is λ · min(1, (t + 1) / this)
    variant: Variant = plain  # how distances become a loss, see `variants`
    reduction: str = "mean"  # over the rows of a micro-step: "mean" (eq. 4) or "sum"

    def __post_init__(self) -> None:
        fixed_or_layered = self.layers is None or self.is_layered
        expected = {
            "rows": ("'pairs' or 'same'", self.rows in ("pairs", "same")),
            "detach": ("'none' or 'second'", self.detach in ("none", "second")),
            "tokens": ("'raw' or 'unit'", self.tokens in ("raw", "unit")),
            "scale": ("a number > 0", 0 < self.scale < math.inf),
            "reduction": ("'mean' or 'sum'", self.reduction in ("mean", "sum")),
            "distance": ("a callable", callable(self.distance)),
            "weight": ("a number >= 0", 0 <= self.weight < math.inf),
            "second": ("another tap than first", self.rows != "same" or self.first != self.second),
            "layers": ("None, as neither tap name has {layer} in it", fixed_or_layered),
        }
        if problems := unexpected(self, expected):
            raise ValueError(f"term {self.name!r}: " + "; ".join(problems))

    def weight_at(self, step: int | None) -> float:
        """λ at an optimizer step; None: after its warm-up."""
        if step is None or step >= self.warmup_steps:
            return self.weight
        return self.weight * (step + 1) / self.warmup_steps

    @property
    def is_layered(self) -> bool:
        return "{layer}" in self.first + self.second

    def tap_pairs(self, scheduled: Sequence[int]) -> list[tuple[str, str]]:
        """The names to compare, one entry a layer."""
        if not self.is_layered:
            return [(self.first, self.second)]
        layers = scheduled if self.layers is None else self.layers
        return [
            (self.first.replace("{layer}", str(k)), self.second.replace("{layer}", str(k)))
            for k in layers
        ]


class AlignmentObjective:
    """Cross-entropy plus a list of terms (eq. 4).

    Args:
        terms: any number; none is the baseline.
        cross_entropy_weight: w; 1 in POTSA, 0.99 in AI-STA.

    Raises:
        ValueError: two terms of one name, or a negative weight.

    Examples:
        >>> from slam_potsa.objective.distances import build_distance
        >>> term = AlignmentTerm("ot", "qformer.{layer}", "qformer.{layer}",
        ...                      build_distance("ot"), weight=10.0)
        >>> objective = AlignmentObjective([term])
        >>> objective.tap_names([2])
        {'qformer.2'}
        >>> taps = {"qformer.2": Tap(torch.randn(2, 80, 16))}
        >>> loss = objective(torch.tensor(1.0), taps, torch.tensor([[0, 1]]), [2])
    """

    def __init__(self, terms: Sequence[AlignmentTerm] = (), cross_entropy_weight: float = 1.0):
        names = [term.name for term in terms]
        if len(set(names)) != len(names):
            raise ValueError(f"terms: expected distinct names, got {names}")
        if not 0 <= cross_entropy_weight < math.inf:
            raise ValueError(
                f"cross_entropy_weight: expected a number >= 0, got {cross_entropy_weight!r}"
            )
        self.terms = tuple(terms)
        self.cross_entropy_weight = cross_entropy_weight

    def tap_names(self, layers: Sequence[int], paired: bool = True) -> set[str]:
        """Which activations have to be recorded when these layers are scheduled.

        Args:
            paired: whether the batch has pairs; without, only terms over single rows compare.
        """
        terms = [term for term in self.terms if paired or term.rows == "same"]
        return {name for term in terms for names in term.tap_pairs(layers) for name in names}

    def __call__(
        self,
        cross_entropy: Tensor,
        taps: Mapping[str, Tap],
        pairs: Tensor,
        layers: Sequence[int],
        sentence_ids: Tensor | None = None,
        step: int | None = None,
    ) -> AlignmentLoss:
        """The loss of one step.

        Args:
            cross_entropy: [] mean over the label positions.
            taps: at least those of :meth:`tap_names` (without pairs, none for paired terms).
            pairs: [P, 2] int64 row indices, the anchor second where there is one. P may be 0:
                the paired terms then add nothing.
            layers: scheduled now, numbered from 1.
            sentence_ids: [B] meaning of each row, for variants that look at mismatched rows;
                without it every pair has a meaning of its own.
            step: the optimizer step from 0, of terms that warm up; None: they have.

        Raises:
            ValueError: a tap is missing, or pairs is not [P, 2] of integers.
        """
        self._check(taps, pairs, layers)
        total = self.cross_entropy_weight * cross_entropy
        means = {}
        for term in self.terms:
            compared = list(_comparisons(term, taps, pairs, layers, sentence_ids))
            values = [term.variant(term.distance, *each) for each in compared]
            values = [value for value in values if value is not None]
            if not values:
                continue
            mean = torch.stack(values).mean()
            rows = live_rows(compared[0][0]).sum() if term.reduction == "sum" else 1
            total = total + term.weight_at(step) * rows * mean
            means[term.name] = mean.detach()
        return AlignmentLoss(total, means)

    @torch.no_grad()
    def diagnose(
        self,
        taps: Mapping[str, Tap],
        pairs: Tensor,
        layers: Sequence[int],
        sentence_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """How far apart rows of one meaning are, and rows of different meanings.

        If both fall together, the space shrinks and nothing is aligned. Optimal transport reports
        ⟨Γ, C⟩, other distances their value.

        Args:
            sentence_ids: [B] meaning of each row. Mismatched rows (the second side rolled by one)
                that happen to have one meaning are left out; without it only equal rows are.

        Returns:
            "<term>/matched" and, from two comparable rows on, "<term>/mismatched"; of transport the
            largest "<term>/marginal_error", 0 within the tolerance. Each is [].
        """
        self._check(taps, pairs, layers)
        report: dict[str, Tensor] = {}
        for term in self.terms:
            matched, mismatched, errors = [], [], []
            for sides, first, second in _comparisons(term, taps, pairs, layers, sentence_ids):
                value, error = measured(term.distance, *sides)
                matched.append(mean_over_rows(value, sides))
                errors += error
                differs = first != second.roll(1, 0)
                if bool(differs.any()):
                    others = select(rolled(sides), differs)
                    value, error = measured(term.distance, *others)
                    mismatched.append(mean_over_rows(value, others))
                    errors += error
            if matched:
                report[f"{term.name}/matched"] = torch.stack(matched).mean()
            if mismatched:
                report[f"{term.name}/mismatched"] = torch.stack(mismatched).mean()
            if errors:
                report[f"{term.name}/marginal_error"] = torch.stack(errors).amax()
        return report

    def _check(self, taps: Mapping[str, Tap], pairs: Tensor, layers: Sequence[int]) -> None:
        if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.is_floating_point():
            raise ValueError(
                f"pairs: expected integer row indices [P, 2], got {pairs.dtype} "
                f"{list(pairs.shape)}; use torch.empty(0, 2, dtype=torch.long) for none"
            )
        missing = sorted(self.tap_names(layers, paired=pairs.shape[0] > 0) - set(taps))
        if missing:
            raise ValueError(
                f"taps: expected {', '.join(missing)} too, got "
                f"{', '.join(sorted(taps)) or 'none'}; "
                "record what tap_names(layers) lists, or correct the term's tap names"
            )


def _comparisons(
    term: AlignmentTerm,
    taps: Mapping[str, Tap],
    pairs: Tensor,
    layers: Sequence[int],
    sentence_ids: Tensor | None,
) -> Iterator[tuple[Sides, Tensor, Tensor]]:
    """The two sides of a term, and what their rows mean, [P] each; one entry a layer.

    Nothing where there is no row to compare. Without sentence ids, each second row means its own.
    """
    paired = term.rows == "pairs"
    if paired and pairs.shape[0] == 0:
        return
    for first_name, second_name in term.tap_pairs(layers):
        x, y = taps[first_name], taps[second_name]
        if paired:
            first, second = pairs.unbind(1)
            x, y = _rows(x, first), _rows(y, second)
        else:
            first = second = torch.arange(len(x.tensor), device=x.tensor.device)
        if term.tokens == "unit":
            x, y = _on_unit_tokens(x), _on_unit_tokens(y)
        if term.scale != 1.0:
            x, y = (tap._replace(tensor=tap.tensor / term.scale) for tap in (x, y))
        meanings = second, second
        if sentence_ids is not None:
            ids = sentence_ids.to(second.device)
            meanings = ids[first], ids[second]
        anchor = y.tensor.detach() if term.detach == "second" else y.tensor
        yield Sides(x.tensor, anchor, x.mask, y.mask), *meanings


def _rows(tap: Tap, rows: Tensor) -> Tap:
    rows = rows.to(tap.tensor.device)
    mask = None if tap.mask is None else tap.mask.index_select(0, rows)
    return Tap(tap.tensor.index_select(0, rows), mask)


def _on_unit_tokens(tap: Tap) -> Tap:
    """Each token over its length, in float32 at least: a bfloat16 length is off by 0.4 %."""
    tokens = tap.tensor.to(torch.promote_types(tap.tensor.dtype, torch.float32))
    if tap.mask is not None:  # NaN in padding has a gradient of NaN
        tokens = torch.where(tap.mask[:, :, None], tokens, 0.0)
    return Tap(F.normalize(tokens, dim=2), tap.mask)
