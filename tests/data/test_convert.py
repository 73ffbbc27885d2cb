import gzip
import io
import json
import tarfile

import numpy as np
import pytest
import soundfile

from slam_potsa.cli import main
from slam_potsa.data.audio import load_audio
from slam_potsa.data.convert import convert
from slam_potsa.data.jsonl import write_rows
from slam_potsa.data.manifest import Utterance, read_manifest, write_manifest
from slam_potsa.errors import InputError
from slam_potsa.files import HOST, TEMPORARY
from tests.support import refusal, refused
from tests.support.foreign_formats import CUT, EXAMPLES, FIELDS

SLAM_LLM = {"source_format": "slam_llm", "language": "en", "sentence_id": "key"}


@pytest.fixture
def read(tmp_path):
    """Rows of another project -> utterances."""

    def make(lines, source_format, **options):
        there, manifest = tmp_path / "theirs.jsonl.gz", tmp_path / "m.jsonl"
        write_rows(there, lines)
        told = convert(there, manifest, source_format=source_format, **options)
        found = read_manifest(manifest)
        left_out = f"{len(lines) - len(found)} rows that tell nothing new" in told
        assert left_out == (len(lines) > len(found))
        return found

    return make


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_projects_own_lines_become_utterances(name, read):
    lines, options, expected = EXAMPLES[name]
    found = [tuple(getattr(row, field) for field in FIELDS) for row in read(lines, name, **options)]
    assert found == expected


def test_cot_st_rows_that_only_repeat_are_left_out(read):
    """The seven lines of the recipe's README, of one recording, are three translations."""
    text, answers = '"She\'ll be."', {"de": "Alles gut.", "ja": "大丈夫。", "zh": "没事的。"}
    lines = [{"audio": "/c/1.mp3", "prompt": "<|en|>", "gt": text, "source": "covost_en"}]
    for start, source in (("", "en"), (text, "enen")):
        for code, answer in answers.items():
            row = {"prompt": f"{start}<|{code}|>", "gt": f"{text}<|{code}|>{answer}"}
            lines.append({"audio": "/c/1.mp3", "source": f"covost_{source}{code}", **row})
    found = read(lines, "cot_st", sentence_id="transcript")
    assert {row.target_language: row.target for row in found} == answers
    assert {(row.transcript, row.language) for row in found} == {(text, "en")}
    assert [row.key for row in found] == ["c/1", "c/1-2", "c/1-3"]
    assert len({row.sentence_id for row in found}) == 1


DE_EN = {"source_lang": "de-DE", "target_lang": "en"}


def cut(custom):
    return "lhotse", CUT | {"supervisions": [CUT["supervisions"][0] | {"custom": custom}]}


def nemo(**line):
    return "nemo", {"audio_filepath": "a.wav", "duration": None, **line}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (cut({"translation": "嗨", "target_language": "cmn"}), ("fr", "Ça va", "嗨", "zh")),
        (cut(None), ("fr", "Ça va", None, None)),
        (nemo(text="hallo", lang="de"), ("de", "hallo", None, None)),
        (nemo(text="hi", **DE_EN), ("de", None, "hi", "en")),
        (nemo(text="hallo", **DE_EN, answer="hi"), ("de", "hallo", "hi", "en")),
        (nemo(**DE_EN, taskname="ast", answer="na"), ("de", None, None, None)),
        (nemo(text="na", lang="de", target_lang="de", taskname="ast"), ("de", None, "na", "de")),
        (nemo(answer="hallo", context="what?", lang="deu"), ("de", "hallo", None, None)),
    ],
)
def test_lines_in_their_variants(read, line, expected):
    source_format, fields = line
    (row,) = read([fields], source_format, sentence_id="key")
    assert (row.language, row.transcript, row.target, row.target_language) == expected


def test_the_option_says_what_a_cut_is_translated_into(read):
    source_format, fields = cut({"translation": "Alles gut"})
    (row,) = read([fields], source_format, sentence_id="key", target_language="de")
    assert (row.target, row.target_language) == ("Alles gut", "de")


def test_options_say_what_keys_are_made_of_and_what_one_text_is(read):
    for how, equal in {"transcript": False, "target": True, "audio": True, "key": False}.items():
        first, second = read(EXAMPLES["llm_srt"][0], "llm_srt", sentence_id=how)
        assert (first.sentence_id == second.sentence_id) == equal
        assert (first.key, second.key) == ("eng/test/139", "jpn/test/139")
    line = {"key": "k", "source": "a.wav", "target": "没\n事"}
    codes = {"language": "fra", "target_language": "cmn"}
    (row,) = read([line], "slam_llm", sentence_id="target", **codes)
    assert (row.language, row.transcript) == ("fr", None)
    assert (row.target, row.target_language) == ("没 事", "zh")


