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
from tests.support.predictions import make


@pytest.fixture
def files(tmp_path):
    """Two seeds' predictions, and a file of another test."""
    for seed in (1, 2):
        items = [replace(item, transcript="bon jour") for item in make(seed=seed)]
        write_predictions(tmp_path / f"seed{seed}" / "test_predictions.jsonl", items)
    write_predictions(tmp_path / "other_predictions.jsonl", make(["it"]))
    return tmp_path


def scored(capsys, *arguments, code=0):
    """What the command prints, to stdout, or with `code` 2 to stderr."""
    assert main(["score", *map(str, arguments)]) == code
    printed = capsys.readouterr()
    return printed.err if code else printed.out


def write_blind(path, **options):
    """A blind control: rows of other recordings."""
    items = make(**({"noise": 1, "seed": 3} | options))
    write_predictions(path, [replace(item, source="other.flac") for item in items])


def test_the_default_is_bleu_and_chrf_with_guards_and_signatures(files, capsys):
    path = files / "seed1" / "test_predictions.jsonl"
    output = scored(
        capsys, path, "--seen", "en", "es", "--zero-shot", "fr", "--bootstrap", 20,
        "--json", files / "out.json",
    )  # fmt: skip
    assert output.splitlines()[0].split()[:2] == ["sentences", "BLEU"]
    assert "zero-shot, pooled" in output and "guard fired, %" in output
    assert output.rstrip().splitlines()[-1].startswith("chrF|nrefs:1|bs:20|seed:12345|")
    assert "preset" not in output and "lowest sentence chrF" not in output
    table = json.loads((files / "out.json").read_text())
    assert table["rows"][0]["name"] == "en" and table["rows"][0]["bleu"]["score"] > 0
    assert len(table["worst"]) == 10 and table["preset"] is None


def test_several_files_are_seeds(files, capsys):
    paths = sorted(files.glob("seed*/test_predictions.jsonl"))
    output = scored(capsys, *paths, "--bootstrap", 0, "--json", files / "out.json")
    assert "BLEU over 2 seeds" in output and output.count("guard fired, %") == 2
    content = json.loads((files / "out.json").read_text())
    assert [item["file"] for item in content["files"]] == list(map(str, paths))
    mean = content["seeds"][0]
    assert mean["name"] == "en" and len(mean["values"]) == 2
    assert scored(capsys, paths[0], paths[0], code=2).count("given twice") == 1
    assert "must be one test" in scored(capsys, paths[0], files / "other_predictions.jsonl", code=2)


def test_a_preset_prints_what_it_follows(files, capsys):
    pytest.importorskip("jiwer")
    path = files / "seed1" / "test_predictions.jsonl"
    output = scored(capsys, path, "--preset", "llm-srt", "--no-spbleu", "--bootstrap", 0)
    assert "preset llm-srt: LLM-SRT, after its eval/test_metric_n.py" in output
    assert "not computed: COMET, which llm-srt reports; add --comet" in output
    assert "WER|norm:whisper-basic" in output and "chrF++|" in output
    assert "WER|" not in scored(capsys, path, "--preset", "cot-st", "--no-wer", "--bootstrap", 0)


def test_a_baseline_is_tested_and_the_blind_control_is_found(files, capsys):
    path, other = (files / f"seed{seed}" / "test_predictions.jsonl" for seed in (1, 2))
    write_blind(path.with_name("test_blind_predictions.jsonl"))
    output = scored(
        capsys, path, "--baseline", other, "--test", "ar", "--samples", 20, "--bootstrap", 0,
        "--worst", 2, "--json", files / "out.json",
    )  # fmt: skip
    assert "p: approximate randomisation" in output and "|ar:20|" in output
    assert "exchanged recordings" in output and "2 rows of the lowest sentence chrF" in output
    content = json.loads((files / "out.json").read_text())
    assert {item["name"] for item in content["comparisons"]} == {
        "en",
        "es",
        "fr",
        "all, pooled",
        "all, mean of languages",
    }
    assert content["blind"][0]["difference"] > 0 and len(content["worst"]) == 2
    chrfs = [row["chrf"] for row in content["worst"]]
    assert chrfs == sorted(chrfs)


