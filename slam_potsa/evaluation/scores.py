"""Translation scores: sacreBLEU's BLEU and chrF with bootstrap intervals and signatures.

Nothing is computed here that sacrebleu computes: this file chooses the tokeniser, groups the
sentences, and keeps the signature beside every number. The scores equal its command line's,
`sacrebleu REF -i PRED -m bleu chrf --confidence`, on the same sentences.

A group of languages ("seen", "zero-shot", "all") has two scores that differ, and both are given:

* **pooled**: all sentences of the group are one corpus, so an interval exists. It takes recordings
  for independent; where a sentence recurs in several languages it is narrower than it should be;
* **mean of languages**: the unweighted mean of the languages' scores, which is what the papers
  average (POTSA, Tables 1 to 3). sacrebleu has no interval for it, so it has none here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError

# sacrebleu's own choice for zh, ja and ko (BLEU._TOKENIZER_MAP). It has none for the other
# languages written without spaces, where words as 13a sees them are whole clauses: Cantonese takes
# the Chinese tokeniser, the rest single characters.
TOKENIZERS: Mapping[str, str] = {
    "zh": "zh",
    "cmn": "zh",
    "yue": "zh",
    "ja": "ja-mecab",
    "ko": "ko-mecab",
    "th": "char",
    "lo": "char",
    "km": "char",
    "my": "char",
}


@dataclass(frozen=True)
class Convention:
    """How text is compared. The papers differ in it, so every score carries its signature."""

    lowercase: bool = False  # sacrebleu's default; CoT-ST lowercases
    tokenizers: Mapping[str, str] = field(default_factory=lambda: TOKENIZERS)  # by target language
    default_tokenizer: str = "13a"
    chrf_word_order: int = 0  # 0 is chrF, 2 is chrF++

    def tokenizer(self, target_language: str) -> str:
        """The name of sacrebleu's tokeniser; "zh-CN" and "zh_cn" are looked up as "zh"."""
        code = target_language.lower().replace("_", "-")
        primary = code.split("-")[0]
        return self.tokenizers.get(code) or self.tokenizers.get(primary, self.default_tokenizer)


@dataclass(frozen=True)
class Score:
    """A corpus score, with the 95 % interval of its bootstrap distribution where there is one.

    The interval is sacrebleu's: bootstrap mean ± half the distance of the 2.5 % and 97.5 %
    quantiles. It is centred on the bootstrap mean, which small corpora shift from `value`.
    """

    value: float
    mean: float | None = None
    half_width: float | None = None
    signature: str = ""

    @property
    def low(self) -> float | None:
        return None if self.mean is None or self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float | None:
        return None if self.mean is None or self.half_width is None else self.mean + self.half_width

    def interval_text(self) -> str:
        """ "7.1 – 9.3", or "" without an interval."""
        return "" if self.low is None else f"{self.low:.1f} – {self.high:.1f}"

    def cells(self) -> tuple[str, str]:
        return f"{self.value:.1f}", self.interval_text()

    def as_dict(self) -> dict[str, Any]:
        interval = None if self.low is None else [self.low, self.high]
        return {"score": self.value, "interval_95": interval, "signature": self.signature}


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one corpus.

    Attributes:
        name: "fr" (or "fr→zh" with several target languages), "seen, pooled", "all, mean of
            languages".
        kind: "language", "pooled" or "mean".
        group: "seen", "zero-shot" or "all"; for a language the group it is in, or "".
        sentences: how many predictions it is computed from.
    """

    name: str
    kind: str
    group: str
    sentences: int
    bleu: Score
    chrf: Score

    def as_dict(self) -> dict[str, Any]:
        facts = {"name": self.name, "kind": self.kind, "group": self.group}
        scores = {"bleu": self.bleu.as_dict(), "chrf": self.chrf.as_dict()}
        return facts | {"sentences": self.sentences} | scores


@dataclass(frozen=True)
class ScoreTable:
    """Languages first, then the groups."""

    rows: tuple[ScoreRow, ...]

    def row(self, name: str) -> ScoreRow:
        """The row of this name; KeyError names the rows there are."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no row {name!r}; there are {', '.join(row.name for row in self.rows)}")

    @property
    def signatures(self) -> list[str]:
        """Each signature once, those of BLEU first."""
        bleu = [f"BLEU|{row.bleu.signature}" for row in self.rows if row.bleu.signature]
        chrf = [f"chrF|{row.chrf.signature}" for row in self.rows if row.chrf.signature]
        return list(dict.fromkeys(bleu + chrf))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"rows": [row.as_dict() for row in self.rows]}

    def text(self) -> str:
        """An aligned plain-text table with the signatures below it."""
        head = ("", "sentences", "BLEU", "95 % interval", "chrF", "95 % interval")
        body = [
            (row.name, str(row.sentences), *row.bleu.cells(), *row.chrf.cells())
            for row in self.rows
        ]
        return "\n".join([aligned([head, *body]), "", *self.signatures])


