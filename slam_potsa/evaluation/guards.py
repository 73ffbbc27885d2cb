"""Outputs that are broken rather than bad, and how often: what a corpus's BLEU does not tell.

A guard is a test of one row. It says nothing about quality, and a row that passes may be wrong. One
that fires on the reference too (a sentence of names, a song's refrain) does not count against the
prediction. How often the language test does so is the column "of references": its false alarms.
The thresholds are ours; the papers do not count these failures, which users report.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation.text_metrics import primary_language, transcribes
from slam_potsa.text import MARKUP

SCRIPT_SHARE = 0.2  # of the references' letters: from here on a script belongs to the language
CONFIDENCE, LETTERS = 0.8, 10  # of the language identifier; shorter texts are not judged
COPY_RATIO = 0.9
REPEATS, REPEATED_CHARACTERS = 4, 10
SAME_REFERENCES = 3
LENGTH_FACTOR, LENGTH_CHARACTERS = 2.0, 10
HAN = 2  # characters; names have some of the other set

# Languages that an identifier cannot be expected to tell apart in one sentence.
_ALIKE = ("zh yue wuu", "no nb nn", "hr bs sr", "id ms", "tl fil", "ar ary arz", "uz uzs")
_LOOP = re.compile(rf"(.{{1,100}}?)\1{{{REPEATS - 1},}}")


class Outputs(NamedTuple):
    """What all rows into one language say: their references' scripts, and answers to too many."""

    scripts: set[str]
    repeated: set[str]


def in_wrong_language(text: str, item: Prediction, outputs: Outputs) -> bool:
    """Less than half of the letters are in the target's scripts, Chinese is in the other set of
    characters than its reference, or py3langid takes the text for another language with
    probability >= CONFIDENCE (from LETTERS letters on)."""
    letters = _letters(text)
    if not letters or not outputs.scripts:
        return False
    if sum(_script(letter) in outputs.scripts for letter in letters) < len(letters) / 2:
        return True
    code = primary_language(item.target_language)
    if code in ("zh", "yue") and _han(text) * _han(item.reference or "") < 0:
        return True
    identifier = _identifier()
    alike = next((group.split() for group in _ALIKE if code in group.split()), [code])
    if not identifier or len(letters) < LETTERS or set(alike).isdisjoint(identifier.labels):
        return False
    language, probability = identifier.classify(" ".join(text.split()))
    return language not in alike and probability >= CONFIDENCE


def copies(text: str, item: Prediction, outputs: Outputs) -> bool:
    """Letters and digits equal the transcript's by a ratio >= COPY_RATIO (difflib), though another
    language was asked for."""
    written, said = _bare(text), _bare(item.transcript or "")
    if not written or not said or transcribes(item):
        return False
    matcher = SequenceMatcher(None, written, said, autojunk=False)
    bounds = matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio
    return all(bound() >= COPY_RATIO for bound in bounds)


def loops(text: str, item: Prediction, outputs: Outputs) -> bool:
    """A unit of 1 to 100 characters, a letter among them, stands REPEATS times in a row or more,
    over at least REPEATED_CHARACTERS."""
    found = _LOOP.finditer(" ".join(text.casefold().split()) + " ")
    return any(len(m.group()) >= REPEATED_CHARACTERS and _letters(m.group(1)) for m in found)


def has_odd_length(text: str, item: Prediction, outputs: Outputs) -> bool:
    """Characters / those of the reference are above LENGTH_FACTOR or below its inverse, and off by
    LENGTH_CHARACTERS. (The band is not around the system's own median, which a system that always
    writes too little would move.)"""
    size, expected = (len("".join(t.split())) for t in (text, item.reference or ""))
    inside = expected / LENGTH_FACTOR <= size <= expected * LENGTH_FACTOR
    return size > 0 and expected > 0 and not inside and abs(size - expected) >= LENGTH_CHARACTERS


def has_other_form(text: str, item: Prediction, outputs: Outputs) -> bool:
    """A word looks as one of the reference's and is none: one is composed (NFC), the other not.
    BLEU counts it as wrong."""
    words = {*(item.reference or "").split()}
    composed = {unicodedata.normalize("NFC", word) for word in words}
    return any(unicodedata.normalize("NFC", w) in composed for w in {*text.split()} - words)


