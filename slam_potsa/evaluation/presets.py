"""How the projects of this field score, by name: `slam-potsa score FILE --preset llm-srt`.

| preset   | BLEU                                     | case  | besides       | CER, else WER     |
| -------- | ---------------------------------------- | ----- | ------------- | ----------------- |
| potsa    | zh for Chinese, else the default         | cased | BLEU char     | our default       |
| cot-st   | zh, ja-mecab, else 13a                   | lower |               | none              |
| llm-srt  | char for zh yue ja ko th lo my, else 13a | cased | spBLEU, COMET | zh yue ja ko th   |
| part     | char for zh ja, else 13a                 | cased |               | zh yue ja ko      |
| seamless | char for zh ja th lo my, else 13a        | cased |               | zh ja th lo my    |

All of them add chrF++, which none of the projects reports for speech translation. Sources are in
each preset's note, which `score` prints: a score that is to be compared says what it follows.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from slam_potsa.errors import InputError
from slam_potsa.evaluation.scores.conventions import TOKENIZERS, Convention, ErrorRate

SPBLEU = {"spBLEU": "flores200"}
COMET = "Unbabel/wmt22-comet-da"
# What the scripts of the projects do; our own convention does neither.
AS_SCRIPTS = {"keep_marks": False, "count_spaces": True}


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


def _characters(codes: Iterable[str]) -> dict[str, str]:
    """Target language -> "char", under Mandarin's two codes."""
    return {code: "char" for code in _mandarin(codes)}


def _mandarin(codes: Iterable[str]) -> frozenset[str]:
    codes = frozenset(codes)
    return codes | ({"cmn"} if "zh" in codes else set())


_ALL = (
    Preset(
        "potsa",
        Convention(
            tokenizers=TOKENIZERS,
            chrf_word_order=2,
            more_bleu={"BLEU char": "char"},
            error_rate=ErrorRate(),
        ),
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
            tokenizers={"zh": "zh", "cmn": "zh", "ja": "ja-mecab"},
            chrf_word_order=2,
            error_rate=ErrorRate(characters=frozenset(), english=False, **AS_SCRIPTS),
        ),
        "CoT-ST, after SLAM-LLM's examples/st_covost2/test_werbleu.py: sacreBLEU, lowercase, zh, "
        "ja-mecab or 13a; WER in words for every language after Whisper's basic normaliser, "
        "references that it empties left out. chrF++ is ours.",
    ),
    Preset(
        "llm-srt",
        Convention(
            tokenizers=_characters(("zh", "yue", "ja", "ko", "th", "lo", "my")),
            chrf_word_order=2,
            more_bleu=SPBLEU,
            error_rate=ErrorRate(
                _mandarin(("zh", "yue", "ja", "ko", "th")), english=False, **AS_SCRIPTS
            ),
        ),
        "LLM-SRT, after its eval/test_metric_n.py: sacreBLEU, cased, char or 13a; spBLEU by "
        "flores200; COMET wmt22-comet-da times 100 (its script in half precision, here as loaded); "
        "WER or CER after Whisper's basic normaliser. chrF++ is ours.",
        COMET,
    ),
    Preset(
        "part",
        Convention(
            tokenizers=_characters(("zh", "ja")),
            chrf_word_order=2,
            error_rate=ErrorRate(_mandarin(("zh", "yue", "ja", "ko")), **AS_SCRIPTS),
        ),
        "PART, after its paper (no code is public): BLEU of characters for Chinese and Japanese, "
        "13a for the rest; CER for zh, ja, ko and yue, else WER, after Whisper's normaliser. The "
        "paper does not say the case (here cased) nor which normaliser (here the English one for "
        "English, the basic one for the rest). chrF++ is ours.",
    ),
    Preset(
        "seamless",
        Convention(
            tokenizers=_characters(("zh", "ja", "th", "lo", "my")),
            chrf_word_order=2,
            error_rate=ErrorRate(_mandarin(("zh", "ja", "th", "lo", "my")), **AS_SCRIPTS),
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
