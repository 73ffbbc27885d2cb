"""Recordings in the page, within a budget; marks of differing words, where nothing is lost."""

import base64
import io
import random
import re
import tarfile
from html import unescape

import numpy as np
import pytest
import soundfile

from slam_potsa.evaluation.report.media import Players, marked


@pytest.fixture
def manifest(tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "short.flac", 0.1 * rng.standard_normal(1600), 16000)
    soundfile.write(tmp_path / "long.wav", 0.1 * rng.standard_normal(16000 * 8), 16000)
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(tmp_path / "short.flac", "in/b.flac")
    (tmp_path / "text.wav").write_text("no audio")
    return tmp_path / "test.jsonl"


@pytest.mark.parametrize(
    ("audio", "seconds"), [("short.flac", 0.1), ("all.tar:in/b.flac", 0.1), ("long.wav", 8)]
)
def test_recordings_are_compressed(manifest, audio, seconds):
    player = Players().player("a", audio, manifest)
    data = base64.b64decode(re.search(r'src="data:audio/mpeg;base64,([^"]+)"', player)[1])
    samples, rate = soundfile.read(io.BytesIO(data))
    assert rate == 16000 and len(samples) / rate == pytest.approx(seconds, abs=0.15)
    assert len(data) < 6_000 * max(seconds, 1)


def test_a_recording_counts_once_and_it_is_said_why_there_is_no_player(manifest):
    players = Players(budget=len(Players().player("a", "short.flac", manifest)))
    assert "<audio" in players.player("a<", "short.flac", manifest)
    assert "recording a&lt;: plays above" in players.player("a<", "short.flac", manifest)
    assert "too large" in players.player("b", "all.tar:in/b.flac", manifest)
    for audio in ("missing.wav", "text.wav.gone", "all.tar:in/c.flac"):
        assert "not found" in Players().player("k", audio, manifest)
    assert "manifest" in Players().player("k", "short.flac", None)


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("Press the star key.", "Press the pound key.", "Press the <mark>star</mark> key."),
        ("a b c", "A, b? C!", "a b c"),  # case and punctuation are not compared
        ("x y b", "a b", "<mark>x</mark> <mark>y</mark> b"),
        ("我们走", "我们跑", "我们<mark>走</mark>"),  # sign by sign
        ("<b> & c", "b c", "&lt;b&gt; &amp; c"),
        ("anything", None, "anything"),
        ("", "gone", ""),
        ("don’t go", "don’t stay", "don’t <mark>go</mark>"),
        ("press key", "press the pound key", "press key"),  # what is left out is not said
    ],
)
def test_words_that_differ_are_marked(text, reference, expected):
    assert marked(text, reference).strip() == expected


def test_the_text_itself_is_kept():
    rng = random.Random(0)
    words = ["a", "b,", "c.", "日本", "語", "<d>", "e's", "  "]
    for _ in range(200):
        text, reference = (" ".join(rng.choices(words, k=rng.randint(0, 7))) for _ in range(2))
        assert unescape(re.sub("</?mark>", "", marked(text, reference))) == text
        assert marked(text, text) == marked(text, None)
