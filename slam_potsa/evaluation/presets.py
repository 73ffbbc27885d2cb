"""How text is compared, and how the projects of this field do it: `score FILE --preset llm-srt`.

Every preset adds chrF++, which none of the projects reports for speech translation. Sources are in
its note, which `score` prints: a score that is to be compared says what it follows.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError

# sacrebleu's own choice for zh, ja and ko (BLEU._TOKENIZER_MAP). It has none for the other
# languages written without spaces, where words as 13a sees them are whole clauses: Cantonese takes
# the Chinese tokeniser, the rest single characters.
TOKENIZERS: Mapping[str, str] = {
    "zh": "zh",
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
CHARACTER_LANGUAGES = frozenset(TOKENIZERS)
SPBLEU = {"spBLEU": "flores200"}


def primary_language(code: str) -> str:
    """The language of a code: "zh-CN", "ZH_cn" and "cmn" -> "zh"."""
    code = code.lower().replace("_", "-").split("-")[0]
    return "zh" if code == "cmn" else code


def transcribes(item: Prediction) -> bool:
    """Speech recognition rather than translation: it is written in the language that is spoken."""
    return primary_language(item.language) == primary_language(item.target_language)


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
        return "CER" if primary_language(language) in self.characters else "WER"


@dataclass(frozen=True)
class Convention:
    """How text is compared. The papers differ in it, so every score carries its signature.

    Attributes:
        lowercase: of BLEU and chrF. sacrebleu's default is cased; CoT-ST lowercases.
        tokenizers: target language -> sacrebleu's tokeniser; "13a" for those it does not name.
        chrf_word_order: 0 is chrF, 2 is chrF++.
        more_bleu: further BLEU columns, name -> tokeniser for every language: {"spBLEU":
            "flores200"}.
        error_rate: of the rows that transcribe (target language = spoken language); None leaves it
            out.
    """

    lowercase: bool = False
    tokenizers: Mapping[str, str] = field(default_factory=lambda: TOKENIZERS)
    chrf_word_order: int = 0
    more_bleu: Mapping[str, str] = field(default_factory=dict)
    error_rate: ErrorRate | None = None

    def tokenizer(self, target_language: str) -> str:
        """The name of sacrebleu's tokeniser."""
        return self.tokenizers.get(primary_language(target_language), "13a")

    @property
    def chrf_name(self) -> str:
        return "chrF++" if self.chrf_word_order == 2 else "chrF"


@dataclass(frozen=True)
class Preset:
    """A project's convention.

    Attributes:
        name: as `--preset` takes it.
        convention: for `score`.
        note: where it is from, and what in it is our choice.
        comet: the COMET model that the project reports, on a scale of 100; None where it has none.
    """

    name: str
    convention: Convention
    note: str
    comet: str | None = None


def _as_scripts(languages: str, english: bool = True) -> ErrorRate:
    """As the projects' scripts count errors, which our own convention does not."""
    return ErrorRate(frozenset(languages.split()), english, keep_marks=False, count_spaces=True)


def _characters(languages: str) -> dict[str, str]:
    return dict.fromkeys(languages.split(), "char")


_ALL = (
    Preset(
        "potsa",
        Convention(chrf_word_order=2, more_bleu={"BLEU char": "char"}, error_rate=ErrorRate()),
        "The POTSA paper says BLEU on the FLEURS test sets into Chinese, averaged over languages, "
        "and no more: neither tokeniser nor case nor what its intervals are taken over. Ours: the "
        "tokeniser that sacreBLEU has for the target (zh), cased, raw references; BLEU char "
        "beside it, as LLM-SRT and PART split Chinese; chrF++; the error rate, with vowel signs "
        "(marks) kept and white space not counted in CER.",
    ),
    Preset(
        "cot-st",
        Convention(
            lowercase=True,
            tokenizers={"zh": "zh", "ja": "ja-mecab"},
            chrf_word_order=2,
            error_rate=_as_scripts("", english=False),
        ),
        "CoT-ST, after SLAM-LLM's examples/st_covost2/test_werbleu.py: sacreBLEU, lowercase, zh, "
        "ja-mecab or 13a; WER in words for every language after Whisper's basic normaliser, "
        "references that it empties left out. chrF++ is ours.",
    ),
    Preset(
        "llm-srt",
        Convention(
            tokenizers=_characters("zh yue ja ko th lo my"),
            chrf_word_order=2,
            more_bleu=SPBLEU,
            error_rate=_as_scripts("zh yue ja ko th", english=False),
        ),
        "LLM-SRT, after its eval/test_metric_n.py: sacreBLEU, cased, char or 13a; spBLEU by "
        "flores200; COMET wmt22-comet-da times 100 (its script in half precision, here as loaded); "
        "WER or CER after Whisper's basic normaliser. chrF++ is ours.",
        comet="Unbabel/wmt22-comet-da",
    ),
    Preset(
        "part",
        Convention(
            tokenizers=_characters("zh ja"),
            chrf_word_order=2,
            error_rate=_as_scripts("zh yue ja ko"),
        ),
        "PART, after its paper (no code is public): BLEU of characters for Chinese and Japanese, "
        "13a for the rest; CER for zh, ja, ko and yue, else WER, after Whisper's normaliser. The "
        "paper does not say the case (here cased) nor which normaliser (here the English one for "
        "English, the basic one for the rest). chrF++ is ours.",
    ),
    Preset(
        "seamless",
        Convention(
            tokenizers=_characters("zh ja th lo my"),
            chrf_word_order=2,
            error_rate=_as_scripts("zh ja th lo my"),
        ),
        "Seamless, after seamless_communication's cli/eval_utils/compute_metrics.py: sacreBLEU on "
        "raw references, cased, char for zh ja th lo my (Korean and Cantonese are 13a), else 13a; "
        "CER for the same languages, else WER, after Whisper's English normaliser for English and "
        "the basic one for the rest. Its chrF++ is for text translation only.",
    ),
)
PRESETS = {preset.name: preset for preset in _ALL}


def find_preset(name: str) -> Preset:
    """The preset of this name; InputError names the ones there are."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"preset: found {name!r}, expected one of {', '.join(PRESETS)}{hint}")
    return PRESETS[name]
