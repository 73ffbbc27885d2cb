"""Recordings in the page: which bytes, within which budget, and what is said instead."""

from __future__ import annotations

import base64
import io
import re
import tarfile

import numpy as np
import pytest
import soundfile

from slam_potsa.evaluation.report.players import AS_IT_IS, Players


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "short.flac", 0.1 * rng.standard_normal(1600), 16000)
    soundfile.write(tmp_path / "long.wav", 0.1 * rng.standard_normal(16000 * 8), 16000)
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(tmp_path / "short.flac", "in/b.flac")
    (tmp_path / "text.wav").write_text("no audio")
    return tmp_path


def content(html: str) -> tuple[str, bytes]:
    media_type, data = re.search(r'src="data:([^;]+);base64,([^"]+)"', html).groups()
    return media_type, base64.b64decode(data)


def test_a_small_file_is_embedded_as_it_is(folder):
    data = (folder / "short.flac").read_bytes()
    assert content(Players().player("a", "short.flac", folder)) == ("audio/flac", data)
    assert content(Players().player("a", "all.tar:in/b.flac", folder)) == ("audio/flac", data)


def test_a_large_file_is_compressed(folder):
    assert (folder / "long.wav").stat().st_size > AS_IT_IS
    media_type, data = content(Players().player("a", "long.wav", folder))
    samples, rate = soundfile.read(io.BytesIO(data))
    assert media_type in ("audio/mpeg", "audio/flac") and rate == 16000
    assert len(samples) == pytest.approx(16000 * 8, rel=0.02)
    assert len(data) < (folder / "long.wav").stat().st_size


def test_a_recording_counts_once_and_the_budget_ends(folder):
    size = len(base64.b64encode((folder / "short.flac").read_bytes()))
    players = Players(budget=size + 10)
    assert "<audio" in players.player("a<", "short.flac", folder)
    assert "recording a&lt;: plays above" in players.player("a<", "short.flac", folder)
    assert players.left == 10
    assert "too large" in players.player("b", "all.tar:in/b.flac", folder)


def test_it_says_why_there_is_no_player(folder):
    players = Players()
    for audio in ("missing.wav", "text.wav.gone", "all.tar:in/c.flac"):
        assert "not found" in players.player("k", audio, folder)
    assert "manifest" in players.player("k", "short.flac", None)
