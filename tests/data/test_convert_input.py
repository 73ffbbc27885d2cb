"""Where audio paths point after a conversion, and what wrong input gets."""

import dataclasses
import gzip
from functools import partial

import pytest

from slam_potsa.data.convert import FORMATS, convert
from slam_potsa.data.manifest import Utterance, read_manifest
from slam_potsa.errors import InputError
from tests.support.foreign_formats import TRANSLATED, make_corpus, rows, write_rows


@pytest.fixture
def corpus(tmp_path):
    return partial(make_corpus, tmp_path)


# Paths


def test_relative_paths_are_rebased_and_absolute_ones_stay(corpus, tmp_path):
    absolute = str(tmp_path / "data" / "audio" / "fr" / "b.wav")
    manifest = corpus(TRANSLATED, dataclasses.replace(TRANSLATED, key="b", audio=absolute))
    convert(manifest, tmp_path / "else" / "where" / "m.jsonl")
    found = read_manifest(tmp_path / "else" / "where" / "m.jsonl")
    assert [row.audio for row in found] == ["../../data/audio/fr/a.wav", absolute]


def test_rebased_paths_follow_links_to_folders(corpus, tmp_path):
    manifest = corpus(TRANSLATED)
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    assert convert(manifest, tmp_path / "link" / "m.jsonl").absent == 0
    (row,) = read_manifest(tmp_path / "link" / "m.jsonl")
    assert (tmp_path / "link" / row.audio).is_file()


def test_audio_root_says_where_the_input_was_used(corpus, tmp_path):
    corpus(TRANSLATED)
    line = {"key": "k", "source": "data/audio/fr/a.wav", "target": "Ça va"}
    there = write_rows(tmp_path / "lists" / "s.jsonl", [line])
    options = {"source_format": "slam_llm", "language": "fr", "sentence_id": "key"}
    wrong = convert(there, tmp_path / "m.jsonl", **options)
    assert wrong.absent == 1 and "--audio-root" in wrong.summary
    assert convert(there, tmp_path / "m.jsonl", audio_root=tmp_path, **options).absent == 0
    assert read_manifest(tmp_path / "m.jsonl")[0].audio == "data/audio/fr/a.wav"


def test_members_of_archives_stay_ours(corpus, tmp_path):
    zipped = dataclasses.replace(TRANSLATED, key="b", audio="../en.tar:x/a.wav")
    manifest = corpus(dataclasses.replace(TRANSLATED, audio="fr.tar:./a.wav"), zipped)
    convert(manifest, tmp_path / "m.jsonl")
    found = [row.audio for row in read_manifest(tmp_path / "m.jsonl")]
    assert found == ["data/fr.tar:./a.wav", "en.tar:x/a.wav"]
    for name in set(FORMATS) - {"manifest", "lhotse"}:
        with pytest.raises(InputError, match="unpack it"):
            convert(manifest, tmp_path / "x.jsonl", output_format=name)
    assert not (tmp_path / "x.jsonl").exists()


# Wrong input


BAD = {
    "slam_llm": [({"key": "k"}, "field 'source': found nothing, expected text")],
    "cot_st": [
        ({"audio": "a.wav", "gt": "x", "prompt": "no tag"}, "field 'prompt': found 'no tag'"),
        ({"audio": "a.wav", "gt": "x", "prompt": "<|xq|>"}, "language 'xq': not known"),
        ({"prompt": "<|en|>"}, "field 'gt': found nothing"),
    ],
    "llm_srt": [
        ({"audio": "a", "gt": "x", "prompt": "<|eng|><|cmn|>"}, "field 'gt': found 'x', expected"),
        ({"audio": "a", "gt": "x", "prompt": "<|a|>"}, "field 'prompt'"),
    ],
    "nemo": [
        ({"audio_filepath": "a", "offset": 3.45, "lang": "en"}, "field 'offset': found 3.45"),
        ({"audio_filepath": "a", "duration": "3", "lang": "en"}, "field 'duration': found '3'"),
        ({"audio_filepath": 7, "lang": "en"}, "field 'audio_filepath': found 7, expected text"),
    ],
    "ms_swift": [
        ({"messages": [], "audios": ["a"]}, "field 'messages': found []"),
        ({"messages": "hi", "audios": []}, "field 'audios': found [], expected a list with"),
    ],
    "lhotse": [
        ({"id": "x"}, "field 'type': found nothing, expected 'MonoCut'"),
        ({"type": "MonoCut", "id": "x"}, "not a cut that Lhotse reads"),
    ],
}


@pytest.mark.parametrize("name", BAD)
def test_every_bad_line_is_named_at_once(name, tmp_path):
    if name == "lhotse":
        pytest.importorskip("lhotse")
    there = write_rows(tmp_path / "bad.jsonl", [line for line, _ in BAD[name]])
    with open(there, "a") as file:
        file.write("\n{broken\n[1]\n")
    with pytest.raises(InputError) as caught:
        convert(
            there,
            tmp_path / "m.jsonl",
            source_format=name,
            language="en",
            sentence_id="key",
        )
    count = len(BAD[name])
    for number, (_, message) in enumerate(BAD[name], start=1):
        assert any(p.startswith(f"{there}:{number}: {message}") for p in caught.value.problems)
    for number in (count + 2, count + 3):  # after an empty line
        assert any(p.startswith(f"{there}:{number}: found") for p in caught.value.problems)
    assert not (tmp_path / "m.jsonl").exists()


