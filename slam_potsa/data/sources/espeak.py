"""CLDR's dates, measures, amounts and places, spoken by espeak-ng: for breadth, not for claims.

What `prepare announcements --synthetic` has in place of recorded prompts: the same meaning in
twelve languages, worded by the Unicode CLDR (package babel), read aloud by the program espeak-ng.
Every row is marked `"synthetic": "audio"`, and so is every score on it.
"""

from __future__ import annotations

import io
import random
import shutil
import subprocess
from collections.abc import Iterator
from datetime import date
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile
import soxr

from slam_potsa.data.audio import SAMPLE_RATE
from slam_potsa.errors import InputError

LANGUAGES = ("de", "en", "es", "fr", "hi", "id", "it", "pl", "pt", "ru", "tr", "vi")
VOICES = {"en": "en-us", "fr": "fr-fr", "pt": "pt-br"}  # others are called as their language
UNITS = ("length-kilometer", "mass-kilogram", "volume-liter", "duration-minute", "angle-degree")
CURRENCIES = ("CNY", "EUR", "INR", "JPY", "TRY", "USD")
PLACES = ("BR", "CN", "DE", "EG", "ES", "FR", "ID", "IN", "JP", "KE", "PL", "VN")
DAYS = (date(2020, 1, 1).toordinal(), date(2030, 1, 1).toordinal())
CREDITS = """The recordings in this folder are synthetic: texts of the Unicode CLDR (Unicode License
v3), by the Python package babel, spoken by espeak-ng (GPL-3).
"""
Sentence = tuple[tuple[Any, ...], ...]  # of each clause the kind, and what it is about


def sentences(seed: int, clauses: int = 3) -> Iterator[Sentence]:
    """Sentences of one to `clauses` clauses, no two alike; the same seed gives the same ones."""
    rng, known = random.Random(f"synthetic:{seed}"), set()
    kinds = {
        "day": lambda: (rng.randrange(*DAYS),),
        "measure": lambda: (rng.randint(2, 999), rng.choice(UNITS)),
        "amount": lambda: (rng.randint(2, 9999), rng.choice(CURRENCIES)),
        "places": lambda: rng.sample(PLACES, 2),
    }
    while True:
        chosen = rng.sample(sorted(kinds), rng.randint(1, clauses))
        sentence = tuple((kind, *kinds[kind]()) for kind in chosen)
        if sentence not in known:
            known.add(sentence)
            yield sentence


def said(sentence: Sentence, language: str) -> str:
    """With digits: `Friday, March 6, 2026. 17 kilometers.`"""
    from babel import Locale, dates, lists, numbers, units

    locale, texts = Locale(language), []
    for clause in sentence:
        match clause:
            case "day", day:
                texts.append(dates.format_date(date.fromordinal(day), "full", locale))
            case "measure", count, unit:
                texts.append(units.format_unit(count, unit, locale=locale))
            case "amount", count, currency:
                how = {"format": "#,##0", "format_type": "name", "currency_digits": False}
                texts.append(numbers.format_currency(count, currency, locale=locale, **how))
            case "places", *places:
                names = [locale.territories[place] for place in places]
                texts.append(lists.format_list(names, locale=locale))
    return " ".join(f"{text[0].upper()}{text[1:].rstrip('.')}." for text in texts)


english = partial(said, language="en")


class Voice:
    """espeak-ng's of one language, with what `announcements` asks of a recorded one."""

    synthetic = "audio"

    def __init__(self, language: str):
        self.name = f"{language}-espeak"
        self.speaker = SimpleNamespace(language=language, held_out=False)

    def say(self, sentence: Sentence) -> tuple[list[str], str]:
        text = said(sentence, self.speaker.language)
        return [text], text

    def lacking(self, sentence: Sentence) -> set[str]:
        return set()

    def render(self, texts: list[str], seed: str) -> np.ndarray:
        """[samples] at 16 kHz. Raises InputError where espeak-ng says nothing."""
        voice = VOICES.get(self.speaker.language, self.speaker.language)
        command = ["espeak-ng", "-v", voice, "--stdin", "--stdout"]
        run = subprocess.run(command, input=" ".join(texts).encode(), capture_output=True)
        if run.returncode or not run.stdout:
            raise InputError(f"{' '.join(command)}: {run.stderr.decode(errors='replace').strip()}")
        samples, rate = soundfile.read(io.BytesIO(run.stdout), dtype="float32")
        return soxr.resample(samples, rate, SAMPLE_RATE)


def lacking() -> Iterator[str]:
    """What is to be installed, where it is not."""
    try:
        import babel  # noqa: F401
    except ImportError:
        yield "babel is not installed: pip install 'slam-potsa[synthetic]'"
    if shutil.which("espeak-ng") is None:
        yield "espeak-ng is not on this machine: install it, such as by `apt-get install espeak-ng`"
