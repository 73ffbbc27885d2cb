"""Each preset's numbers are those of the commands it prints, run apart."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from slam_potsa.errors import InputError
from slam_potsa.evaluation.dump import dump
from slam_potsa.evaluation.file_scores import PredictionFile, ScoreRequest
from slam_potsa.evaluation.presets import PRESETS, find_preset
from slam_potsa.evaluation.scores import score
from tests.support.predictions import make


def run(command):
    """The JSON that a printed sacrebleu command gives, as a list of metrics."""
    seed, *words = shlex.split(command)
    environment = os.environ | dict([seed.split("=")])
    words = [sys.executable if word == "python" else word for word in words]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(done.stdout)
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize(
    ("name", "target", "tokenizer"),
    [
        ("potsa", "zh", "zh"),
        ("cot-st", "zh", "zh"),
        ("part", "zh", "char"),
        ("seamless", "ko", "13a"),
    ],
)
def test_scores_equal_their_printed_commands(tmp_path, name, target, tokenizer):
    convention = PRESETS[name].convention
    items = make(["fr"], target=target)
    row = score(items, bootstrap=30, convention=convention).row("fr")
    asked = ScoreRequest(convention, bootstrap=30)
    printed = dump(tmp_path, PredictionFile(tmp_path / "x", items), asked)
    commands = printed.removeprefix("# fr\n").split("\n#")[0].splitlines()
    theirs = [metric for command in commands for metric in run(command)]
    ours = list(row.scores.values())
    assert len(theirs) == len(ours) == 2 + len(convention.more_bleu)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.value == pytest.approx(other["score"], abs=1e-4)
        assert mine.half_width == pytest.approx(other["confidence_var"], abs=1e-4)
        assert mine.signature == other["signature"]
    assert f"tok:{tokenizer}|" in row.bleu.signature and "nw:2|" in row.chrf.signature
    assert ("case:lc" in row.bleu.signature) == (name == "cot-st")


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
    assert convention.tokenizer("zh-CN") == convention.tokenizer("cmn") == expected["zh"]
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
def test_units_of_the_error_rate(name, characters, words):
    rate = find_preset(name).convention.error_rate
    assert all(rate.unit(code) == "CER" for code in characters.split())
    assert all(rate.unit(code) == "WER" for code in words.split())
    assert rate.english == (name not in ("cot-st", "llm-srt"))
    assert (rate.keep_marks, rate.count_spaces) == (
        (True, False) if name == "potsa" else (False, True)
    )


def test_what_each_preset_adds():
    assert PRESETS["llm-srt"].convention.more_bleu == {"spBLEU": "flores200"}
    assert PRESETS["llm-srt"].comet == "Unbabel/wmt22-comet-da"
    assert [name for name, preset in PRESETS.items() if preset.comet] == ["llm-srt"]
    assert "no more" in PRESETS["potsa"].note
    for name, preset in PRESETS.items():
        assert preset.name == name and len(preset.note) > 80


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(InputError, match="found 'cotst'.*did you mean 'cot-st'"):
        find_preset("cotst")