def test_relative_paths_are_rebased_and_absolute_ones_stay(tmp_path):
    absolute, manifest = str(tmp_path / "data" / "b.wav"), tmp_path / "data" / "train.jsonl"
    paths = {"a": "fr/a.wav", "b": absolute, "c": "fr.tar:./a.wav"}
    write_manifest(manifest, [Utterance(key, audio, "fr", key) for key, audio in paths.items()])
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    assert "3 recordings are not" in convert(manifest, tmp_path / "link" / "m.jsonl")
    found = [row.audio for row in read_manifest(tmp_path / "link" / "m.jsonl")]
    assert found == ["../../data/fr/a.wav", absolute, "../../data/fr.tar:./a.wav"]


def test_the_command_and_the_root_of_relative_paths(tmp_path, capsys):
    there, back = tmp_path / "lists" / "srt.jsonl", tmp_path / "m.jsonl"
    write_rows(there, EXAMPLES["llm_srt"][0][:1])
    audio = tmp_path / "data" / "eng" / "test" / "139.wav"
    audio.parent.mkdir(parents=True)
    audio.touch()
    command = ["prepare", "convert", str(there), str(back), "--from", "llm_srt"]
    command += ["--sentence-id", "key"]
    killed = tmp_path / f"{TEMPORARY}{2**22 + 1}@{HOST}@m-x.jsonl"
    killed.touch()
    assert main(command) == 0 and not killed.exists()
    told = "1 recordings are not where the paths point"
    assert told in capsys.readouterr().out
    assert main([*command, "--audio-root", str(tmp_path / "data")]) == 0
    assert told not in capsys.readouterr().out
    assert read_manifest(back)[0].audio == "data/eng/test/139.wav"


TAGGED, NEMO = {"audio": "a.wav", "gt": "x"}, {"audio_filepath": "a", "lang": "en"}
RECORDING = CUT["recording"]
STEREO = RECORDING["sources"][0] | {"channels": [0, 1]}
BAD = {
    "slam_llm": [({"key": "k"}, "source"), ({"source": "covost_ende", "audio": "a.wav"}, "audio")],
    "cot_st": [
        (TAGGED | {"prompt": "no tag"}, "prompt"),
        (TAGGED | {"prompt": "<|xq|>"}, "language 'xq': not known"),
        ({"audio": "a.wav", "prompt": "<|en|>"}, "gt"),
    ],
    "llm_srt": [
        (TAGGED | {"prompt": "<|eng|><|cmn|>"}, "gt"),
        (TAGGED | {"prompt": "<|a|>"}, "prompt"),
    ],
    "nemo": [
        (NEMO | {name: wrong}, name)
        for name, wrong in (("offset", 3.45), ("duration", "3"), ("audio_filepath", 7))
    ]
    + [({"conversations": [{"from": "User"}] * 2}, "conversations")],
    "ms_swift": [({"messages": m, "audios": a}, "messages") for m, a in (([], ["a"]), ("hi", []))],
    "lhotse": [
        ({"id": "x"}, "type"),
        (CUT | {"supervisions": []}, "type"),
        (CUT | {"custom": "x"}, "type"),
        (CUT | {"start": 0.1, "duration": 0.2}, "duration"),
        (CUT | {"recording": RECORDING | {"transforms": [{"name": "Speed"}]}}, "transforms"),
        (CUT | {"recording": RECORDING | {"sources": [STEREO]}}, "channels"),
    ],
}


@pytest.mark.parametrize("name", BAD)
def test_every_bad_line_is_named_at_once(name, tmp_path):
    there = tmp_path / "bad.jsonl"
    write_rows(there, [line for line, _ in BAD[name]])
    there.write_text(there.read_text() + "\n{broken\n[1]\n")
    options = {"source_format": name, "language": "en", "sentence_id": "key"}
    caught = refusal(convert, there, tmp_path / "m.jsonl", **options)
    told, count = "\n".join(caught.problems), len(BAD[name])
    for number, (_, what) in enumerate(BAD[name], start=1):
        assert f"{there}:{number}: {what if ' ' in what else f'field {what!r}: found'}" in told
    for number in (count + 2, count + 3):  # after an empty line
        assert f"{there}:{number}: found" in told
    assert not (tmp_path / "m.jsonl").exists()


