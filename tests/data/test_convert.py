"""What survives a conversion, what rows say, where paths point, and what wrong input gets."""

import gzip
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from slam_potsa.cli import main
from slam_potsa.data.convert import FORMATS, convert
from slam_potsa.data.jsonl import write_rows
from slam_potsa.data.manifest import FIELDS, Utterance, foreign_format, read_manifest
from slam_potsa.errors import InputError
from tests.support.foreign_formats import EXAMPLES, TRANSCRIBED, TRANSLATED, make_corpus, rows

HERE = [name for name in FORMATS if name != "lhotse" or find_spec("lhotse")]
ONE_TEXT = {"language": "fr", "target_language": "zh", "sentence_id": "key"}
OPTIONS = {  # what a format needs to be told of a manifest of translations
    **{"slam_llm": ONE_TEXT, "ms_swift": ONE_TEXT},
    **{"cot_st": {"sentence_id": "key"}, "llm_srt": {"sentence_id": "key"}},
}
SLAM_LLM = {"source_format": "slam_llm", "language": "en", "sentence_id": "key"}


@pytest.fixture
def corpus(tmp_path):
    """`corpus(*utterances)`: their manifest, with recordings."""
    return lambda *utterances: make_corpus(tmp_path, *utterances)


@pytest.fixture
def read(tmp_path):
    """Rows of another project -> utterances."""

    def make(lines, source_format, **options):
        write_rows(tmp_path / "theirs.jsonl", lines)
        there, manifest = tmp_path / "theirs.jsonl", tmp_path / "m.jsonl"
        convert(there, manifest, source_format=source_format, **options)
        return read_manifest(manifest)

    return make


# What survives


@pytest.mark.parametrize("name", HERE)
def test_a_manifest_comes_back_in_all_that_the_format_holds(name, corpus, tmp_path):
    other = replace(TRANSLATED, key="fr/b", audio="audio/fr/b.wav", sentence_id="s2")
    # As in the Asterisk prompts, whose English recordings have their own text as the target.
    same = replace(TRANSLATED, key="fr/c", audio="audio/en/a.wav", target="=", target_language="fr")
    held = [TRANSLATED, other] + [same] * (not FORMATS[name].one_text)
    manifest, holds = corpus(*held), set(FORMATS[name].holds)
    there, back = tmp_path / "elsewhere" / "file.jsonl", tmp_path / "back" / "deep" / "m.jsonl"
    done, options = convert(manifest, there, output_format=name), OPTIONS.get(name, {})
    convert(there, back, source_format=name, **options)
    text = {"target"} if FORMATS[name].one_text else set()
    assert set(done.lost) == set(FIELDS) - holds - text and done.absent == 0
    for before, after in zip(read_manifest(manifest), read_manifest(back), strict=True):
        for field in (holds - {"audio"}) | {"target"}:
            assert getattr(after, field) == getattr(before, field), field
        assert (back.parent / after.audio).samefile(manifest.parent / before.audio)
    # And transcripts alone.
    convert(corpus(TRANSCRIBED), there, output_format=name)
    options = {"language": "en", "sentence_id": "key"} if options else {}
    convert(there, back, source_format=name, **options)
    (row,) = read_manifest(back)
    assert (row.transcript, row.language) == (TRANSCRIBED.transcript, "en")
    assert row.target is None and row.target_language is None


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_projects_own_lines_come_back(name, tmp_path):
    lines, options, added = EXAMPLES[name]
    there, manifest, back = (tmp_path / part for part in ("theirs", "m/manifest.jsonl", "back"))
    write_rows(there, lines)
    convert(there, manifest, source_format=name, **options)
    convert(manifest, back, output_format=name)
    assert {key for row in rows(back) for key in row} - lines[0].keys() == added
    assert [{k: v for k, v in row.items() if k not in added} for row in rows(back)] == lines


