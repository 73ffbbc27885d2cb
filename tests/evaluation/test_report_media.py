"""Recordings in the page, within a budget; marks of differing words, where nothing is lost."""

from __future__ import annotations

import base64
import io
import random
import re
import tarfile
from html import unescape

import numpy as np
import pytest
import soundfile

from slam_potsa.evaluation.report.media import AS_IT_IS, GAP, Players, marked


@pytest.fixture
def manifest(tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "short.flac", 0.1 * rng.standard_normal(1600), 16000)
    soundfile.write(tmp_path / "long.wav", 0.1 * rng.standard_normal(16000 * 8), 16000)
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(tmp_path / "short.flac", "in/b.flac")
    (tmp_path / "text.wav").write_text("no audio")
    return tmp_path / "test.jsonl"


def content(html: str) -> tuple[str, bytes]:
    media_type, data = re.search(r'src="data:([^;]+);base64,([^"]+)"', html).groups()
    return media_type, base64.b64decode(data)


def test_a_small_file_is_embedded_as_it_is(manifest):
    data = (manifest.parent / "short.flac").read_bytes()
    assert content(Players().player("a", "short.flac", manifest)) == ("audio/flac", data)
    assert content(Players().player("a", "all.tar:in/b.flac", manifest)) == ("audio/flac", data)


def test_a_large_file_is_compressed(manifest):
    assert (manifest.parent / "long.wav").stat().st_size > AS_IT_IS
    media_type, data = content(Players().player("a", "long.wav", manifest))
    samples, rate = soundfile.read(io.BytesIO(data))
    assert media_type in ("audio/mpeg", "audio/flac") and rate == 16000
    assert len(samples) == pytest.approx(16000 * 8, rel=0.02)
    assert len(data) < (manifest.parent / "long.wav").stat().st_size


def test_a_recording_counts_once_and_the_budget_ends(manifest):
    size = len(base64.b64encode((manifest.parent / "short.flac").read_bytes()))
    players = Players(budget=size + 10)
    assert "<audio" in players.player("a<", "short.flac", manifest)
    assert "recording a&lt;: plays above" in players.player("a<", "short.flac", manifest)
    assert "too large" in players.player("b", "all.tar:in/b.flac", manifest)


def test_it_says_why_there_is_no_player(manifest):
    for audio in ("missing.wav", "text.wav.gone", "all.tar:in/c.flac"):
        assert "not found" in Players().player("k", audio, manifest)
    assert "manifest" in Players().player("k", "short.flac", None)


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("Press the star key.", "Press the pound key.", "Press the <mark>star</mark> key."),
        ("a b c", "A, b? C!", "a b c"),  # case and punctuation are not compared
        ("x y b", "a b", "<mark>x y</mark> b"),  # words beside each other share a mark
        ("我们走", "我们跑", "我们<mark>走</mark>"),  # sign by sign
        ("<b> & c", "b c", "&lt;b&gt; &amp; c"),
        ("anything", None, "anything"),
        ("", "gone", f'<mark class="gap" title="left out: gone">{GAP}</mark>'),
        ("don’t go", "don’t stay", "don’t <mark>go</mark>"),
        ("press key", "press the pound key",
         f'press <mark class="gap" title="left out: the pound">{GAP}</mark> key'),
    ],
)  # fmt: skip
def test_words_that_differ_are_marked(text, reference, expected):
    assert marked(text, reference).strip() == expected


def test_the_text_itself_is_kept():
    gap = rf'<mark class="gap"[^>]*>{re.escape(GAP)}</mark>'
    rng = random.Random(0)
    words = ["a", "b,", "c.", "日本", "語", "<d>", "e's", "  "]
    for _ in range(200):
        text, reference = (" ".join(rng.choices(words, k=rng.randint(0, 7))) for _ in range(2))
        without_gaps = re.sub(rf" ?{gap}$|{gap} ", "", marked(text, reference))
        assert unescape(re.sub(r"</?mark[^>]*>", "", without_gaps)) == text
        assert marked(text, text) == marked(text, None)