def test_options_that_do_not_fit(read, tmp_path):
    manifest, cut_off = tmp_path / "train.jsonl", tmp_path / "e.jsonl.gz"
    cut_off.write_bytes(gzip.compress(b"x")[:-9])
    repeated = [{"key": "k", "source": "a.wav", "target": "one"}] * 2
    tagged = TAGGED | {"prompt": "<|zh|>", "gt": "Hi.<|zh|>嗨。", "source": "mine"}
    refused("'nemmo': expected one of manifest", read, [], "nemmo")
    refused("is the input too", convert, manifest, manifest)
    refused("leave the options out", convert, manifest, tmp_path / "x", language="fr")
    refused("'qq'", read, [], "nemo", language="qq")
    refused("found no row", read, [], "nemo")
    refused(":2: field 'key': found 'k', which line 1 has already", read, repeated, **SLAM_LLM)
    refused("e.jsonl.gz: cannot be read", convert, cut_off, tmp_path / "x", source_format="nemo")
    refused(":1: no language; give --language, such as fr", read, repeated[:1], "slam_llm")
    refused("give --sentence-id transcript", read, repeated[:1], "slam_llm", language="en")
    refused("no language; give --language", read, [tagged], "cot_st", sentence_id="key")
    assert read([tagged], "cot_st", sentence_id="key", language="en")[0].language == "en"


def packed(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def sound():
    stream = io.BytesIO()
    soundfile.write(stream, np.full(8000, 0.1), 16000, format="FLAC")
    return stream.getvalue()


def test_shards_are_read_where_they_lie(sound, tmp_path):
    (tmp_path / "shar").mkdir()
    source = {"sources": [{"type": "shar", "channels": [0], "source": ""}]}
    for number in (0, 1):
        cut = CUT | {"id": f"c.{number}-0", "recording": CUT["recording"] | source}
        write_rows(tmp_path / f"shar/cuts.{number:06d}.jsonl.gz", [cut])
        members = {f"{cut['id']}.flac": sound, f"{cut['id']}.json": b"{}"}
        packed(tmp_path / f"shar/recording.{number:06d}.tar", members)
    (tmp_path / "wds").mkdir()
    said = {"language": "French", "target": "没事", "target_language": "zh", "speaker": 7}
    said = {"a/1.json": json.dumps(said).encode(), "a/1.flac": sound, "a/1.txt": b"\xc3\x87a va."}
    packed(tmp_path / "wds/x-0.tar", said)
    for name, form, options in (
        ("shar", "lhotse", {"sentence_id": "key"}),
        ("wds", "webdataset", {"sentence_id": "transcript"}),
    ):
        out = tmp_path / "made" / f"{name}.jsonl"
        told = convert(tmp_path / name, out, source_format=form, **options)
        assert "are not where" not in told
        rows = read_manifest(out)
        assert all(len(load_audio(row.audio, out.parent)) == 8000 for row in rows)
        assert {(row.language, row.target, row.target_language) for row in rows} == {
            ("fr", "没事", "zh")
        }
    assert rows[0].transcript == "Ça va." and rows[0].key == "x-0/a/1"
    said = {"audio": "original.wav", "key": "k", "sentence_id": "s", "language": "fr"}
    packed(tmp_path / "x.tar", {"./1.WAV": sound, "./1.json": json.dumps(said).encode()})
    convert(tmp_path / "x.tar", tmp_path / "m.jsonl", source_format="webdataset")
    (row,) = read_manifest(tmp_path / "m.jsonl")  # named as its tar names it
    assert (row.key, row.audio) == ("x/1", "x.tar:./1.WAV")
    assert len(load_audio(row.audio, tmp_path)) == 8000


def test_shards_that_lack_something_say_what(sound, tmp_path):
    broken = {"1.json": b"[", "1.flac": sound, "2.json": b"7", "2.flac": sound, "3.txt": b"x"}
    broken |= {"4.json": b'{"text": "a", "text": "b"}', "4.flac": sound}
    packed(tmp_path / "x.tar", broken)
    options = {"language": "fr", "sentence_id": "key", "source_format": "webdataset"}
    caught = refusal(convert, tmp_path / "x.tar", tmp_path / "m.jsonl", **options)
    assert len(caught.problems) == 4 and "'audio'" in str(caught)
    assert "4: found" in str(caught) and "field 'text' is there twice" in str(caught)
    refused("reads cuts", convert, tmp_path, tmp_path / "m.jsonl", source_format="lhotse")
    shar = {**CUT["recording"], "sources": [{"type": "shar", "source": ""}]}
    write_rows(tmp_path / "cuts.0.jsonl", [CUT | {"recording": shar}])
    with pytest.raises(InputError, match="no audio of cut 'cut-1' in recording.0.tar"):
        convert(tmp_path, tmp_path / "m.jsonl", source_format="lhotse")
