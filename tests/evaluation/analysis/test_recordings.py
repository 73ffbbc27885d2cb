import pytest

from slam_potsa.data.manifest import Utterance, write_manifest
from slam_potsa.errors import InputError
from slam_potsa.evaluation.analysis import Settings, read_recordings


def write(folder, name, spoken):
    """A manifest of {language: sentences}."""
    write_manifest(
        folder / f"{name}.jsonl",
        [
            Utterance(f"{name}/{language}/{sentence}", "a.wav", language, sentence)
            for language, sentences in spoken.items()
            for sentence in sentences
        ],
    )
    return folder / f"{name}.jsonl"


def letters(count, start=0):
    return [f"s{n:02d}" for n in range(start, start + count)]


def test_manifests_are_read_one_after_the_other(tmp_path):
    first = write(tmp_path, "train", {"en": letters(3), "es": letters(3)})
    second = write(tmp_path, "more", {"fr": letters(3)})
    found = read_recordings([first, second], Settings())
    assert found.languages == ["en"] * 3 + ["es"] * 3 + ["fr"] * 3
    assert [len(part) for part in found.parts] == [6, 3]
    assert found.detail == tuple(range(9))


def test_sentences_are_drawn_of_parallel_ones_and_the_same_every_time(tmp_path):
    manifest = write(tmp_path, "m", {"en": letters(40), "es": letters(20)})
    found = read_recordings([manifest], Settings(sentences=5))
    assert found == read_recordings([manifest], Settings(sentences=5))
    assert len(set(found.sentences)) == 5 and found.languages.count("en") == 5
    assert set(found.sentences) <= set(letters(20))
    other = read_recordings([manifest], Settings(sentences=5, seed=1))
    assert set(other.sentences) != set(found.sentences)
    everything = read_recordings([manifest], Settings())
    assert len(everything.languages) == 60  # sentences without a counterpart stay as distractors


def test_the_detail_is_of_sentences_in_the_most_languages(tmp_path):
    manifest = write(
        tmp_path, "m", {"en": letters(30), "es": letters(30), "fr": letters(6, start=10)}
    )
    found = read_recordings([manifest], Settings(detail_sentences=6))
    assert {found.sentences[row] for row in found.detail} == set(letters(6, start=10))
    assert len(found.detail) == 18


def test_all_that_is_wrong_at_once(tmp_path):
    first = write(tmp_path, "m", {"en": letters(4), "es": letters(4), "fr": [*letters(1), "only"]})
    with pytest.raises(InputError) as error:
        read_recordings([first, first], Settings(), heard=["en", "eo"])
    text = str(error.value)
    assert "share 10 keys, such as 'm/en/s00'" in text and "every recording once" in text
    assert len(error.value.problems) == 3
    assert "language 'fr': 1 of its sentences" in text
    assert "heard 'eo': not spoken" in text and "en, es, fr" in text


def test_one_language_no_manifest_and_missing_ones(tmp_path):
    with pytest.raises(InputError, match="found only en"):
        read_recordings([write(tmp_path, "m", {"en": letters(3)})], Settings())
    with pytest.raises(InputError, match="no manifest"):
        read_recordings([], Settings())
    with pytest.raises(InputError) as error:
        read_recordings([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], Settings())
    assert len(error.value.problems) == 2


def test_settings_are_checked_together():
    with pytest.raises(InputError) as error:
        Settings(codes=1, folds=0, epsilon=0, sentences=1)
    assert len(error.value.problems) == 4