def aligned(lines: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Lines of cells as plain text: the first `text_columns` to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def score(
    predictions: Sequence[Prediction],
    *,
    seen: Iterable[str] = (),
    zero_shot: Iterable[str] = (),
    bootstrap: int = 1000,
    seed: int = 12345,
    convention: Convention | None = None,
) -> ScoreTable:
    """Score each language and each group of languages.

    Args:
        predictions: every one with a reference.
        seen: spoken languages that the system was trained on; they form the group "seen".
        zero_shot: spoken languages that it never heard; they form the group "zero-shot".
        bootstrap: resamples for the intervals; 0 leaves the intervals out.
        seed: of the resampling; it is part of the signature. The default is sacrebleu's.
        convention: how text is compared; by default cased, raw text.

    Returns:
        A row a direction, then for each group that has sentences its pooled score and its mean.
        A group that mixes target languages has no pooled row: no one tokeniser fits it.

    Raises:
        InputError: no predictions, missing references, a language in both groups, or a tokeniser
            that is not installed.
    """
    convention = convention or Convention()
    seen, zero_shot = list(seen), list(zero_shot)
    _check(predictions, seen, zero_shot)
    with sacrebleu_seed(seed):
        languages = _language_rows(predictions, seen, zero_shot, bootstrap, convention)
        groups = _group_rows(predictions, languages, seen, zero_shot, bootstrap, convention)
    return ScoreTable((*[row for row, _ in languages], *groups))


def metrics_for(target_language: str, convention: Convention) -> dict[str, Any]:
    """sacrebleu's BLEU and CHRF objects for a target language, as {"bleu": …, "chrf": …}."""
    from sacrebleu.metrics import BLEU, CHRF

    name = convention.tokenizer(target_language)
    try:
        bleu = BLEU(lowercase=convention.lowercase, tokenize=name)
    except KeyError:
        raise InputError(
            f"tokeniser {name!r} for {target_language!r} is unknown to sacrebleu; it has "
            f"{', '.join(BLEU.TOKENIZERS)}"
        ) from None
    except RuntimeError as error:  # its message for a dictionary that is not installed
        extra = f"sacrebleu[{name.removesuffix('-mecab')}]"
        raise InputError(
            f"scoring {target_language!r} needs the tokeniser {name!r}, which is not installed: "
            f"pip install '{extra}'"
        ) from error
    chrf = CHRF(lowercase=convention.lowercase, word_order=convention.chrf_word_order)
    return {"bleu": bleu, "chrf": chrf}


@contextmanager
def sacrebleu_seed(seed: int) -> Iterator[None]:
    """sacrebleu reads the seed of its resampling from the environment, and nowhere else."""
    before = os.environ.get("SACREBLEU_SEED")
    os.environ["SACREBLEU_SEED"] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SACREBLEU_SEED"]
        else:
            os.environ["SACREBLEU_SEED"] = before


def _check(predictions: Sequence[Prediction], seen: list[str], zero_shot: list[str]) -> None:
    problems = []
    if not predictions:
        problems.append("found no predictions to score; expected at least one")
    bare = [item.key for item in predictions if item.reference is None]
    if bare:
        shown = ", ".join(bare[:10]) + (", …" if len(bare) > 10 else "")
        problems.append(f"{len(bare)} predictions have no reference and cannot be scored: {shown}")
    both = sorted(set(seen) & set(zero_shot))
    if both:
        problems.append(f"languages both seen and zero-shot: {', '.join(both)}; expected one group")
    if problems:
        raise InputError(problems)


def _language_rows(
    predictions: Sequence[Prediction],
    seen: list[str],
    zero_shot: list[str],
    bootstrap: int,
    convention: Convention,
) -> list[tuple[ScoreRow, str]]:
    """(row, spoken language) of each direction, in the order seen, zero-shot, others."""
    directions: dict[tuple[str, str], list[Prediction]] = {}
    for item in predictions:
        directions.setdefault((item.language, item.target_language), []).append(item)
    several_targets = len({target for _, target in directions}) > 1
    place = {language: number for number, language in enumerate(seen + zero_shot)}
    rows = []
    for language, target in sorted(directions, key=lambda d: (place.get(d[0], len(place)), d)):
        items = directions[language, target]
        name = f"{language}→{target}" if several_targets else language
        group = "seen" if language in seen else "zero-shot" if language in zero_shot else ""
        row = _corpus_row(name, "language", group, items, bootstrap, convention)
        rows.append((row, language))
    return rows


def _group_rows(
    predictions: Sequence[Prediction],
    language_rows: list[tuple[ScoreRow, str]],
    seen: list[str],
    zero_shot: list[str],
    bootstrap: int,
    convention: Convention,
) -> list[ScoreRow]:
    groups = {"seen": seen, "zero-shot": zero_shot, "all": [lang for _, lang in language_rows]}
    rows = []
    for group, members in groups.items():
        items = [item for item in predictions if item.language in members]
        parts = [row for row, language in language_rows if language in members]
        if not items:
            continue
        if len({item.target_language for item in items}) == 1:
            rows.append(
                _corpus_row(f"{group}, pooled", "pooled", group, items, bootstrap, convention)
            )
        bleu = Score(sum(row.bleu.value for row in parts) / len(parts))
        chrf = Score(sum(row.chrf.value for row in parts) / len(parts))
        rows.append(ScoreRow(f"{group}, mean of languages", "mean", group, len(items), bleu, chrf))
    return rows


def _corpus_row(
    name: str,
    kind: str,
    group: str,
    items: Sequence[Prediction],
    bootstrap: int,
    convention: Convention,
) -> ScoreRow:
    metrics = metrics_for(items[0].target_language, convention)
    bleu, chrf = (_corpus_score(metrics[name], items, bootstrap) for name in ("bleu", "chrf"))
    return ScoreRow(name, kind, group, len(items), bleu, chrf)


def _return_plain_floats(metric: Any) -> None:
    """sacrebleu 2.6 averages resampled scores with `statistics.mean`, which fails where some are
    NumPy's float32 and some, being exactly 0, Python's float."""
    compute = metric._compute_score_from_stats

    def compute_plain(stats: Any) -> Any:
        result = compute(stats)
        result.score = float(result.score)
        return result

    metric._compute_score_from_stats = compute_plain


def _corpus_score(metric: Any, items: Sequence[Prediction], bootstrap: int) -> Score:
    hypotheses = [item.prediction for item in items]
    references = [[item.reference for item in items]]
    _return_plain_floats(metric)
    result = metric.corpus_score(hypotheses, references, n_bootstrap=max(bootstrap, 1))
    signature = str(metric.get_signature())
    if bootstrap <= 1:
        return Score(result.score, signature=signature)
    import json

    # The public form of the interval. A distribution that is zero throughout is left out of it.
    details = json.loads(result.format(width=10, signature=signature, is_json=True))
    mean, half_width = details.get("confidence_mean", 0.0), details.get("confidence_var", 0.0)
    return Score(result.score, mean, half_width, signature)
