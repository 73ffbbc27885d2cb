"""Everything an analysis depends on besides the model and the recordings."""

from __future__ import annotations

from dataclasses import dataclass

from slam_potsa.errors import InputError
from slam_potsa.objective.transport import TransportOptions


@dataclass(frozen=True)
class Settings:
    """POTSA (4.4, Fig. 3) gives none of these; all defaults are ours. Written with the results."""

    seed: int = 0  # of every draw: sentences, codebook, folds, t-SNE
    sentences: int | None = None  # analyse so many sentences of those in two languages; None: all
    detail_sentences: int = 100  # sentences whose tokens are kept, and that figures show
    tokens: int = 80  # kept of a recording; where a tap has more, evenly spaced ones
    codes: int = 64  # K of a codebook; with hundreds of tokens a code 1 − JSD is little biased
    codebooks: int = (
        5  # that 1 − JSD is the mean of: one alone moved it by 0.01 to 0.03 in the demo
    )
    shuffles: int = 20  # exchanges of languages a codebook, for the ceiling of 1 − JSD
    folds: int = 5  # of the language probe's cross-validation
    epsilon: float = TransportOptions.epsilon  # of the transport costs, times the mean cost
    perplexity: float = 30.0  # of t-SNE; a third of the points where there are fewer than 90

    def __post_init__(self) -> None:
        least = {"sentences": 2, "detail_sentences": 2, "tokens": 1, "codes": 2}
        least |= {"codebooks": 1, "shuffles": 1, "folds": 2}
        problems = [
            f"{name}: expected {low} or more, got {getattr(self, name)}"
            for name, low in least.items()
            if getattr(self, name) is not None and getattr(self, name) < low
        ]
        problems += [
            f"{name}: expected a number above 0, got {getattr(self, name)}"
            for name in ("epsilon", "perplexity")
            if not getattr(self, name) > 0
        ]
        if problems:
            raise InputError(problems)