def test_lhotse_cuts_come_back_through_lhotse_itself(corpus, tmp_path):
    lhotse = pytest.importorskip("lhotse")
    audio = corpus(TRANSLATED).parent / "audio" / "fr" / "a.wav"
    cut = lhotse.Recording.from_file(audio, recording_id="rec").to_cut()
    said = {"text": "Ça va", "language": "fra", "custom": {"translated_text": {"zh-CN": "没事"}}}
    cut.id = "cut-1"
    cut.supervisions = [lhotse.SupervisionSegment("sup", "rec", 0.0, cut.duration, **said)]
    cuts, manifest, back = (tmp_path / n for n in ("c.jsonl.gz", "m.jsonl", "back.jsonl.gz"))
    lhotse.CutSet.from_cuts([cut]).to_file(cuts)
    convert(cuts, manifest, source_format="lhotse", sentence_id="transcript")
    (row,) = read_manifest(manifest)
    assert (row.key, row.language, row.transcript) == ("cut-1", "fr", "Ça va")
    assert (row.target, row.target_language, row.duration) == ("没事", "zh", 0.5)
    convert(manifest, back, output_format="lhotse")
    (returned,) = lhotse.CutSet.from_file(back)
    assert returned.id == "cut-1" and returned.supervisions[0].text == "Ça va"
    assert returned.supervisions[0].custom["translation"] == "没事"
    assert returned.load_audio().shape == (1, 8_000)
    assert foreign_format(returned.to_dict()) == "lhotse"
    write_rows(tmp_path / "c.jsonl", [{**returned.to_dict(), "start": 0.1, "duration": 0.2}])
    with pytest.raises(InputError, match="field 'duration': found 0.2, .*CutSet.save_audios"):
        convert(tmp_path / "c.jsonl", manifest, source_format="lhotse")


# What rows say


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


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"text": "hallo", "lang": "de"}, ("hallo", None, None)),
        ({"text": "hi", **DE_EN}, (None, "hi", "en")),
        ({"text": "hallo", **DE_EN, "answer": "hi"}, ("hallo", "hi", "en")),
        ({**DE_EN, "taskname": "ast", "answer": "na"}, (None, None, None)),
        ({"answer": "hallo", "context": "what?", "lang": "deu"}, ("hallo", None, None)),
    ],
)
def test_nemo_in_its_variants(read, line, expected):
    (row,) = read(
        [{"audio_filepath": "a.wav", "duration": None, **line}], "nemo", sentence_id="key"
    )
    assert (row.language, row.transcript, row.target, row.target_language) == ("de", *expected)


def test_one_text_is_the_translation_where_a_target_language_is_given(read):
    line = {"key": "k", "source": "a.wav", "target": "没\n事"}
    codes = {"language": "fra", "target_language": "cmn"}
    (row,) = read([line], "slam_llm", sentence_id="target", **codes)
    assert (row.language, row.transcript) == ("fr", None)
    assert (row.target, row.target_language) == ("没 事", "zh")


def test_rows_are_as_their_readers_expect(corpus, tmp_path):
    manifest, found = corpus(replace(TRANSLATED, language="sw", duration=None)), {}
    for name in ("nemo", "llm_srt", "ms_swift"):
        convert(manifest, tmp_path / "data" / "x.jsonl", output_format=name)
        (found[name],) = rows(tmp_path / "data" / "x.jsonl")
    assert found["nemo"]["duration"] == 0.5  # measured
    assert found["llm_srt"]["prompt"] == "<|swh|><|cmn|>"
    assert found["llm_srt"]["audio"] == "audio/fr/a.wav"
    assert found["ms_swift"]["audios"] == [str(manifest.parent / "audio/fr/a.wav")]
    asked = found["ms_swift"]["messages"][0]["content"]
    assert asked == "<audio>Translate the speech to Chinese:"


def test_keys_and_sentence_ids_are_made_of_what_is_asked(read):
    for how, equal in {"transcript": False, "target": True, "audio": True, "key": False}.items():
        first, second = read(EXAMPLES["llm_srt"][0], "llm_srt", sentence_id=how)
        assert (first.sentence_id == second.sentence_id) == equal
        assert (first.key, second.key) == ("eng/test/139", "jpn/test/139")


# Paths


def test_relative_paths_are_rebased_and_absolute_ones_stay(corpus, tmp_path):
    absolute = str(tmp_path / "data" / "audio" / "fr" / "b.wav")
    zipped = replace(TRANSLATED, key="c", audio="fr.tar:./a.wav")
    manifest = corpus(TRANSLATED, replace(TRANSLATED, key="b", audio=absolute), zipped)
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    convert(manifest, tmp_path / "link" / "m.jsonl")
    first, *rest = [row.audio for row in read_manifest(tmp_path / "link" / "m.jsonl")]
    assert first == "../../data/audio/fr/a.wav" and (tmp_path / "link" / first).is_file()
    assert rest == [absolute, "../../data/fr.tar:./a.wav"]
    for name in set(HERE) - {"manifest"}:
        with pytest.raises(InputError, match="key 'c': .*unpack it"):
            convert(manifest, tmp_path / "x.jsonl", output_format=name)
    assert not (tmp_path / "x.jsonl").exists()


