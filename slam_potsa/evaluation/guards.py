"""Outputs that are broken rather than bad, and how often: what a corpus's BLEU does not tell.

A guard is a test of one row. It says nothing about quality, and a row that passes may be wrong.

* **empty**: nothing but white space was written.
* **wrong language**: less than half of the letters are in the target's scripts, or py3langid takes
  the text for another language with probability >= 0.8 (from 10 letters on). A target's scripts
  are those of at least 20 % of the letters of its references, so no table of languages is needed.
* **copied source**: letters and digits equal the transcript's by a ratio >= 0.9 (difflib), though
  another language was asked for: it transcribed instead of translating.
* **repetition**: a unit of 1 to 100 characters stands at least 4 times in a row, over at least 10
  characters.
* **same answer**: the same letters and digits answer rows of at least 3 different references into
  this language: the system has collapsed to one sentence, or to a few.
* **length**: characters / those of the reference are above 2 or below 1/2, and off by at least 10
  characters. The band is around the reference and not around the system's own median, which a
  system that always writes too little would move.
* **refusal**: the LLM speaks of itself instead of translating (English and Chinese phrases).

A guard that fires on the reference too (a sentence of names, a song's refrain) does not count
against the prediction. How often the language test does so is the column "of references", beside
"wrong language": its false alarms. The thresholds are ours; the papers do not count these
failures, which users report.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation.presets import primary_language, transcribes

EMPTY, LANGUAGE, COPIED = "empty", "wrong language", "copied source"
REPETITION, SAME, LENGTH, REFUSAL = "repetition", "same answer", "length", "refusal"
GUARDS = (EMPTY, LANGUAGE, COPIED, REPETITION, SAME, LENGTH, REFUSAL)
REFERENCES = "of references"  # the language test on the references: its false alarms

SCRIPT_SHARE = 0.2  # of the references' letters: from here on a script belongs to the language
CONFIDENCE, LETTERS = 0.8, 10  # of the language identifier; shorter texts are not judged
COPY_RATIO = 0.9
REPEATS, REPEATED_CHARACTERS = 4, 10
SAME_REFERENCES = 3
LENGTH_FACTOR, LENGTH_CHARACTERS = 2.0, 10

# Languages that an identifier cannot be expected to tell apart in one sentence.
_ALIKE = (
    {"zh", "yue", "wuu"},
    {"no", "nb", "nn"},
    {"hr", "bs", "sr"},
    {"id", "ms"},
    {"tl", "fil"},
    {"ar", "ary", "arz"},
    {"uz", "uzs"},
)
_LOOP = re.compile(rf"(.{{1,100}}?)\1{{{REPEATS - 1},}}")
_REFUSAL = re.compile(
    r"\bas an ai\b|\b(ai|language) (model|assistant)\b"
    r"|\bi('m| am)? (sorry,? (but )?i )?(cannot|can't|can not|unable to|not able to) "
    r"(assist|help|translate|transcribe|process|hear|understand|provide)"
    r"|\bplease (provide|share|upload) (me )?(with )?(the|an|your) (audio|text|sentence|speech)"
    r"|作为(一个|一名)?(人工智能|AI|语言模型)|(抱歉|对不起)[,，]?我(无法|不能|没有|听不)"
    r"|我(无法|不能)(翻译|识别|转录|提供|处理|理解)|请提供.{0,8}(音频|文本|句子|内容)",
    re.IGNORECASE,
)


def watch(predictions: Sequence[Prediction]) -> list[frozenset[str]]:
    """The guards that fire on each prediction, in their order, of one system's output on one test.

    Scripts and repeated answers are taken from all the rows into a language together.
    """
    by_target: dict[str, list[Prediction]] = {}
    for item in predictions:
        by_target.setdefault(item.target_language, []).append(item)
    scripts = {
        target: expected_scripts([item.reference or "" for item in items])
        for target, items in by_target.items()
    }
    repeated = {target: same_answers(items) for target, items in by_target.items()}
    return [
        frozenset(_fired(item, scripts[item.target_language], repeated[item.target_language]))
        for item in predictions
    ]


def rates(fired: Sequence[frozenset[str]]) -> dict[str, float]:
    """The share of rows, 0 to 1, that each guard fired on, the language test on references, any."""
    columns = (EMPTY, LANGUAGE, REFERENCES, *GUARDS[2:])
    counts = Counter(name for row in fired for name in row)
    counts["any"] = sum(not row.isdisjoint(GUARDS) for row in fired)
    return {name: counts[name] / len(fired) for name in (*columns, "any")}


def guard_signature() -> str:
    """The rules in one line, to stand beside the rates."""
    by = "script only (pip install py3langid for Latin scripts)"
    if _identifier():
        by = f"script+py3langid {version('py3langid')} p>={CONFIDENCE} letters>={LETTERS}"
    return (
        f"guards|language:{by}|copy:{COPY_RATIO}|loop:{REPEATS}x,{REPEATED_CHARACTERS}ch"
        f"|same answer:{SAME_REFERENCES} references"
        f"|length:{LENGTH_FACTOR:g}x of reference,{LENGTH_CHARACTERS}ch"
    )


def expected_scripts(references: Sequence[str]) -> frozenset[str]:
    """Scripts with at least SCRIPT_SHARE of the references' letters: {"CJK"}, {"LATIN"}, …"""
    counts: Counter[str] = Counter()
    for reference in references:
        counts.update(map(_script, _letters(reference)))
    least = SCRIPT_SHARE * sum(counts.values())
    return frozenset(script for script, count in counts.items() if count >= least)


