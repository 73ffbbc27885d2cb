import json
from dataclasses import replace

import pytest

from slam_potsa.cli import main
from slam_potsa.data.manifest import Utterance, write_manifest
from slam_potsa.data.predictions import read_predictions, write_pred_gt, write_predictions
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
    assert "zero-shot, pooled" in output and "guard fired, %" in output
    assert output.rstrip().splitlines()[-1].startswith("chrF|nrefs:1|bs:20|seed:12345|")
    content = json.loads(place.read_text())
    (table,) = content["files"]
    bleu = table["rows"][0]["scores"]["BLEU"]["value"]
    assert output.splitlines()[1].split()[:3] == ["en", "12", f"{bleu:.1f}"]
    assert content["preset"] is None and not content["seeds"]


def test_several_files_are_seeds(files, tmp_path, capsys):
    place, other = tmp_path / "out.json", tmp_path / "other_predictions.jsonl"
    output = scored(capsys, *files, "--no-blind", "--bootstrap", 0, "--json", place)
    assert "BLEU over 2 seeds" in output and output.count("guard fired, %") == 2
    content = json.loads(place.read_text())
    assert [item["file"] for item in content["files"]] == list(map(str, files))
    assert len(content["seeds"]["BLEU"]["en"]["values"]) == 2
    assert "given twice" in scored(capsys, files[0], files[0], code=2)
    write_predictions(other, make(["it"]))
    assert "must be one test" in scored(capsys, files[0], other, code=2)
    assert "found 2 files for 1" in scored(capsys, files[0], "--baseline", *files, code=2)
    missing = scored(capsys, "a.jsonl", "b.jsonl", "--baseline", "c.jsonl", code=2)
    assert all(missing.count(f"{name}.jsonl: ") == 1 for name in "abc")


def test_a_baseline_is_tested_and_the_blind_control_is_found(files, tmp_path, capsys):
    place = tmp_path / "out.json"
    tested = ("--baseline", files[1], "--samples", 20, "--bootstrap", 0)
    output = scored(capsys, files[0], *tested, "--json", place)
    assert "|bs:20|" in output and "exchanged recordings" in output
    (content,) = json.loads(place.read_text())["files"]
    rows = ["en", "es", "fr", "all, pooled", "all, mean of languages"]
    assert [row["name"] for row in content["rows"]] == rows
    assert all(set(row["against"]) == {"BLEU", "chrF"} for row in content["rows"])
    assert all(set(row["blind"]) == {"BLEU"} for row in content["rows"])
    assert content["rows"][0]["blind"]["BLEU"]["difference"] > 0
    write_predictions(blind_of(files[0]), make(["en"]))
    message = scored(capsys, files[0], code=2)
    assert str(blind_of(files[0])) in message and "--no-blind" in message
    output = scored(capsys, files[0], "--no-blind", "--bootstrap", 0)
    assert "guard fired, %" in output and "exchanged recordings" not in output


def test_a_preset_is_followed_and_dumped_files_have_a_line_an_utterance(files, tmp_path, capsys):
    folder = tmp_path / "texts"
    options = ("--no-blind", "--bootstrap", 0, "--preset", "cot-st", "--dump", folder)
    output = scored(capsys, files[0], *options)
    assert "preset cot-st: CoT-ST, after SLAM-LLM's" in output
    assert "WER|norm:whisper-basic" in output and "chrF++|" in output
    english = [item for item in read_predictions(files[0]) if item.language == "en"]
    lines = {path.name: path.read_text().splitlines() for path in folder.iterdir()}
    assert lines["en.hyp"] == [item.prediction for item in english]
    assert lines["en.ref"] == [item.reference for item in english]
    assert lines["fr.src"] == ["bon jour"] * 12 and len(lines["all-pooled.hyp"]) == 36


def test_slam_llms_files_and_plain_text_score_as_our_own(files, tmp_path, capsys):
    items, pred = read_predictions(files[0]), tmp_path / "test_pred"
    write_pred_gt(tmp_path / "test", items)
    languages = {item.key: item for item in items}
    manifest, plain = tmp_path / "test.jsonl", [tmp_path / "hyp.txt", tmp_path / "ref.txt"]
    rows = [Utterance(k, f"{k}.wav", i.language, k, None, i.reference, i.target_language)
            for k, i in languages.items()]  # fmt: skip
    write_manifest(manifest, rows)
    for path, name in zip(plain, ("prediction", "reference"), strict=True):
        path.write_text("".join(f"{getattr(item, name)}\n" for item in items))
    expected = scored(capsys, files[0], "--no-blind", "--bootstrap", 0).splitlines()
    bare = ("--references", plain[1], "--manifest", manifest)
    for given in ((pred, "--manifest", manifest), (plain[0], *bare)):
        assert scored(capsys, *given, "--bootstrap", 0).splitlines()[:9] == expected[:9]
    assert "und" in scored(capsys, pred, "--target-language", "zh", "--bootstrap", 0)
    assert "--target-language" in scored(capsys, pred, code=2)
    plain[1].write_text("one\n")
    assert "in one order" in scored(capsys, plain[0], *bare, code=2)
