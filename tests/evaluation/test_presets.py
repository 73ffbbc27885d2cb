"""What each preset chooses."""

import pytest

from slam_potsa.errors import InputError
from slam_potsa.evaluation.presets import PRESETS, find_preset


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("potsa", {"zh": "zh", "yue": "zh", "ja": "ja-mecab", "ko": "ko-mecab", "de": "13a"}),
        ("cot-st", {"zh": "zh", "yue": "13a", "ja": "ja-mecab", "ko": "13a", "th": "13a"}),
        ("llm-srt", dict.fromkeys(("zh", "yue", "ja", "ko", "th", "lo", "my"), "char")),
        ("part", {"zh": "char", "ja": "char", "ko": "13a", "sv": "13a"}),
        ("seamless", {"zh": "char", "ja": "char", "ko": "13a", "yue": "13a", "my": "char"}),
    ],
)
def test_tokenisers(name, expected):
    convention = find_preset(name).convention
    assert {code: convention.tokenizer(code) for code in expected} == expected
    for code in ("zh-CN", "zh_tw", "cmn"):
        assert convention.tokenizer(code) == expected["zh"]
    assert convention.tokenizer("km") == ("char" if name == "potsa" else "13a")


@pytest.mark.parametrize(
    ("name", "characters", "words"),
    [
        ("potsa", "zh ja ko th lo my km yue", "en fr"),
        ("cot-st", "", "zh ja ko"),
        ("llm-srt", "zh ja ko th yue", "lo my km en"),
        ("part", "zh ja ko yue", "th en"),
        ("seamless", "zh ja th lo my", "ko yue km en"),
    ],
)
def test_error_rates(name, characters, words):
    rate = find_preset(name).convention.error_rate
    assert all(rate.unit(code) == "CER" for code in characters.split())
    assert all(rate.unit(code) == "WER" for code in words.split())
    assert rate.english == (name not in ("cot-st", "llm-srt"))
    ours = name == "potsa"
    assert (rate.keep_marks, rate.count_spaces) == (ours, not ours)


def test_what_each_preset_adds():
    assert PRESETS["llm-srt"].convention.more_bleu == {"spBLEU": "flores200"}
    assert [name for name, preset in PRESETS.items() if preset.comet] == ["llm-srt"]
    for name, preset in PRESETS.items():
        assert preset.name == name and len(preset.note) > 80
        assert preset.convention.lowercase == (name == "cot-st")
        assert preset.convention.chrf_name == "chrF++"


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(InputError, match="found 'cotst'.*did you mean 'cot-st'"):
        find_preset("cotst")
