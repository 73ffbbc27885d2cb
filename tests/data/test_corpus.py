"""What data sources share: recordings are heard once, and judged by the usual rate of speech."""

import math

import pytest

from slam_potsa.data.manifest import Utterance
from slam_potsa.data.sources import corpus


@pytest.fixture
def measure(tmp_path, recording, monkeypatch):
    """Measure three recordings, with `stop` interrupted at the second: (names heard, durations)."""
    names = [
        recording(f"{name}.wav", seconds) for name, seconds in zip("abc", (1, 2, 3), strict=True)
    ]
    real = corpus.measure_audio
    monkeypatch.setattr(corpus, "BATCH", 1)

    def run(stop=False):
        heard = []

        def hear(audio, **options):
            heard.append(audio.rpartition("/")[2])
            if stop and len(heard) == 2:
                raise KeyboardInterrupt
            return real(audio, **options)

        monkeypatch.setattr(corpus, "measure_audio", hear)
        found = [
            corpus.Recording("train", name, Utterance(name, str(tmp_path / name), "en", name))
            for name in names
        ]
        if stop:
            with pytest.raises(KeyboardInterrupt):
                corpus.measure(found, tmp_path, workers=1, progress=False)
        else:
            corpus.measure(found, tmp_path, progress=False)
        return heard, [one.utterance.duration for one in found]

    return run


def test_what_was_heard_is_not_heard_again(measure, tmp_path, recording):
    assert measure(stop=True)[0] == ["a.wav", "b.wav"]
    assert measure() == (["b.wav", "c.wav"], [1, 2, 3])
    assert measure() == ([], [1, 2, 3])
    log = tmp_path / "measurements.jsonl"
    log.write_bytes(log.read_bytes()[:-5])  # interrupted in the middle of a line
    recording("a.wav", 1.5)  # exchanged
    assert measure() == (["a.wav", "c.wav"], [1.5, 2, 3])


def test_rate_bounds():
    """Closed form: the MAD of -0.5, 0, 0.5 in equal parts is 0.5; the outlier moves nothing."""
    rates = [14 * math.exp(step) for step in (-0.5, 0, 0.5)] * 10
    reach = math.exp(2 * 1.4826 * 0.5)
    expected = (pytest.approx(14 / reach), pytest.approx(14 * reach))
    assert corpus.rate_bounds(rates, 2.0) == corpus.rate_bounds([*rates, 1e9], 2.0) == expected
    alike = corpus.rate_bounds([14] * 30, 5.0)
    assert alike == (pytest.approx(14 * math.exp(-0.5)), pytest.approx(14 * math.exp(0.5)))
    assert corpus.rate_bounds(rates, 0) == corpus.rate_bounds(rates[:19], 5.0) == (0.0, math.inf)
