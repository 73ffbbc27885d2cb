"""Translation scores: sacreBLEU's BLEU and chrF with bootstrap intervals and signatures.

Nothing is computed here that sacrebleu, jiwer or COMET compute: this module chooses the tokeniser,
groups the sentences, and keeps the signature beside every number. The scores equal the command
line's, `sacrebleu REF -i PRED -m bleu chrf --confidence`, on the same sentences;
`slam_potsa.evaluation.dump` prints that command for each of them.

A group of languages ("seen", "zero-shot", "all") has two scores that differ, and both are given:

* **pooled**: all sentences of the group are one corpus, so an interval exists. It takes recordings
  for independent; where a sentence recurs in several languages it is narrower than it should be;
* **mean of languages**: the unweighted mean of the languages' scores, which is what the papers
  average (POTSA, Tables 1 to 3). sacrebleu has no interval for it, so it has none here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import refuse
from slam_potsa.evaluation.corpus_score import Score, corpus_score, metrics_for
from slam_potsa.evaluation.error_rate import check_installed, error_rate
from slam_potsa.evaluation.guards import guard_signature, rates, watch
from slam_potsa.evaluation.presets import Convention, transcribes
from slam_potsa.text import some, table


@dataclass(frozen=True)
class Corpus:
    """Sentences with one score.

    Attributes:
        name: "fr" (or "fr→zh" with several target languages), "seen, pooled", "all, mean of
            languages".
        kind: "language", "pooled" or "mean".
        group: "seen", "zero-shot" or "all"; for a language the group it is in, or "".
        items: its predictions.
        parts: of a mean, the names of the languages that it averages.
    """

    name: str
    kind: str
    group: str
    items: tuple[Prediction, ...]
    parts: tuple[str, ...] = ()

    @property
    def target_language(self) -> str:
        return self.items[0].target_language


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one corpus.

    Attributes:
        name, kind, group: as of its `Corpus`.
        sentences: how many predictions it is computed from.
        scores: every measure by the name of its column: "BLEU", "chrF" (or "chrF++"), then those
            that it has of the convention's further BLEUs, "COMET", "WER" and "CER".
        guards: guard -> share of its sentences that it fired on, 0 to 1; empty for a mean.
    """

    name: str
    kind: str
    group: str
    sentences: int
    scores: Mapping[str, Score]
    guards: Mapping[str, float] = field(default_factory=dict)

    @property
    def bleu(self) -> Score:
        return self.scores["BLEU"]

    @property
    def chrf(self) -> Score:
        """chrF or chrF++, whichever the convention has."""
        return self.scores["chrF++" if "chrF++" in self.scores else "chrF"]


@dataclass(frozen=True)
class ScoreTable:
    """Languages first, then the groups.

    `guard_signature` says by which rules the rows' guards fired; "" where none were run.
    """

    rows: tuple[ScoreRow, ...]
    guard_signature: str = ""

    def row(self, name: str) -> ScoreRow:
        """The row of this name; KeyError names the rows there are."""
        by_name = {row.name: row for row in self.rows}
        if name not in by_name:
            raise KeyError(f"no row {name!r}; there are {', '.join(by_name)}")
        return by_name[name]

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row.scores))

    @property
    def signatures(self) -> list[str]:
        """Each signature once, those of BLEU first."""
        found = [
            f"{name}|{row.scores[name].signature}"
            for name in self.columns
            for row in self.rows
            if name in row.scores and row.scores[name].signature
        ]
        return list(dict.fromkeys(found))

    def as_dict(self) -> dict[str, Any]:
        """For JSON; intervals are sacrebleu's, not cut."""
        return asdict(self)

    def text(self) -> str:
        """Aligned plain text: the scores, the rates of the guards, and the signatures."""
        guards = ["", self._guards_text(), self.guard_signature] if self.guard_signature else []
        return "\n".join([self._scores_text(), *guards, "", *self.signatures])

    def _scores_text(self) -> str:
        with_interval = {"BLEU", "chrF", "chrF++"} | {
            name for row in self.rows for name, found in row.scores.items() if found.interval_text()
        }
        head, body = ["", "sentences"], [[row.name, row.sentences] for row in self.rows]
        for name in self.columns:
            head += [name, "95 % interval"] if name in with_interval else [name]
            for row, cells in zip(self.rows, body, strict=True):
                found = row.scores.get(name)
                cells.append(found and f"{found.value:.1f}")
                cells += [found and found.interval_text()] if name in with_interval else []
        return table(head, body)

    def _guards_text(self) -> str:
        """The share of sentences, in per cent, that each guard fired on."""
        rows = [row for row in self.rows if row.guards]
        body = [
            [row.name, *(f"{100 * share:.1f}" for share in row.guards.values())] for row in rows
        ]
        return table(["guard fired, %", *rows[0].guards], body)