LANGUAGE, SAME = "wrong language", "same answer"
REFERENCES = "of references"  # the language test on the references: its false alarms
BARE = "no reference"  # there is nothing to compare with; no fault of the prediction
GUARDS: Mapping[str, Callable[[str, Prediction, Outputs], bool]] = {
    "empty": lambda text, item, outputs: not text.strip(),
    LANGUAGE: in_wrong_language,
    "copied source": copies,
    "repetition": loops,
    SAME: lambda text, item, outputs: _answer(text) in outputs.repeated,
    "length": has_odd_length,
    "cut off": lambda text, item, outputs: bool(item.cut),
    "unicode form": has_other_form,
    "markup": lambda text, item, outputs: bool(MARKUP.search(text)),
}
# An empty reference excuses nothing, nor one that everything is answered with.
_NO_EXCUSE = ("empty", SAME, "cut off")
COLUMNS = ["empty", LANGUAGE, REFERENCES, *list(GUARDS)[2:], "any", BARE]


def watch(predictions: Sequence[Prediction]) -> list[list[str]]:
    """The guards that fire on each row of one system's output, and REFERENCES."""
    targets = {item.target_language for item in predictions}
    outputs = {t: _outputs([i for i in predictions if i.target_language == t]) for t in targets}
    return [_fired(item, outputs[item.target_language]) for item in predictions]


def rates(fired: Sequence[Sequence[str]]) -> dict[str, float]:
    """The share of rows, 0 to 1, that each guard fired on, the language test on references, any."""
    counts = Counter(name for row in fired for name in row)
    counts["any"] = sum(not GUARDS.keys().isdisjoint(row) for row in fired)
    return {name: counts[name] / len(fired) for name in COLUMNS}


def guard_signature() -> str:
    """The rules in one line, to stand beside the rates."""
    by = "script only (pip install py3langid for Latin scripts)"
    if _identifier():
        by = f"script+py3langid {version('py3langid')} p>={CONFIDENCE} letters>={LETTERS}"
    return (
        f"guards|language:{by}|copy:{COPY_RATIO}|loop:{REPEATS}x,{REPEATED_CHARACTERS}ch"
        f"|same answer:{SAME_REFERENCES} references"
        f"|length:{LENGTH_FACTOR:g}x of reference,{LENGTH_CHARACTERS}ch"
        f"|han:gb2312 against big5,{HAN}|cut|form|markup"
    )


def _outputs(items: Sequence[Prediction]) -> Outputs:
    scripts = Counter(_script(c) for item in items for c in _letters(item.reference or ""))
    least = SCRIPT_SHARE * sum(scripts.values())
    # References are told apart by letters and digits too: recordings of one sentence share theirs,
    # and answering them alike is no collapse.
    answered: dict[str, set[str]] = {}
    for item in items:
        if item.prediction.strip() and item.reference:
            answered.setdefault(_answer(item.prediction), set()).add(_answer(item.reference))
    repeated = {text for text, found in answered.items() if len(found) >= SAME_REFERENCES}
    return Outputs({script for script, count in scripts.items() if count >= least}, repeated)


def _fired(item: Prediction, outputs: Outputs) -> list[str]:
    reference = item.reference or ""
    found = [REFERENCES] if in_wrong_language(reference, item, outputs) else []
    found += [] if reference.strip() else [BARE]
    for name, guard in GUARDS.items():
        if guard(item.prediction, item, outputs) and (
            name in _NO_EXCUSE or not guard(reference, item, outputs)
        ):
            found.append(name)
    return found


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


def _han(text: str) -> int:
    """1: HAN characters more that only Simplified Chinese has (in GB 2312, not in Big5) than only
    Traditional has; -1: the reverse; 0: neither."""
    han = [letter for letter in _letters(text) if _script(letter) == "CJK"]
    more = sum(_encodes(letter, "gb2312") - _encodes(letter, "big5") for letter in han)
    return (more >= HAN) - (more <= -HAN)


@lru_cache(maxsize=1 << 16)
def _encodes(letter: str, charset: str) -> bool:
    return bool(letter.encode(charset, "ignore"))


@lru_cache(maxsize=1)
def _identifier() -> Any:
    """py3langid's (142 languages, offline, its model in the package, BSD-3-Clause); None where it
    is not installed: languages of one script are then not told apart."""
    if not find_spec("py3langid"):
        return None
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
