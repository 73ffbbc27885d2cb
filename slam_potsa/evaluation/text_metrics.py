"""The measures of one corpus: sacrebleu's BLEU and chrF, jiwer's WER and CER, and cross-entropy.

How text is compared is a `Convention`: our own, or a project's of this field (`presets.yaml`).

What is said in several languages or by several voices is one sentence: every interval, and the test
of cross-entropy, resamples sentences, each with all its recordings (a cluster bootstrap).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import yaml

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError
from slam_potsa.text import one_line

CE, SEED = "CE", 12345  # the seed is sacrebleu's
DIGITS = {CE: 3}  # after the point, of what has not the usual number

# sacrebleu's own choice for zh, ja and ko (BLEU._TOKENIZER_MAP). It has none for the other
# languages written without spaces, where words as 13a sees them are whole clauses: Cantonese takes
# the Chinese tokeniser, the rest single characters.
TOKENIZERS = {"zh": "zh", "yue": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}
TOKENIZERS |= dict.fromkeys(("th", "lo", "km", "my"), "char")


@dataclass(frozen=True)
class ErrorRate:
    """The error rate of speech recognition: 100 · (S + D + I) / N, in words or in characters."""

    # Languages whose N, S, D and I count characters (CER); the others count words. Korean has
    # spaces, but PART and LLM-SRT count its characters too.
    characters: Sequence[str] = tuple(TOKENIZERS)
    # English goes through Whisper's English normaliser (numbers as digits, contractions spelled
    # out, American spelling); otherwise through the basic one, as all languages do.
    english: bool = True
    # Unicode's marks (category M). Without them the basic normaliser drops the vowel signs of
    # Hindi, Thai and others, and words that differ in one compare equal.
    keep_marks: bool = True
    # In CER. The normaliser makes a space of every punctuation mark: where it counts, these do.
    count_spaces: bool = False

    def unit(self, language: str) -> str:
        """ "CER" or "WER"."""
        return "CER" if primary_language(language) in self.characters else "WER"


@dataclass(frozen=True)
class Convention:
    """How text is compared. The papers differ in it, so every score carries its signature."""

    lowercase: bool = False  # of BLEU and chrF. sacrebleu's default is cased; CoT-ST lowercases
    # Target language -> sacrebleu's tokeniser; "13a" for those it does not name.
    tokenizers: Mapping[str, str] = field(default_factory=lambda: TOKENIZERS)
    chrf_word_order: int = 0  # 0 is chrF, 2 is chrF++
    more_bleu: Mapping[str, str] = field(default_factory=dict)  # column -> tokeniser, of all
    error_rate: ErrorRate | None = None
    name: str | None = None  # of a preset, as `--preset` takes it
    note: str = ""  # where it is from, what in it is ours

    def tokenizer(self, target_language: str) -> str:
        """The name of sacrebleu's tokeniser."""
        return self.tokenizers.get(primary_language(target_language), "13a")


_FOUND = yaml.safe_load(Path(__file__).with_name("presets.yaml").read_text(encoding="utf-8"))
PRESETS = {
    name: Convention(name=name, error_rate=ErrorRate(**found.pop("error_rate")), **found)
    for name, found in _FOUND.items()
}


def find_preset(name: str | None) -> Convention:
    """The preset of this name; None is our own convention. InputError names those there are."""
    if name is None:
        return Convention()
    if name not in PRESETS:
        raise InputError(f"preset: found {name!r}, expected one of {', '.join(PRESETS)}")
    return PRESETS[name]


def primary_language(code: str) -> str:
    """The language of a code: "zh-CN", "ZH_cn" and "cmn" -> "zh"."""
    code = code.lower().replace("_", "-").split("-")[0]
    return "zh" if code == "cmn" else code


def transcribes(item: Prediction) -> bool:
    """Speech recognition rather than translation: it is written in the language that is spoken."""
    return primary_language(item.language) == primary_language(item.target_language)