def same_answers(items: Sequence[Prediction]) -> frozenset[str]:
    """The answers, as `_answer` writes them, to rows of SAME_REFERENCES different references.

    References are told apart by letters and digits too. Recordings of one sentence share theirs,
    so that answering them alike is no collapse.
    """
    references: dict[str, set[str]] = {}
    for item in items:
        if item.prediction.strip() and item.reference:
            references.setdefault(_answer(item.prediction), set()).add(_answer(item.reference))
    return frozenset(text for text, found in references.items() if len(found) >= SAME_REFERENCES)


def in_wrong_language(text: str, target_language: str, scripts: frozenset[str]) -> bool:
    """By script, and by py3langid where it is installed and knows the target language."""
    letters = _letters(text)
    if not letters or not scripts:
        return False
    if sum(_script(letter) in scripts for letter in letters) < len(letters) / 2:
        return True
    identifier, code = _identifier(), primary_language(target_language)
    alike = next((group for group in _ALIKE if code in group), {code})
    if identifier is None or len(letters) < LETTERS or alike.isdisjoint(identifier.labels):
        return False
    language, probability = identifier.classify(" ".join(text.split()))
    return language not in alike and probability >= CONFIDENCE


def copies(prediction: str, transcript: str | None) -> bool:
    """Whether letters and digits equal the transcript's, or nearly (COPY_RATIO)."""
    written, said = _bare(prediction), _bare(transcript or "")
    if not written or not said:
        return False
    matcher = SequenceMatcher(None, written, said, autojunk=False)
    bounds = matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio
    return all(bound() >= COPY_RATIO for bound in bounds)


def loops(text: str) -> bool:
    """Whether a unit with a letter in it stands REPEATS times in a row."""
    spaced = " ".join(text.casefold().split()) + " "
    return any(
        len(found.group()) >= REPEATED_CHARACTERS and _letters(found.group(1))
        for found in _LOOP.finditer(spaced)
    )


def _fired(item: Prediction, scripts: frozenset[str], repeated: frozenset[str]) -> list[str]:
    text, reference, target = item.prediction, item.reference or "", item.target_language
    reference_foreign = in_wrong_language(reference, target, scripts)
    found = [REFERENCES] if reference_foreign else []
    if not text.strip():
        return [*found, EMPTY]
    if not reference_foreign and in_wrong_language(text, target, scripts):
        found.append(LANGUAGE)
    if not transcribes(item) and copies(text, item.transcript):
        found += [] if copies(reference, item.transcript) else [COPIED]
    if loops(text) and not loops(reference):
        found.append(REPETITION)
    if _answer(text) in repeated:
        found.append(SAME)
    if _odd_length(text, reference):
        found.append(LENGTH)
    if _REFUSAL.search(text) and not _REFUSAL.search(reference):
        found.append(REFUSAL)
    return found


def _odd_length(text: str, reference: str) -> bool:
    """By characters other than white space; never of a row without a reference: it has no ratio."""
    size, expected = len("".join(text.split())), len("".join(reference.split()))
    inside = expected / LENGTH_FACTOR <= size <= expected * LENGTH_FACTOR
    return expected > 0 and not inside and abs(size - expected) >= LENGTH_CHARACTERS


def _answer(text: str) -> str:
    """Its letters and digits; of a text without any ("…") all but white space."""
    return _bare(text) or "".join(text.split())


def _bare(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def _letters(text: str) -> list[str]:
    return [c for c in unicodedata.normalize("NFKC", text) if c.isalpha()]


@lru_cache(maxsize=1 << 16)
def _script(letter: str) -> str:
    """The first word of the letter's Unicode name, which is its script: CJK, LATIN, HANGUL, …"""
    return unicodedata.name(letter, "?").partition(" ")[0]


@lru_cache(maxsize=1)
def _identifier() -> Any:
    """py3langid's (142 languages, offline, its model in the package, BSD-3-Clause); None where it
    is not installed: languages of one script are then not told apart."""
    from importlib.util import find_spec

    if not find_spec("py3langid"):
        return None
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
