"""Long recordings: what is spoken is found, cut, and put together with its times."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import soxr
import torch

from slam_potsa import InputError
from slam_potsa.data.audio import SAMPLE_RATE, load_audio
from slam_potsa.data.pieces import Piece, cut, translated, written
from tests.support import refused


@pytest.fixture
def vad(monkeypatch):
    """Takes what is loud for speech; Silero's own spans, shortest pause and all, in three lines."""

    def spans(likely, **options):
        loud = np.flatnonzero(np.diff([0, *(p > 0.5 for p in likely), 0])).reshape(-1, 2)
        return [{"start": 512 * first, "end": 512 * last} for first, last in loud.tolist()]

    def load():
        return lambda window, rate: (window.abs().max() > 0.05).float()

    fake = SimpleNamespace(load_silero_vad=load, get_speech_timestamps_from_probs=spans)
    monkeypatch.setitem(sys.modules, "silero_vad", fake)


def talk(path, spoken, seconds, rate=SAMPLE_RATE, channels=1):
    sound = np.zeros((seconds * rate, channels), np.float32)
    for start, end in spoken:
        sound[start * rate : end * rate] = 0.2 * np.sin(np.arange((end - start) * rate))[:, None]
    soundfile.write(path, sound, rate)
    return path


@pytest.mark.parametrize("rate, channels", [(16000, 1), (44100, 2)])
def test_speech_of_a_long_recording_is_cut_out_where_it_is(vad, tmp_path, rate, channels):
    path = talk(tmp_path / "talk.flac", [(2, 9), (70, 95)], 130, rate, channels)
    before = torch.get_num_threads()
    pieces = cut(path, tmp_path / "cut")
    assert torch.get_num_threads() == before
    assert np.allclose([(p.start, p.end) for p in pieces], [(2, 9), (70, 95)], atol=0.04)
    for piece in pieces:
        sound = load_audio(piece.audio)
        assert len(sound) / SAMPLE_RATE == pytest.approx(piece.end - piece.start, abs=1e-3)
    sound, own = soundfile.read(path, always_2d=True)
    whole = soxr.resample(sound.mean(1), own, SAMPLE_RATE)
    whole = whole[int(70.1 * SAMPLE_RATE) :][: SAMPLE_RATE * 20]
    start = round((70.1 - pieces[1].start) * SAMPLE_RATE)
    assert np.abs(load_audio(pieces[1].audio)[start:][: len(whole)] - whole).max() < 2e-3
    assert sorted(file.name for file in (tmp_path / "cut").iterdir()) == ["00000.wav", "00001.wav"]


def test_a_short_one_is_itself_and_needs_no_detector(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    path = talk(tmp_path / "short.wav", [(0, 2)], 2)
    assert cut(path, tmp_path / "cut") == [Piece(0.0, 2.0, str(path))]
    with pytest.raises(InputError, match=r"long\.wav: longer than 30 s: .* slam-potsa\[long\]"):
        cut(talk(tmp_path / "long.wav", [(0, 2)], 40), tmp_path / "cut")


def test_what_is_no_audio_or_silent_is_named(vad, tmp_path):
    (tmp_path / "thesis.pdf").write_bytes(b"%PDF-1.7 no sound")
    with pytest.raises(InputError, match=r"thesis\.pdf: broken, truncated or no audio"):
        cut(tmp_path / "thesis.pdf", tmp_path / "cut")
    with pytest.raises(InputError, match=r"quiet\.wav: 40 s long, and nobody speaks in it"):
        cut(talk(tmp_path / "quiet.wav", [], 40), tmp_path / "cut")


def test_the_header_of_a_long_one_is_not_believed(vad, tmp_path, piped_mp3):
    loud, path = np.zeros(170 * SAMPLE_RATE), tmp_path / "a.mp3"
    loud[: 150 * SAMPLE_RATE] = np.random.default_rng(0).normal(0, 0.01, 150 * SAMPLE_RATE)
    loud[160 * SAMPLE_RATE : 165 * SAMPLE_RATE] = 0.2 * np.sin(np.arange(5 * SAMPLE_RATE) / 9)
    path.write_bytes(piped_mp3(loud))
    assert 30 < soundfile.info(path).duration < 80  # a guess
    (piece,) = cut(path, tmp_path / "cut")
    assert np.allclose([piece.start, piece.end], [160, 165], atol=0.2)
    part = talk(tmp_path / "part.wav", [(2, 9)], 60)
    part.write_bytes(part.read_bytes()[:-99_000])
    sides = talk(tmp_path / "sides.wav", [(2, 9)], 40, channels=2)
    sound, rate = soundfile.read(sides)
    soundfile.write(sides, sound * [1, -1], rate)
    nine = talk(tmp_path / "nine.wav", [(2, 9)], 40, channels=9)
    wrong = {part: "truncated: the header", sides: "cancel each other", nine: "9 channels at"}
    for path, why in wrong.items():
        refused(f"{path.name}: .*{why}", cut, path, tmp_path / "cut")


def test_texts_with_times():
    cuts = [[Piece(0.5, 2.25, "a.wav"), Piece(3661.0, 3662.9996, "b.wav")], [Piece(0, 1, "c.wav")]]
    texts = {"a.wav": "Guten Tag.", "b.wav": "Ende.", "c.wav": "Ja."}
    pieces, other = translated(cuts, lambda files: [texts[file] for file in files])
    assert written(pieces, "text") == "Guten Tag. Ende."
    assert json.loads(written(other, "json")) == [{"start": 0, "end": 1, "text": "Ja."}]
    first, second = "00:00:00{0}500 --> 00:00:02{0}250", "01:01:01{0}000 --> 01:01:03{0}000"
    body = f"1\n{first}\nGuten Tag.\n\n2\n{second}\nEnde."
    assert written(pieces, "srt") == body.format(",")
    assert written(pieces, "vtt") == "WEBVTT\n\n" + body.format(".")
