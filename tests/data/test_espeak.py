"""Announcements that a machine speaks: what is said, that all of it is marked, what is missing."""

import json
import os
import shutil

import pytest
import soundfile

from slam_potsa.cli import main
from slam_potsa.data.manifest import check_manifest, read_manifest
from slam_potsa.data.sources import espeak
from slam_potsa.errors import InputError

SENTENCE = (("day", 739_681), ("measure", 17, "length-kilometer"), ("places", "JP", "BR"))


def test_each_language_has_its_own_words_for_one_meaning():
    pytest.importorskip("babel")
    assert espeak.said(SENTENCE, "en") == "Friday, March 6, 2026. 17 kilometers. Japan and Brazil."
    assert (
        espeak.said(SENTENCE, "de") == "Freitag, 6. März 2026. 17 Kilometer. Japan und Brasilien."
    )
    amount = (("amount", 9000, "EUR"),)
    assert {espeak.said(amount, code) for code in ("en", "ru")} == {
        "9,000 euros.",
        "9\xa0000 евро.",
    }


@pytest.mark.parametrize("real", [False, True])
def test_speech_is_parallel_and_marked(real, tmp_path, recording, monkeypatch, capsys):
    pytest.importorskip("babel")
    if real and not shutil.which("espeak-ng"):
        pytest.skip("needs espeak-ng")
    if not real:  # says the same of all
        fake = tmp_path / "bin" / "espeak-ng"
        fake.parent.mkdir()
        fake.write_text(
            f"#!/bin/sh\ncat > /dev/null; cat {tmp_path / recording('a.wav', 1.0, 22050)}"
        )
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    sizes = ["--train", "2", "--pairs", "1", "--dev", "1", "--test", "1", "--unheard", "it", "vi"]
    out = tmp_path / "out"
    assert main(["prepare", "announcements", str(out), "--synthetic", *sizes]) == 0
    assert "12 rows have audio that a machine made" in capsys.readouterr().out
    rows = {path.stem: read_manifest(path) for path in out.glob("*s*.jsonl")}
    rows |= {name: read_manifest(out / f"{name}.jsonl") for name in ("train", "test")}
    assert {row.language for row in rows["train"]} == {*espeak.LANGUAGES} - {"it", "vi"}
    assert {row.synthetic for own in rows.values() for row in own} == {"audio"}
    assert len({row.sentence_id for row in rows["test"]}) == 1
    assert len({row.transcript for row in rows["test"]}) > 8
    assert {row.target for row in rows["pairs"] if row.language in ("it", "vi")} == {None}
    assert soundfile.info(out / rows["test"][0].audio).samplerate == 16_000
    assert not any("duration" in told for told in check_manifest(out / "test.jsonl").warnings)
    told = json.loads((out / "summary.json").read_text())
    assert "12 rows have audio that a machine made" in told["manifests"]["test"][-1]


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "babel", None)
    assert [told.split()[0] for told in espeak.lacking()] == ["babel", "espeak-ng"]
    (tmp_path / "espeak-ng").write_text("#!/bin/sh\necho no such voice >&2\nexit 1\n")
    (tmp_path / "espeak-ng").chmod(0o755)
    with pytest.raises(InputError, match="espeak-ng -v hi .*no such voice"):
        espeak.Voice("hi").render(["x"], "")