def test_what_is_missing_everywhere_is_said_once_with_its_remedy(tmp_path):
    lines = [{"key": f"k{i}", "source": f"{i}.wav", "target": "x"} for i in range(3)]
    there = write_rows(tmp_path / "s.jsonl", lines)
    with pytest.raises(InputError) as caught:
        convert(there, tmp_path / "m.jsonl", source_format="slam_llm")
    assert caught.value.problems == [
        f"{there}:1 (and 2 other lines): no language; give --language, such as fr",
        f"{there}:1 (and 2 other lines): no sentence_id; give --sentence-id "
        "transcript|target|key|audio: what tells sentences apart",
    ]


def test_a_cot_st_row_whose_source_says_no_language_needs_the_option(tmp_path):
    line = {"audio": "a.wav", "prompt": "<|zh|>", "gt": "Hi.<|zh|>嗨。", "source": "mine"}
    there = write_rows(tmp_path / "s.jsonl", [line])
    options = {"source_format": "cot_st", "sentence_id": "key"}
    with pytest.raises(InputError, match="no language; give --language"):
        convert(there, tmp_path / "m.jsonl", **options)
    convert(there, tmp_path / "m.jsonl", language="en", **options)
    assert read_manifest(tmp_path / "m.jsonl")[0].language == "en"


def test_repeated_keys_and_line_breaks(tmp_path):
    lines = [{"key": "k", "source": "a.wav", "target": "one\ntwo\tthree"}] * 2
    there = write_rows(tmp_path / "s.jsonl", lines)
    options = {"source_format": "slam_llm", "language": "en", "sentence_id": "key"}
    with pytest.raises(InputError, match=":2: field 'key': found 'k', which line 1 has already"):
        convert(there, tmp_path / "m.jsonl", **options)
    write_rows(there, lines[:1])
    convert(there, tmp_path / "m.jsonl", **options)
    assert read_manifest(tmp_path / "m.jsonl")[0].transcript == "one two three"


@pytest.mark.parametrize("name", ["cot_st", "llm_srt", "slam_llm", "nemo", "ms_swift"])
def test_what_a_format_cannot_do_without_is_reported_by_key(name, corpus, tmp_path):
    bare = Utterance("fr/a", "audio/fr/a.wav", "fr", "s1")
    with pytest.raises(InputError, match=r"key 'fr/a': .*needs (it|one)"):
        convert(corpus(bare), tmp_path / "x.jsonl", output_format=name)
    assert not (tmp_path / "x.jsonl").exists()


def test_options_that_do_not_fit(corpus, tmp_path):
    manifest = corpus(TRANSLATED)
    with pytest.raises(InputError, match="format 'nemmo': expected one of manifest, slam_llm"):
        convert(manifest, tmp_path / "x", output_format="nemmo")
    with pytest.raises(InputError, match="is the input too"):
        convert(manifest, manifest)
    with pytest.raises(InputError, match="a manifest says these itself: language"):
        convert(manifest, tmp_path / "x", language="fr")
    with pytest.raises(InputError) as caught:
        convert(manifest, tmp_path / "x", source_format="nemo", language="qq", sentence_id="id")
    assert len(caught.value.problems) == 2
    with pytest.raises(InputError, match="no such file"):
        convert(tmp_path / "nowhere.jsonl", tmp_path / "x", source_format="nemo")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="found no row"):
        convert(tmp_path / "empty.jsonl", tmp_path / "x", source_format="nemo")


def test_lhotse_cuts_that_are_parts_and_files_that_are_not_there(corpus, tmp_path):
    pytest.importorskip("lhotse")
    manifest = corpus(TRANSLATED)
    convert(manifest, tmp_path / "c.jsonl", output_format="lhotse")
    (cut,) = rows(tmp_path / "c.jsonl")
    cut["start"], cut["duration"] = 0.1, 0.2
    write_rows(tmp_path / "c.jsonl", [cut])
    with pytest.raises(InputError, match=r"c.jsonl:1: is 0.1 to 0.3 s of a recording of 0.5 s"):
        convert(tmp_path / "c.jsonl", tmp_path / "m.jsonl", source_format="lhotse")
    missing = corpus(dataclasses.replace(TRANSLATED, audio="gone.wav"))
    with pytest.raises(InputError, match="gone.wav: no such file"):
        convert(missing, tmp_path / "d.jsonl", output_format="lhotse")
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress(b"x")[:-9])
    with pytest.raises(InputError, match="e.jsonl.gz: cannot be read"):
        convert(tmp_path / "e.jsonl.gz", tmp_path / "m.jsonl", source_format="lhotse")