# -- scores ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """A corpus score, with the 95 % interval of its bootstrap distribution where there is one.

    The interval is sacrebleu's: bootstrap mean ± half the distance of the 2.5 % and 97.5 %
    quantiles. It is centred on the bootstrap mean, which small corpora shift from `value`, and can
    leave the scale there, though no resample does.
    """

    value: float
    low: float | None = None
    high: float | None = None
    signature: str = ""
    digits: int = 1  # after the point, where it is shown

    def text(self) -> str:
        return f"{self.value:.{self.digits}f}"

    def interval_text(self) -> str:
        """ "7.1 – 9.3", or "" without an interval; cut to 0 … 100, where BLEU and chrF end."""
        if self.low is None:
            return ""
        low, high = max(0.0, self.low), min(self.high, 100.0)
        return f"{low:.{self.digits}f} – {high:.{self.digits}f}"


def corpus_scores(
    items: Sequence[Prediction], convention: Convention, bootstrap: int
) -> dict[str, Score]:
    """Every measure of a corpus into one language, by the name of its column.

    `bootstrap`: resamples of the intervals of sacrebleu's; 0 leaves them out.
    """
    metrics = sacrebleu_metrics(items[0].target_language, convention)
    scores = {name: _corpus_score(metric, items, bootstrap) for name, metric in metrics.items()}
    return scores | error_rate(items, convention) | cross_entropy(items, bootstrap)


def _mean_score(items: Sequence[Prediction], name: str) -> float:
    """Cased BLEU or chrF of all that is translated into a language, the mean over these."""
    parts: dict[str, list[Prediction]] = {}
    for item in items:
        parts.setdefault(item.target_language, []).append(item)
    scorers = {target: sacrebleu_metrics(target, Convention())[name] for target in parts}
    return fmean(_corpus_score(scorers[target], part, 0).value for target, part in parts.items())


mean_bleu, mean_chrf = partial(_mean_score, name="BLEU"), partial(_mean_score, name="chrF")


def texts(items: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    """(predictions, references), each on one line, so that files of lines give the same scores."""
    predictions = [one_line(item.prediction) for item in items]
    return predictions, [one_line(item.reference or "") for item in items]


# -- BLEU and chrF ---------------------------------------------------------------------------------


def sacrebleu_metrics(target_language: str, convention: Convention) -> dict[str, Any]:
    """sacrebleu's objects by the name of their column: BLEU, chrF or chrF++, and further BLEUs.

    Raises InputError where a tokeniser is unknown or not installed.
    """
    from sacrebleu.metrics import CHRF

    lower, order = convention.lowercase, convention.chrf_word_order
    found = {"BLEU": _bleu(convention.tokenizer(target_language), target_language, lower)}
    found["chrF++" if order == 2 else "chrF"] = CHRF(lowercase=lower, word_order=order)
    for name, tokenizer in convention.more_bleu.items():
        found[name] = _bleu(tokenizer, target_language, lower)
    return found


def _corpus_score(metric: Any, items: Sequence[Prediction], bootstrap: int) -> Score:
    """As `metric.corpus_score`, but for what is resampled: sentences, with all their recordings.

    sacrebleu's counts of n-grams add up, so that the sums over recordings give the same score.
    """
    from sacrebleu.significance import _bootstrap_resample, estimate_ci

    hypotheses, references = texts(items)
    counts = metric._extract_corpus_statistics(hypotheses, [references])
    value = float(metric._aggregate_and_compute(counts).score)
    if bootstrap <= 1:
        return Score(value, signature=str(metric.get_signature()))
    sums: dict[Hashable, Any] = {}
    for sentence, count in zip(sentences_of(items), counts, strict=True):
        sums[sentence] = np.add(sums.get(sentence, 0), count)
    metric.n_bootstrap = bootstrap  # for the signature
    metric.seed, resamples = _bootstrap_resample([*sums.values()], metric, bootstrap)
    mean, half_width = map(float, estimate_ci(np.array([float(r.score) for r in resamples])))
    signature = str(metric.get_signature())
    signature += f"|sentences:{len(sums)}" if len(sums) < len(items) else ""
    return Score(value, mean - half_width, mean + half_width, signature)


def _bleu(tokenizer: str, target_language: str, lowercase: bool) -> Any:
    """sacrebleu's BLEU with this tokeniser; InputError says how to get one that is not there."""
    from sacrebleu.metrics import BLEU

    try:
        return BLEU(lowercase=lowercase, tokenize=tokenizer)
    except (KeyError, RuntimeError, OSError, ImportError) as error:
        raise InputError(
            f"tokeniser {tokenizer!r} for {target_language!r}: {error}; expected one of "
            f"{', '.join(BLEU.TOKENIZERS)}, with its dictionary (pip install 'sacrebleu[ja,ko]') "
            "or its SentencePiece model, which sacrebleu downloads into the folder that the "
            "environment variable SACREBLEU names; or take another --preset"
        ) from error


# -- WER and CER -----------------------------------------------------------------------------------


