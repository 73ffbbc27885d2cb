"""All measures of one tap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from slam_potsa.evaluation.analysis.costs import Cost, TransportCosts, transport_costs
from slam_potsa.evaluation.analysis.overlap import Overlap, code_overlap
from slam_potsa.evaluation.analysis.probe import Probe, language_probe
from slam_potsa.evaluation.analysis.rank import effective_rank, query_share
from slam_potsa.evaluation.analysis.recordings import Recordings
from slam_potsa.evaluation.analysis.settings import Settings
from slam_potsa.evaluation.projection import language_share
from slam_potsa.evaluation.retrieval import PairRecall, Retrieval, recall_at_1
from slam_potsa.evaluation.vectors import Recorded

GROUPS = ("all", "among heard", "with an unheard")


@dataclass(frozen=True)
class Ranks:
    """Effective ranks, and the most they can be: min(n − 1, D) of n vectors of width D."""

    pooled: float
    pooled_limit: int
    tokens: float
    tokens_limit: int


@dataclass(frozen=True)
class TapMeasures:
    """What was found at one tap.

    `language_share` is η² of pooled vectors (`projection.language_share`); `query_share` the share
    of token variance that lies between queries, None for encoder frames.
    """

    retrieval: Retrieval
    overlap: Overlap
    probe: Probe
    transport: TransportCosts
    ranks: Ranks
    language_share: float
    query_share: float | None

    def headline(self) -> dict[str, float]:
        """One number a measure and group of language pairs; "R@1, all" and so on."""
        found = {}
        for group in GROUPS:
            if group in self.retrieval.means:
                found[f"R@1, {group}"] = self.retrieval.means[group]
        for group in GROUPS:
            if group in self.overlap.means:
                found[f"1-JSD, {group}"] = self.overlap.means[group]
        found["1-JSD, ceiling"] = self.overlap.ceiling
        if self.overlap.relative is not None:
            found["1-JSD / ceiling, all"] = self.overlap.relative
        found["1-JSD, spread"] = self.overlap.spread
        found["language probe"] = self.probe.accuracy
        for group in GROUPS:
            if group in self.transport.means:
                cost = self.transport.means[group]
                found[f"OT matched, {group}"] = cost.matched
                found[f"OT mismatched, {group}"] = cost.mismatched
                found[f"OT ratio, {group}"] = cost.ratio
        found["effective rank, pooled"] = self.ranks.pooled
        found["effective rank, tokens"] = self.ranks.tokens
        found["language share"] = self.language_share
        if self.query_share is not None:
            found["query share"] = self.query_share
        return found

    def as_dict(self) -> dict[str, Any]:
        """For JSON; ordered pairs are written "fr→it", the others "fr–it"."""
        transport = asdict(self.transport)
        transport["pairs"] = {_name(p): _cost(c) for p, c in self.transport.pairs.items()}
        transport["means"] = {group: _cost(c) for group, c in self.transport.means.items()}
        overlap = asdict(self.overlap)
        overlap["pairs"] = {_name(p): value for p, value in self.overlap.pairs.items()}
        overlap["ceilings"] = {_name(p): value for p, value in self.overlap.ceilings.items()}
        return {
            "retrieval": self.retrieval.as_dict(),
            "overlap": overlap,
            "probe": asdict(self.probe),
            "transport": transport,
            "ranks": asdict(self.ranks),
            "language_share": self.language_share,
            "query_share": self.query_share,
        }

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> TapMeasures:
        """The inverse of `as_dict`."""
        recall, overlap, transport = found["retrieval"], found["overlap"], found["transport"]
        pairs = {_pair(name, "→"): PairRecall(**row) for name, row in recall["pairs"].items()}
        overlaps = {
            key: {_pair(name): value for name, value in overlap.get(key, {}).items()}
            for key in ("pairs", "ceilings")
        }
        costs = {_pair(name): _uncost(row) for name, row in transport["pairs"].items()}
        means = {group: _uncost(row) for group, row in transport["means"].items()}
        return cls(
            Retrieval(pairs, recall["means"], recall["centered"]),
            Overlap(**overlap | overlaps),
            Probe(**found["probe"]),
            TransportCosts(costs, means, transport["compared"]),
            Ranks(**found["ranks"]),
            found["language_share"],
            found["query_share"],
        )


def measure(
    tap: str,
    recorded: Recorded,
    recordings: Recordings,
    settings: Settings,
    heard: Iterable[str] | None,
    device: Any = "cpu",
) -> TapMeasures:
    """All measures of one tap; `recorded.tokens` holds the rows `recordings.detail`."""
    heard = None if heard is None else tuple(heard)
    sentences, languages = recordings.sentences, recordings.languages
    tokens = [recorded.tokens[row] for row in recordings.detail]
    detail = (
        [sentences[row] for row in recordings.detail],
        [languages[row] for row in recordings.detail],
    )
    queries = tap == "projector" or tap.startswith("qformer.")
    spread = without_queries(tokens) if queries else tokens
    return TapMeasures(
        recall_at_1(recorded.pooled, sentences, languages, heard=heard),
        code_overlap(
            spread,
            *detail,
            heard=heard,
            codes=settings.codes,
            codebooks=settings.codebooks,
            shuffles=settings.shuffles,
            seed=settings.seed,
        ),
        language_probe(
            recorded.pooled, sentences, languages, folds=settings.folds, seed=settings.seed
        ),
        transport_costs(
            tokens,
            *detail,
            heard=heard,
            epsilon=settings.epsilon,
            seed=settings.seed,
            device=device,
        ),
        _ranks(recorded, spread),
        language_share(recorded.pooled, languages),
        _query_share(tokens) if queries else None,
    )


def without_queries(tokens: list[Any]) -> list[Any]:
    """Tokens [N, D] of each recording, less each query's mean over all recordings.

    A Q-Former's token i comes from query i, and most of its variance says only which query that is
    (63 to 98 % in our demo): histograms of codes would be histograms of queries, equal in all
    languages whatever was said.
    """
    import torch

    mean = torch.stack(tokens).mean(0)
    return [row - mean for row in tokens]


def _ranks(recorded: Recorded, spread: list[Any]) -> Ranks:
    import torch

    vectors, tokens = recorded.pooled, torch.cat(spread)
    return Ranks(
        effective_rank(vectors),
        min(len(vectors) - 1, vectors.shape[1]),
        effective_rank(tokens),
        min(len(tokens) - 1, tokens.shape[1]),
    )


def _query_share(tokens: list[Any]) -> float:
    import torch

    return query_share(torch.stack(tokens))


def _name(pair: tuple[str, str]) -> str:
    return f"{pair[0]}–{pair[1]}"


def _pair(name: str, between: str = "–") -> tuple[str, str]:
    first, second = name.split(between)
    return first, second


def _cost(cost: Cost) -> dict[str, float]:
    return {"matched": cost.matched, "mismatched": cost.mismatched, "ratio": cost.ratio}


def _uncost(row: dict[str, float]) -> Cost:
    return Cost(**{field.name: row[field.name] for field in fields(Cost)})
