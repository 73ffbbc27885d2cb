"""`slam-potsa score` as a user calls it."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace

import pytest

from slam_potsa.cli import main
from slam_potsa.data.predictions import write_predictions
from tests.support.predictions import make, make_blind


@pytest.fixture
def files(tmp_path):
    """Two seeds' predictions; the first has a blind control beside it."""
    paths = [tmp_path / f"seed{seed}" / "test_predictions.jsonl" for seed in (1, 2)]
    for seed, path in enumerate(paths, start=1):
        items = [replace(item, transcript="bon jour") for item in make(seed=seed)]
        write_predictions(path, items)
    write_predictions(blind_of(paths[0]), make_blind(noise=1, seed=3))
    return paths


def blind_of(path):
    return path.with_name("test_blind_predictions.jsonl")


def scored(capsys, *arguments, code=0):
    """What the command prints, to stdout, or with `code` 2 to stderr."""
    assert main(["score", *map(str, arguments)]) == code
    printed = capsys.readouterr()
    return printed.err if code else printed.out


def test_the_default_is_bleu_and_chrf_with_guards_and_signatures(files, tmp_path, capsys):
    place = tmp_path / "out.json"
    groups = ("--seen", "en", "es", "--zero-shot", "fr", "--no-blind")
    output = scored(capsys, files[0], *groups, "--bootstrap", 20, "--json", place)
    head, first = output.splitlines()[:2]
    assert head.split()[:2] == ["sentences", "BLEU"] and head.count("95 % interval") == 2
    assert "zero-shot, pooled" in output and "guard fired, %" in output
    assert output.rstrip().splitlines()[-1].startswith("chrF|nrefs:1|bs:20|seed:12345|")
    assert "preset" not in output and "lowest sentence chrF" not in output
    table = json.loads(place.read_text())
    bleu = table["rows"][0]["scores"]["BLEU"]["value"]
    assert table["rows"][0]["name"] == "en" and first.split()[:3] == ["en", "12", f"{bleu:.1f}"]
    assert table["worst"] == [] and table["preset"] is None


def test_several_files_are_seeds(files, tmp_path, capsys):
    place, other = tmp_path / "out.json", tmp_path / "other_predictions.jsonl"
    output = scored(capsys, *files, "--no-blind", "--bootstrap", 0, "--json", place)
    assert "BLEU over 2 seeds" in output and output.count("guard fired, %") == 2
    content = json.loads(place.read_text())
    assert [item["file"] for item in content["files"]] == list(map(str, files))
    mean = content["seeds"][0]
    assert mean["name"] == "en" and len(mean["values"]) == 2
    assert "given twice" in scored(capsys, files[0], files[0], code=2)
    write_predictions(other, make(["it"]))
    assert "must be one test" in scored(capsys, files[0], other, code=2)


def test_a_preset_prints_what_it_follows(files, capsys):
    pytest.importorskip("jiwer")
    common = (files[0], "--no-blind", "--bootstrap", 0, "--preset")
    output = scored(capsys, *common, "llm-srt", "--no-spbleu")
    assert "preset llm-srt: LLM-SRT, after its eval/test_metric_n.py" in output
    assert "WER|norm:whisper-basic" in output and "chrF++|" in output
    assert "WER|" not in scored(capsys, *common, "cot-st", "--no-wer")


def test_a_baseline_is_tested_and_the_blind_control_is_found(files, tmp_path, capsys):
    place = tmp_path / "out.json"
    tested = ("--baseline", files[1], "--test", "ar", "--samples", 20, "--bootstrap", 0)
    output = scored(capsys, files[0], *tested, "--worst", 2, "--json", place)
    assert "p: approximate randomisation" in output and "|ar:20|" in output
    assert "exchanged recordings" in output and "2 rows of the lowest sentence chrF" in output
    content = json.loads(place.read_text())
    rows = ["en", "es", "fr", "all, pooled", "all, mean of languages"]
    assert [item["name"] for item in content["comparisons"]] == [n for n in rows for _ in range(2)]
    assert [item["name"] for item in content["blind"]] == rows
    assert content["blind"][0]["difference"] > 0 and len(content["worst"]) == 2
    chrfs = [row["chrf"] for row in content["worst"]]
    assert chrfs == sorted(chrfs)


def test_a_blind_control_that_does_not_fit_is_refused(files, capsys):
    write_predictions(blind_of(files[0]), make())
    message = scored(capsys, files[0], code=2)
    assert message.startswith("error: ") and str(blind_of(files[0])) in message
    assert "own recording" in message and "--no-blind" in message
    output = scored(capsys, files[0], "--no-blind", "--bootstrap", 0)
    assert "guard fired, %" in output and "exchanged recordings" not in output


def run(command):
    words = shlex.split(command)
    environment = dict(os.environ)
    while "=" in words[0]:
        name, _, environment[name] = words.pop(0).partition("=")
    words[0] = {"python": sys.executable}[words[0]]
    return subprocess.run(words, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.mark.parametrize(("preset", "test"), [("potsa", "bs"), ("cot-st", "ar")])
def test_every_number_comes_out_of_a_written_command(files, tmp_path, capsys, preset, test):
    """BLEU, chrF, the paired test and the blind control, each run in a process of its own."""
    pytest.importorskip("jiwer")
    folder, place = tmp_path / "my scores", tmp_path / "out.json"
    asked = ("--preset", preset, "--baseline", files[1], "--samples", 20, "--test", test)
    scored(capsys, files[0], *asked, "--bootstrap", 20, "--dump", folder, "--json", place)
    commands = (folder / "commands.sh").read_text()
    assert "# all, mean of languages: the mean of the scores of en, es, fr" in commands
    content = json.loads(place.read_text())
    own, french = (commands.split(f"# {name}\n")[1].split("\n#")[0] for name in ("en", "fr"))
    plain, *more, paired, blind = map(run, own.splitlines())
    theirs = [*json.loads(plain), *map(json.loads, more)]
    ours = content["rows"][0]["scores"]
    for mine, other in zip(ours.values(), theirs, strict=False):
        assert mine["value"] == pytest.approx(other["score"], abs=1e-4)
        assert mine["signature"] == other["signature"]
    assert len(theirs) == len(ours) - 1 and "WER" in ours
    chances = [float(value) for value in re.findall(r"\(p = ([\d.]+)\)", paired)]
    found = [item["p_value"] for item in content["comparisons"][:2]]
    assert found == pytest.approx(chances, abs=1e-4)
    assert content["blind"][0]["baseline"] == pytest.approx(json.loads(blind)["score"], abs=1e-4)
    comet = shlex.split(french.splitlines()[-1])
    assert comet[:3] == ["comet-score", "-s", f"{folder}/fr.src"]
    assert (folder / "fr.src").read_text().splitlines() == ["bon jour"] * 12
    assert not (folder / "en.src").exists()  # English into English is no translation


def test_all_that_is_wrong_with_the_options_at_once(files, capsys):
    wrong = ("--bootstrap", -1, "--worst", -1, "--baseline", "a", "b")
    assert scored(capsys, files[0], *wrong, code=2).startswith("error: 3 problems")
    assert "found 'l'" in scored(capsys, files[0], "--preset", "l", code=2)
    missing = scored(capsys, "a.jsonl", "b.jsonl", "--baseline", "c.jsonl", code=2)
    assert all(missing.count(f"{name}.jsonl: ") == 1 for name in "abc")