def score(
    predictions: Sequence[Prediction],
    *,
    seen: Iterable[str] = (),
    zero_shot: Iterable[str] = (),
    bootstrap: int = 1000,
    convention: Convention | None = None,
    comet: Callable[[Sequence[Prediction]], Sequence[float]] | None = None,
    guards: bool = True,
) -> ScoreTable:
    """Score each language and each group of languages.

    Args:
        predictions: every one with a reference.
        seen: spoken languages that the system was trained on; they form the group "seen".
        zero_shot: spoken languages that it never heard; they form the group "zero-shot".
        bootstrap: resamples for the intervals, by sacrebleu's seed (12345, or the environment's
            SACREBLEU_SEED; it is part of the signature); 0 leaves the intervals out.
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
    for target in sorted({corpus.target_language for corpus in found}):
        metrics_for(target, convention)  # every tokeniser, before minutes of resampling
    if convention.error_rate:
        check_installed()
    comet_scores = _comet_scores(predictions, comet)
    fired = dict(zip(map(id, predictions), watch(predictions), strict=True)) if guards else {}
    rows: dict[str, ScoreRow] = {}
    for corpus in found:
        own_rates: dict[str, float] = {}
        if corpus.kind == "mean":
            scores = _means([rows[name].scores for name in corpus.parts])
        else:
            scores = _scores(corpus, bootstrap, convention)
            scores |= _mean_of_sentences(corpus, comet_scores, getattr(comet, "signature", ""))
            scores |= error_rate(corpus.items, convention.error_rate)
            own_rates = rates([fired[id(item)] for item in corpus.items]) if fired else {}
        facts = corpus.name, corpus.kind, corpus.group, len(corpus.items)
        rows[corpus.name] = ScoreRow(*facts, scores, own_rates)
    return ScoreTable(tuple(rows.values()), guard_signature() if guards else "")


def _comet_scores(
    predictions: Sequence[Prediction],
    comet: Callable[[Sequence[Prediction]], Sequence[float]] | None,
) -> dict[int, float]:
    """COMET of each translation by its id(), once for all the corpora that it is in."""
    items = [item for item in predictions if comet and not transcribes(item)]
    return dict(zip(map(id, items), comet(items), strict=True)) if comet and items else {}


def _scores(corpus: Corpus, bootstrap: int, convention: Convention) -> dict[str, Score]:
    metrics = metrics_for(corpus.target_language, convention)
    return {name: corpus_score(metric, corpus.items, bootstrap) for name, metric in metrics.items()}


def _mean_of_sentences(
    corpus: Corpus, of_sentence: Mapping[int, float], signature: str
) -> dict[str, Score]:
    """COMET's system score is the mean over the sentences, where all of them were scored."""
    values = [of_sentence[id(item)] for item in corpus.items if id(item) in of_sentence]
    if not values or len(values) < len(corpus.items):
        return {}
    return {"COMET": Score(fmean(values), signature=signature)}


def _means(parts: Sequence[Mapping[str, Score]]) -> dict[str, Score]:
    """The mean of each measure that all the languages have."""
    shared = [name for name in parts[0] if all(name in scores for scores in parts)]
    return {name: Score(fmean(scores[name].value for scores in parts)) for name in shared}


def corpora(
    predictions: Sequence[Prediction],
    seen: Iterable[str] = (),
    zero_shot: Iterable[str] = (),
) -> list[Corpus]:
    """Each direction in the order seen, zero-shot, others; then each group, pooled and as a mean.

    A group that mixes target languages has no pooled corpus: no one tokeniser fits it.

    Raises:
        InputError: no predictions, missing references, or a language in both groups.
    """
    groups = {"seen": list(seen), "zero-shot": list(zero_shot)}
    _check(predictions, groups)
    languages = _languages(predictions, groups)
    groups["all"] = [corpus.items[0].language for corpus in languages]
    found = list(languages)
    for group, members in groups.items():
        items = tuple(item for item in predictions if item.language in members)
        parts = tuple(corpus.name for corpus in languages if corpus.items[0].language in members)
        if len({item.target_language for item in items}) == 1:
            found.append(Corpus(f"{group}, pooled", "pooled", group, items))
        if items:
            found.append(Corpus(f"{group}, mean of languages", "mean", group, items, parts))
    return found


def _check(predictions: Sequence[Prediction], groups: Mapping[str, Sequence[str]]) -> None:
    problems = []
    if not predictions:
        problems.append("found no predictions to score; expected at least one")
    bare = [item.key for item in predictions if item.reference is None]
    if bare:
        told = f"{len(bare)} predictions have no reference and cannot be scored: {some(bare)}"
        problems.append(told)
    both = sorted(set(groups["seen"]) & set(groups["zero-shot"]))
    if both:
        problems.append(f"languages both seen and zero-shot: {', '.join(both)}; expected one group")
    refuse(problems)


def _languages(
    predictions: Sequence[Prediction], groups: Mapping[str, Sequence[str]]
) -> list[Corpus]:
    group_of = {language: group for group, members in groups.items() for language in members}
    place = {language: number for number, language in enumerate(group_of)}
    directions: dict[tuple[str, str], list[Prediction]] = {}
    for item in predictions:
        directions.setdefault((item.language, item.target_language), []).append(item)
    several_targets = len({target for _, target in directions}) > 1
    found = []
    for language, target in sorted(directions, key=lambda d: (place.get(d[0], len(place)), d)):
        name = f"{language}→{target}" if several_targets else language
        items = tuple(directions[language, target])
        found.append(Corpus(name, "language", group_of.get(language, ""), items))
    return found