@pytest.mark.parametrize(
    ("content", "why"),
    [("keys", "are decoded by the system only"), ("own", "own recording"), ("bad", "JSON")],
)
def test_a_blind_control_that_does_not_fit(files, capsys, content, why):
    """Left out with a warning where it was only found, an error where it was named."""
    path = files / "seed1" / "test_predictions.jsonl"
    blind = path.with_name("test_blind_predictions.jsonl")
    if content == "keys":
        write_blind(blind, languages=["it"])
    else:
        write_predictions(blind, make(noise=1))
    if content == "bad":
        blind.write_text("{")
    assert main(["score", str(path), "--bootstrap", "0"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith(f"warning: {blind}:") and why in printed.err
    assert "guard fired, %" in printed.out and "exchanged recordings" not in printed.out
    message = scored(capsys, path, "--blind", blind, code=2)
    assert message.startswith("error: ") and str(blind) in message and why in message


def test_no_blind_control_is_looked_for(files, capsys):
    path = files / "seed1" / "test_predictions.jsonl"
    blind = path.with_name("test_blind_predictions.jsonl")
    blind.write_text("{")
    assert main(["score", str(path), "--no-blind", "--bootstrap", "0"]) == 0
    assert not capsys.readouterr().err
    both = scored(capsys, path, "--no-blind", "--blind", blind, code=2)
    assert "--blind and --no-blind" in both


def test_every_number_comes_out_of_a_printed_command(files, capsys):
    """BLEU, chrF, WER, the paired test and the blind control, each run in a process of its own."""
    pytest.importorskip("jiwer")
    path, other = (files / f"seed{seed}" / "test_predictions.jsonl" for seed in (1, 2))
    write_blind(path.with_name("test_blind_predictions.jsonl"))
    output = scored(
        capsys, path, "--wer", "--baseline", other, "--samples", 20, "--bootstrap", 20,
        "--dump", files / "my scores", "--show-commands", "--json", files / "out.json",
    )  # fmt: skip
    commands = (files / "my scores" / "commands.sh").read_text()
    assert output.endswith(commands)
    assert "# all, mean of languages: the mean of the scores of en, es, fr" in commands
    content = json.loads((files / "out.json").read_text())
    of_english = commands.split("# en\n")[1].split("\n#")[0].splitlines()
    plain, paired, blind, words = map(run, of_english)
    row = content["rows"][0]
    for measure, theirs in zip(("bleu", "chrf"), json.loads(plain), strict=True):
        assert row[measure]["score"] == pytest.approx(theirs["score"], abs=1e-4)
        assert row[measure]["signature"] == theirs["signature"]
    chances = [float(value) for value in re.findall(r"\(p = ([\d.]+)\)", paired)]
    assert [item["p_value"] for item in content["comparisons"][:2]] == pytest.approx(
        chances, abs=1e-4
    )
    assert content["blind"][0]["baseline"] == pytest.approx(json.loads(blind)["score"], abs=1e-4)
    assert row["more"]["WER"]["score"] == pytest.approx(float(words))


def run(command):
    words = shlex.split(command)
    environment = dict(os.environ)
    while "=" in words[0]:
        name, _, environment[name] = words.pop(0).partition("=")
    words[0] = {"python": sys.executable}[words[0]]
    return subprocess.run(words, capture_output=True, text=True, check=True, env=environment).stdout


def test_comet_that_is_not_installed_becomes_a_command(files, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "comet", None)
    path = files / "seed1" / "test_predictions.jsonl"
    common = (path, "--comet", "Unbabel/wmt22-comet-da", "--bootstrap", 0)
    assert "COMET is not installed here" in scored(capsys, *common, code=2)
    output = scored(capsys, *common, "--dump", files / "d", "--show-commands")
    assert "not computed: COMET is not installed here" in output
    expected = f"comet-score -s {files}/d/fr.src -t {files}/d/fr.hyp -r {files}/d/fr.ref"
    assert f"{expected} --model Unbabel/wmt22-comet-da" in output
    assert (files / "d" / "fr.src").read_text().splitlines() == ["bon jour"] * 12
    assert not (files / "d" / "en.src").exists()  # English into English is no translation


def test_all_that_is_wrong_with_the_options_at_once(files, capsys):
    path = files / "seed1" / "test_predictions.jsonl"
    wrong = (
        "--bootstrap",
        -1,
        "--worst",
        -1,
        "--show-commands",
        "--baseline",
        "a",
        "b",
    )
    message = scored(capsys, path, *wrong, code=2)
    assert message.startswith("error: 4 problems")
    assert "found 'l'" in scored(capsys, path, "--preset", "l", code=2)
    missing = scored(capsys, "a.jsonl", "b.jsonl", "--baseline", "c.jsonl", code=2)
    assert all(missing.count(f"{name}.jsonl: ") == 1 for name in "abc")