def test_the_command_and_the_root_of_relative_paths(corpus, tmp_path, capsys):
    srt, back = str(tmp_path / "lists" / "srt.jsonl"), str(tmp_path / "m.jsonl")
    command = ["prepare", "convert"]
    assert main([*command, str(corpus(TRANSLATED)), srt, "--to", "llm_srt"]) == 0
    assert "not in this format: sentence_id, duration" in capsys.readouterr().out
    write_rows(srt, [rows(Path(srt))[0] | {"audio": "data/audio/fr/a.wav"}])
    command += [srt, back, "--from", "llm_srt", "--sentence-id", "key"]
    assert main(command) == 0
    assert "1 recordings are not where the paths point" in capsys.readouterr().out
    assert main([*command, "--audio-root", str(tmp_path)]) == 0
    assert "not where" not in capsys.readouterr().out
    assert read_manifest(back)[0].audio == "data/audio/fr/a.wav"


# Wrong input


TAGGED, NEMO = {"audio": "a.wav", "gt": "x"}, {"audio_filepath": "a", "lang": "en"}
BAD = {
    "slam_llm": [({"key": "k"}, "source")],
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
    ],
    "ms_swift": [({"messages": m, "audios": a}, "messages") for m, a in (([], ["a"]), ("hi", []))],
    "lhotse": [({"id": "x"}, "type"), ({"type": "MonoCut", "id": "x"}, "type")],
}


@pytest.mark.parametrize("name", [name for name in BAD if name in HERE])
def test_every_bad_line_is_named_at_once(name, tmp_path):
    there = tmp_path / "bad.jsonl"
    write_rows(there, [line for line, _ in BAD[name]])
    there.write_text(there.read_text() + "\n{broken\n[1]\n")
    options = {"source_format": name, "language": "en", "sentence_id": "key"}
    with pytest.raises(InputError) as caught:
        convert(there, tmp_path / "m.jsonl", **options)
    told, count = "\n".join(caught.value.problems), len(BAD[name])
    for number, (_, what) in enumerate(BAD[name], start=1):
        assert f"{there}:{number}: {what if ' ' in what else f'field {what!r}: found'}" in told
    for number in (count + 2, count + 3):  # after an empty line
        assert f"{there}:{number}: found" in told
    assert not (tmp_path / "m.jsonl").exists()


def test_what_a_format_cannot_do_without_is_reported_by_key(corpus, tmp_path):
    bare = corpus(Utterance("fr/a", "audio/fr/a.wav", "fr", "s1"))
    for name in EXAMPLES:
        with pytest.raises(InputError, match="key 'fr/a': field 'transcript'.*needs it"):
            convert(bare, tmp_path / "x.jsonl", output_format=name)
    assert not (tmp_path / "x.jsonl").exists()


def test_options_that_do_not_fit(corpus, read, tmp_path):
    def refused(message, call, *arguments, **options):
        with pytest.raises(InputError, match=message):
            call(*arguments, **options)

    manifest, cut_off = corpus(TRANSLATED), tmp_path / "e.jsonl.gz"
    cut_off.write_bytes(gzip.compress(b"x")[:-9])
    repeated = [{"key": "k", "source": "a.wav", "target": "one"}] * 2
    tagged = TAGGED | {"prompt": "<|zh|>", "gt": "Hi.<|zh|>嗨。", "source": "mine"}
    refused("2 problems", convert, manifest, manifest, output_format="nemmo")
    refused("leave the options out", convert, manifest, tmp_path / "x", language="fr")
    refused("'qq'", read, [], "nemo", language="qq")
    refused("found no row", read, [], "nemo")
    refused(":2: field 'key': found 'k', which line 1 has already", read, repeated, **SLAM_LLM)
    refused("e.jsonl.gz: cannot be read", convert, cut_off, tmp_path / "x", source_format="nemo")
    refused(":1: no language; give --language, such as fr", read, repeated[:1], "slam_llm")
    refused("give --sentence-id transcript", read, repeated[:1], "slam_llm", language="en")
    refused("no language; give --language", read, [tagged], "cot_st", sentence_id="key")
    assert read([tagged], "cot_st", sentence_id="key", language="en")[0].language == "en"