def error_rate(items: Sequence[Prediction], convention: Convention) -> dict[str, Score]:
    """{"WER": …} or {"CER": …} in per cent, after Whisper's normaliser; {} where there is none.

    Two kinds of rows have one: those that transcribe, and those of chain-of-thought decoding, which
    say what they heard (CoT-ST's and LLM-SRT's scripts score that half so). References that the
    normaliser empties (a lone "…") are left out, as CoT-ST's script does, and a row that does not
    tell what was heard counts as nothing heard. A corpus that mixes WER and CER has neither.
    """
    rate = convention.error_rate
    heard = any(item.heard is not None for item in items)
    told = all(transcribes(item) or (heard and item.transcript is not None) for item in items)
    languages = {primary_language(item.language) for item in items}
    units = {rate.unit(language) for language in languages} if rate else set()
    if not told or len(units) != 1:
        return {}
    (unit,) = units
    counts_spaces = unit == "WER" or rate.count_spaces
    pairs = [
        [_normalized(text or "", item.language, rate, counts_spaces) for text in _said(item)]
        for item in items
    ]
    kept = [pair for pair in pairs if pair[0]]
    if not kept:
        return {}
    import jiwer

    measure = jiwer.cer if unit == "CER" else jiwer.wer
    said, written = map(list, zip(*kept, strict=True))
    signature = _signature(languages, unit, rate)
    left_out, silent = len(pairs) - len(kept), sum(_said(item)[1] is None for item in items)
    signature += f"|empty references left out:{left_out}" if left_out else ""
    signature += f"|not told:{silent}" if silent else ""
    return {unit: Score(100 * measure(said, written), signature=signature)}


def _said(item: Prediction) -> tuple[str | None, str | None]:
    """(What was said, what the system wrote of it)."""
    return (item.reference, item.prediction) if transcribes(item) else (item.transcript, item.heard)


def _normalized(text: str, language: str, rate: ErrorRate, counts_spaces: bool) -> str:
    english = rate.english and primary_language(language) == "en"
    words = _whisper_normalizer(english, rate.keep_marks)(one_line(text)).split()
    return (" " if counts_spaces else "").join(words)


def _signature(languages: set[str], unit: str, rate: ErrorRate) -> str:
    english = {rate.english and language == "en" for language in languages}
    names = "+".join(f"whisper-{'english' if own else 'basic'}" for own in sorted(english))
    marks = f"|marks:{'kept' if rate.keep_marks else 'removed'}" if False in english else ""
    spaces = f"|spaces:{'counted' if rate.count_spaces else 'deleted'}" if unit == "CER" else ""
    normalizer, jiwer = (version(name) for name in ("whisper_normalizer", "jiwer"))
    return f"norm:{names} {normalizer}{marks}{spaces}|jiwer:{jiwer}"


@lru_cache(maxsize=3)
def _whisper_normalizer(english: bool, keep_marks: bool) -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer() if english else BasicTextNormalizer(preserve_marks=keep_marks)


# -- cross-entropy ---------------------------------------------------------------------------------
#
#     CE = mean over sentences i of ce_i,  ce_i = −1/A_i Σ_a ln p(y_ia | speech_i, prompt, y_i,<a)
#
# in nats a token, over the A_i tokens of a reference and its end; lower is better. It moves with
# every change of a system, where BLEU stands still until a word changes, but compares only systems
# of one LLM and one prompt.


def losses(items: Sequence[Prediction]) -> list[float]:
    """ce_i of each prediction; empty where one of them has none."""
    found = [item.cross_entropy for item in items]
    return [] if None in found else found


def cross_entropy(items: Sequence[Prediction], bootstrap: int) -> dict[str, Score]:
    """{CE: …} where every item has one; the interval is that of the resampled mean's quantiles."""
    if not (found := losses(items)):
        return {}
    low, high = None, None
    if bootstrap > 1:
        means = _resampled_means(items, found, bootstrap)
        low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return {CE: Score(fmean(found), low, high, digits=DIGITS[CE])}


def p_of_difference(items: Sequence[Prediction], differences: Sequence[float], n: int) -> float:
    """Two-sided, of the mean difference being 0: twice the rarer side of its n resampled means.

    Never below 2^(1 − sentences), what their signs alone could show.
    """
    means = _resampled_means(items, differences, n)
    rarer = min((means <= 0).sum(), (means >= 0).sum())
    least = 2.0 ** (1 - len(set(sentences_of(items))))
    return float(min(1.0, max(least, 2 * (rarer + 1) / (n + 1))))


def sentences_of(items: Sequence[Prediction]) -> list[Hashable]:
    """What each says; a prediction without a sentence id is a sentence by itself."""
    return [item.sentence_id or (item.key,) for item in items]


def _resampled_means(
    items: Sequence[Prediction], values: Sequence[float], resamples: int
) -> np.ndarray:
    """[resamples] means of `values`, of as many sentences drawn with replacement; seeded."""
    clusters: dict[Hashable, list[float]] = defaultdict(list)
    for sentence, value in zip(sentences_of(items), values, strict=True):
        clusters[sentence].append(value)
    sums = np.array([sum(of) for of in clusters.values()])
    counts = np.array([len(of) for of in clusters.values()])
    drawn = np.random.default_rng(SEED).integers(len(sums), size=(resamples, len(sums)))
    return sums[drawn].sum(1) / counts[drawn].sum(1)
