"""What data sources share: recordings are heard once."""

from contextlib import nullcontext

import pytest

from slam_potsa.data.jsonl import Log
from slam_potsa.data.manifest import Utterance
from slam_potsa.data.sources import corpus


def test_what_was_heard_is_not_heard_again(tmp_path, recording, monkeypatch):
    lengths, listen = dict(zip("abc", (1.0, 2.0, 3.0), strict=True)), corpus.measure_audio
    for name, seconds in lengths.items():
        recording(name + ".wav", seconds)
    monkeypatch.setattr(corpus, "BATCH", 1)

    def heard(stop_at=None):
        """The names of the recordings that are listened to, until it is interrupted."""
        names = []

        def hear(audio, **options):
            names.append(audio[-5])
            if len(names) == stop_at:
                raise KeyboardInterrupt
            return listen(audio, **options)

        monkeypatch.setattr(corpus, "measure_audio", hear)
        rows = [Utterance(name, f"{tmp_path}/{name}.wav", "en", name) for name in lengths]
        found = [corpus.Recording("train", row.key, row) for row in rows]
        with pytest.raises(KeyboardInterrupt) if stop_at else nullcontext():
            corpus.measure(found, tmp_path, progress=False)
            assert [one.utterance.duration for one in found] == [*lengths.values()]
        return "".join(names)

    assert [heard(stop_at=2), heard(), heard()] == ["ab", "bc", ""]
    log = tmp_path / "measurements.jsonl"
    log.write_bytes(log.read_bytes()[:-5])  # interrupted in the middle of a line
    recording("a.wav", 1.5)  # exchanged
    lengths["a"] = 1.5
    assert heard() == "ac"


def test_a_measured_recording_that_is_too_long_now_is_left_out(tmp_path, recording):
    recording("a.wav", 1.0)
    row = Utterance("a", f"{tmp_path}/a.wav", "en", "a")
    with Log(tmp_path / "measurements.jsonl") as log:
        log.add([{"recording": corpus._name(row.audio), "found": 45.0}])
    found = corpus.Recording("train", "a", row)
    corpus.measure([found], tmp_path, progress=False)
    assert found.reason == "longer than 30 s"
