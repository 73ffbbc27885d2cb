"""WER and CER by jiwer, after Whisper's text normaliser.

Two kinds of rows have one: those that transcribe (target language = spoken language), and those of
chain-of-thought decoding, which say what they heard before they translate (`heard`); CoT-ST's and
LLM-SRT's scripts score that half so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import NamedTuple

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError
from slam_potsa.evaluation.codes import one_line, primary, transcribes
from slam_potsa.evaluation.scores.conventions import ErrorRate
from slam_potsa.evaluation.scores.rows import Score


class Normalized(NamedTuple):
    """What jiwer compares, line by line, and the signature of how it came about."""

    references: list[str]
    hypotheses: list[str]
    signature: str


def error_rate(items: Sequence[Prediction], convention: ErrorRate) -> dict[str, Score]:
    """{"WER": …} or {"CER": …} in per cent of a corpus that can have one; {} of any other.

    Raises InputError where jiwer or whisper_normalizer is not installed.
    """
    unit, lines = unit_of(items, convention), normalized(items, convention)
    if unit is None or not lines.references:
        return {}
    import jiwer

    measure = jiwer.cer if unit == "CER" else jiwer.wer
    rate = 100 * measure(lines.references, lines.hypotheses)
    return {unit: Score(rate, signature=lines.signature)}


def unit_of(items: Sequence[Prediction], convention: ErrorRate) -> str | None:
    """ "WER" or "CER"; None of a corpus that mixes both, or has rows that tell no transcript."""
    heard = any(item.heard is not None for item in items)
    told = all(transcribes(item) or (heard and item.transcript is not None) for item in items)
    units = {convention.unit(item.language) for item in items}
    return units.pop() if told and len(units) == 1 else None


def normalized(items: Sequence[Prediction], convention: ErrorRate) -> Normalized:
    """The normalised lines of a corpus; those that are counted in characters without white space,
    unless `convention.count_spaces`.

    References that the normaliser empties (a lone "…") are left out, as CoT-ST's script does, and
    a row that does not tell what was heard counts as nothing heard; the signature counts both.
    """
    check_installed()
    references, hypotheses, names, units, silent = [], [], set(), set(), 0
    for item in items:
        said, written = _pair(item)
        silent += written is None
        english = convention.english and primary(item.language) == "en"
        names.add("whisper-english" if english else "whisper-basic")
        units.add(convention.unit(item.language))
        normalize = _normalizer(english, convention.keep_marks)
        between = "" if _without_spaces(item.language, convention) else " "
        reference = between.join(normalize(one_line(said)).split())
        if reference:
            references.append(reference)
            hypotheses.append(between.join(normalize(one_line(written or "")).split()))
    signature = f"norm:{'+'.join(sorted(names))} {version('whisper_normalizer')}"
    if "whisper-basic" in names:
        signature += f"|marks:{'kept' if convention.keep_marks else 'removed'}"
    if "CER" in units:
        signature += f"|spaces:{'counted' if convention.count_spaces else 'deleted'}"
    signature += f"|jiwer:{version('jiwer')}"
    left_out = len(items) - len(references)
    signature += f"|empty references left out:{left_out}" if left_out else ""
    signature += f"|not told:{silent}" if silent else ""
    return Normalized(references, hypotheses, signature)


def check_installed() -> None:
    """Raise InputError unless what WER and CER need is installed."""
    from importlib.util import find_spec

    missing = [name for name in ("jiwer", "whisper_normalizer") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"WER and CER need {' and '.join(missing)}: pip install {' '.join(missing)}, or leave "
            "them out with --no-wer"
        )
    try:
        _normalizer(english=False, keep_marks=True)
    except TypeError:
        raise InputError(
            f"WER and CER need whisper_normalizer 0.1.13 or later, which can keep vowel signs; "
            f"found {version('whisper_normalizer')}: pip install -U whisper_normalizer"
        ) from None


def _without_spaces(language: str, convention: ErrorRate) -> bool:
    return convention.unit(language) == "CER" and not convention.count_spaces


def _pair(item: Prediction) -> tuple[str, str | None]:
    """(what was said, what the system wrote of it)."""
    if transcribes(item):
        return item.reference or "", item.prediction
    return item.transcript or "", item.heard


@lru_cache(maxsize=3)
def _normalizer(english: bool, keep_marks: bool) -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    if english:
        return EnglishTextNormalizer()
    return BasicTextNormalizer(preserve_marks=keep_marks)
