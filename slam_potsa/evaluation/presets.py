"""How text is compared: our own convention, and those of the field's projects (`presets.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError

# sacrebleu's own choice for zh, ja and ko (BLEU._TOKENIZER_MAP). It has none for the other
# languages written without spaces, where words as 13a sees them are whole clauses: Cantonese takes
# the Chinese tokeniser, the rest single characters.
TOKENIZERS = {"zh": "zh", "yue": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}
TOKENIZERS |= dict.fromkeys(("th", "lo", "km", "my"), "char")


@dataclass(frozen=True)
class ErrorRate:
    """The error rate of speech recognition: 100 · (S + D + I) / N, in words or in characters.

    Attributes:
        characters: languages whose N, S, D and I count characters (CER); the others count words.
            Korean has spaces, but PART and LLM-SRT count its characters too.
        english: English goes through Whisper's English normaliser (numbers as digits, contractions
            spelled out, American spelling); otherwise through the basic one, as all languages do.
        keep_marks: the basic normaliser keeps Unicode's marks (category M). Without them it drops
            the vowel signs of Hindi, Thai and others, and words that differ in one compare equal.
        count_spaces: CER counts white space. The normaliser makes a space of every punctuation
            mark, so that where it is counted punctuation is.
    """

    characters: Sequence[str] = tuple(TOKENIZERS)
    english: bool = True
    keep_marks: bool = True
    count_spaces: bool = False

    def unit(self, language: str) -> str:
        """ "CER" or "WER"."""
        return "CER" if primary_language(language) in self.characters else "WER"


@dataclass(frozen=True)
class Convention:
    """How text is compared. The papers differ in it, so every score carries its signature.

    Attributes:
        lowercase: of BLEU and chrF. sacrebleu's default is cased; CoT-ST lowercases.
        tokenizers: target language -> sacrebleu's tokeniser; "13a" for those it does not name.
        chrf_word_order: 0 is chrF, 2 is chrF++.
        more_bleu: further BLEU columns, name -> tokeniser for every language.
        error_rate: None leaves it out.
        name, note: of a preset, as `--preset` takes it; where it is from, what in it is ours.
    """

    lowercase: bool = False
    tokenizers: Mapping[str, str] = field(default_factory=lambda: TOKENIZERS)
    chrf_word_order: int = 0
    more_bleu: Mapping[str, str] = field(default_factory=dict)
    error_rate: ErrorRate | None = None
    name: str | None = None
    note: str = ""

    def tokenizer(self, target_language: str) -> str:
        """The name of sacrebleu's tokeniser."""
        return self.tokenizers.get(primary_language(target_language), "13a")

    @property
    def chrf_name(self) -> str:
        return "chrF++" if self.chrf_word_order == 2 else "chrF"


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
