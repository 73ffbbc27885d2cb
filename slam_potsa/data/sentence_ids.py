"""Sentence ids for corpora that have none: the same text in the same language is one sentence."""

from __future__ import annotations

import hashlib
import unicodedata

HEX_DIGITS = 16  # 64 bits: among a million sentences two collide with probability 3e-8


def text_sentence_id(text: str, language: str) -> str:
    """`<language>-<hash of the normalised text>`: equal for texts that are read aloud the same.

    >>> text_sentence_id("She'll go.", "en") == text_sentence_id("“SHE’LL  go”", "en")
    True
    """
    digest = hashlib.sha256(normalised(text).encode("utf-8")).hexdigest()
    return f"{language}-{digest[:HEX_DIGITS]}"


def normalised(text: str) -> str:
    """NFKC, no case, punctuation as spaces, single spaces. Text of punctuation alone stays.

    Marks are kept: in Tamil or Thai they are vowels, and dropping them would merge words.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    spaced = "".join(
        " " if unicodedata.category(character)[0] in "PZC" else character for character in folded
    )
    return " ".join(spaced.split()) or folded.strip()
