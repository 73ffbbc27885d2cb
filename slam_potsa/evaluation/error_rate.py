"""WER and CER by jiwer, after Whisper's text normaliser.

Two kinds of rows have one: those that transcribe (target language = spoken language), and those of
chain-of-thought decoding, which say what they heard before they translate (`heard`); CoT-ST's and
LLM-SRT's scripts score that half so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import NamedTuple

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError
from slam_potsa.evaluation.corpus_score import Score
from slam_potsa.evaluation.presets import ErrorRate, primary_language, transcribes
from slam_potsa.text import one_line


class Normalized(NamedTuple):
    """What jiwer compares, line by line, and the signature of how it came about."""

    references: list[str]
    hypotheses: list[str]
    signature: str


def error_rate(items: Sequence[Prediction], convention: ErrorRate | None) -> dict[str, Score]:
    """{"WER": …} or {"CER": …} in per cent of a corpus that can have one; {} of any other.

    Raises InputError where jiwer or whisper_normalizer is not installed.
    """
    unit = unit_of(items, convention) if convention else None
    lines = normalized(items, convention) if convention and unit else None
    if unit is None or lines is None or not lines.references:
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
    lines, silent = [], 0
    for item in items:
        said, written = item.transcript, item.heard
        if transcribes(item):
            said, written = item.reference, item.prediction
        silent += written is None
        lines.append(
            [_normalize(text or "", item.language, convention) for text in (said, written)]
        )
    kept = [(reference, hypothesis) for reference, hypothesis in lines if reference]
    left_out = len(lines) - len(kept)
    signature = _signature({item.language for item in items}, convention)
    signature += f"|empty references left out:{left_out}" if left_out else ""
    signature += f"|not told:{silent}" if silent else ""
    return Normalized([line for line, _ in kept], [line for _, line in kept], signature)


def check_installed() -> None:
    """Raise InputError unless what WER and CER need is installed."""
    missing = [name for name in ("jiwer", "whisper_normalizer") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"WER and CER need {' and '.join(missing)}: pip install {' '.join(missing)}, or leave "
            "them out with --no-wer"
        )


def _normalize(text: str, language: str, convention: ErrorRate) -> str:
    normalize = _whisper_normalizer(_is_english(language, convention), convention.keep_marks)
    in_characters = convention.unit(language) == "CER" and not convention.count_spaces
    return ("" if in_characters else " ").join(normalize(one_line(text)).split())


def _is_english(language: str, convention: ErrorRate) -> bool:
    return convention.english and primary_language(language) == "en"


def _signature(languages: set[str], convention: ErrorRate) -> str:
    english = {_is_english(language, convention) for language in languages}
    names = [name for name, is_it in (("basic", False), ("english", True)) if is_it in english]
    by = "+".join(f"whisper-{name}" for name in names)
    signature = f"norm:{by} {version('whisper_normalizer')}"
    if False in english:
        signature += f"|marks:{'kept' if convention.keep_marks else 'removed'}"
    if "CER" in {convention.unit(language) for language in languages}:
        signature += f"|spaces:{'counted' if convention.count_spaces else 'deleted'}"
    return f"{signature}|jiwer:{version('jiwer')}"


@lru_cache(maxsize=3)
def _whisper_normalizer(english: bool, keep_marks: bool) -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    if english:
        return EnglishTextNormalizer()
    return BasicTextNormalizer(preserve_marks=keep_marks)
