"""How text is compared: case, tokenisers, and the unit of the error rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from slam_potsa.evaluation.codes import primary

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
# Languages whose speech recognition is measured in characters (CER), the others in words (WER).
# Korean has spaces, but PART and LLM-SRT count its characters too.
CHARACTER_LANGUAGES = frozenset({"zh", "cmn", "yue", "ja", "ko", "th", "lo", "km", "my"})


@dataclass(frozen=True)
class ErrorRate:
    """The error rate of speech recognition: 100 · (S + D + I) / N, in words or in characters.

    Attributes:
        characters: languages whose N, S, D and I count characters (CER); the others count words.
        english: English goes through Whisper's English normaliser (numbers as digits, contractions
            spelled out, American spelling); otherwise through the basic one, as all languages do.
        keep_marks: the basic normaliser keeps Unicode's marks (category M). Without them it drops
            the vowel signs of Hindi, Thai and others, and words that differ in one compare equal.
        count_spaces: CER counts white space. The normaliser makes a space of every punctuation
            mark, so that where it is counted punctuation is.
    """

    characters: frozenset[str] = CHARACTER_LANGUAGES
    english: bool = True
    keep_marks: bool = True
    count_spaces: bool = False

    def unit(self, language: str) -> str:
        """ "CER" or "WER"."""
        return "CER" if primary(language) in self.characters else "WER"


@dataclass(frozen=True)
class Convention:
    """How text is compared. The papers differ in it, so every score carries its signature.

    Attributes:
        lowercase: of BLEU and chrF. sacrebleu's default is cased; CoT-ST lowercases.
        tokenizers: target language -> sacrebleu's tokeniser.
        default_tokenizer: of the target languages that `tokenizers` does not name.
        chrf_word_order: 0 is chrF, 2 is chrF++.
        more_bleu: further BLEU columns, name -> tokeniser for every language: {"spBLEU":
            "flores200"}.
        error_rate: of the rows that transcribe (target language = spoken language); None leaves it
            out.
    """

    lowercase: bool = False
    tokenizers: Mapping[str, str] = field(default_factory=lambda: TOKENIZERS)
    default_tokenizer: str = "13a"
    chrf_word_order: int = 0
    more_bleu: Mapping[str, str] = field(default_factory=dict)
    error_rate: ErrorRate | None = None

    def tokenizer(self, target_language: str) -> str:
        """The name of sacrebleu's tokeniser; "zh-CN" and "zh_cn" are looked up as "zh"."""
        code = target_language.lower().replace("_", "-")
        found = self.tokenizers.get(code)
        return found or self.tokenizers.get(primary(code), self.default_tokenizer)
