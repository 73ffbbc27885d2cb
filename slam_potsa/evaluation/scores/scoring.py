"""`score`: predictions in, a table of scores out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation.codes import transcribes
from slam_potsa.evaluation.guards import guard_signature, rates, watch
from slam_potsa.evaluation.scores.conventions import Convention
from slam_potsa.evaluation.scores.corpora import Corpus, corpora
from slam_potsa.evaluation.scores.error_rate import check_installed, error_rate
from slam_potsa.evaluation.scores.metrics import (
    corpus_score,
    metrics_for,
    more_metrics,
    sacrebleu_seed,
)
from slam_potsa.evaluation.scores.rows import Score, ScoreRow, ScoreTable

METRICS = ("bleu", "chrf")


def score(
    predictions: Sequence[Prediction],
    *,
    seen: Iterable[str] = (),
    zero_shot: Iterable[str] = (),
    bootstrap: int = 1000,
    seed: int = 12345,
    convention: Convention | None = None,
    comet: Callable[[Sequence[Prediction]], Sequence[float]] | None = None,
    guards: bool = True,
) -> ScoreTable:
    """Score each language and each group of languages.

    Args:
        predictions: every one with a reference.
        seen: spoken languages that the system was trained on; they form the group "seen".
        zero_shot: spoken languages that it never heard; they form the group "zero-shot".
        bootstrap: resamples for the intervals; 0 leaves the intervals out.
        seed: of the resampling; it is part of the signature. The default is sacrebleu's.
        convention: how text is compared; by default cased, raw text.
        comet: `slam_potsa.evaluation.comet.Comet`, which scores the rows that translate.
        guards: count outputs that are broken rather than bad (slam_potsa.evaluation.guards).

    Returns:
        A row a direction, then for each group that has sentences its pooled score and its mean.
        A group that mixes target languages has no pooled row: no one tokeniser fits it.

    Raises:
        InputError: no predictions, missing references, a language in both groups, or a tokeniser
            that is not installed.
    """
    convention = convention or Convention()
    found = corpora(predictions, seen, zero_shot)
    _check(found, convention)
    segments = _segments(predictions, comet)
    signature = getattr(comet, "signature", "")
    fired = dict(zip(map(id, predictions), watch(predictions), strict=True)) if guards else {}
    rows: dict[str, ScoreRow] = {}
    with sacrebleu_seed(seed):
        for corpus in found:
            if corpus.kind == "mean":
                row = _mean_row(corpus, [rows[name] for name in corpus.parts], convention)
            else:
                comet_score = _comet(corpus, segments, signature)
                row = _row(corpus, bootstrap, convention, comet_score, fired)
            rows[corpus.name] = row
    return ScoreTable(tuple(rows.values()), guard_signature() if guards else "")


def _check(found: Sequence[Corpus], convention: Convention) -> None:
    """Every tokeniser and package there is, before minutes of resampling."""
    for target in sorted({corpus.target_language for corpus in found}):
        metrics_for(target, convention)
        more_metrics(target, convention)
    if convention.error_rate:
        check_installed()


def _segments(
    predictions: Sequence[Prediction],
    comet: Callable[[Sequence[Prediction]], Sequence[float]] | None,
) -> dict[int, float]:
    """COMET of each translation by its id(), once for all the corpora that it is in."""
    items = [item for item in predictions if comet and not transcribes(item)]
    if comet is None or not items:
        return {}
    return dict(zip(map(id, items), comet(items), strict=True))


def _comet(corpus: Corpus, segments: Mapping[int, float], signature: str) -> dict[str, Score]:
    """COMET's system score, the mean over the segments, where all of them were scored."""
    values = [segments.get(id(item)) for item in corpus.items]
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return {}
    return {"COMET": Score(fmean(known), signature=signature)}


def _row(
    corpus: Corpus,
    bootstrap: int,
    convention: Convention,
    comet: Mapping[str, Score],
    fired: Mapping[int, frozenset[str]],
) -> ScoreRow:
    target, items = corpus.target_language, corpus.items
    metrics = metrics_for(target, convention)
    bleu, chrf = (corpus_score(metrics[name], items, bootstrap) for name in METRICS)
    more = {
        name: corpus_score(metric, items, bootstrap)
        for name, metric in more_metrics(target, convention).items()
    }
    errors = error_rate(items, convention.error_rate) if convention.error_rate else {}
    more = more | dict(comet) | errors
    guards = rates([fired[id(item)] for item in items]) if fired else {}
    facts = corpus.name, corpus.kind, corpus.group, len(items)
    return ScoreRow(*facts, bleu, chrf, more, guards, _chrf_name(convention))


def _mean_row(corpus: Corpus, parts: Sequence[ScoreRow], convention: Convention) -> ScoreRow:
    """The mean of each measure that all the languages have."""
    shared = [name for name in parts[0].more if all(name in row.more for row in parts)]
    bleu, chrf = (Score(fmean(getattr(row, name).value for row in parts)) for name in METRICS)
    more = {name: Score(fmean(row.more[name].value for row in parts)) for name in shared}
    facts = corpus.name, corpus.kind, corpus.group, len(corpus.items)
    return ScoreRow(*facts, bleu, chrf, more, chrf_name=_chrf_name(convention))


def _chrf_name(convention: Convention) -> str:
    return "chrF++" if convention.chrf_word_order == 2 else "chrF"
