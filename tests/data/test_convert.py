"""What survives a conversion, and what a format's rows say."""

import dataclasses
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from slam_potsa.commands import prepare_convert
from slam_potsa.data.convert import FORMATS, convert
from slam_potsa.data.manifest import FIELDS, read_manifest
from tests.support.foreign_formats import (
    EXAMPLES,
    TRANSCRIBED,
    TRANSLATED,
    make_corpus,
    rows,
    write_rows,
)

HERE = [name for name in FORMATS if name != "lhotse" or find_spec("lhotse")]
OPTIONS = {  # what a format needs to be told of a manifest of translations
    "slam_llm": {"language": "fr", "target_language": "zh", "sentence_id": "key"},
    "ms_swift": {"language": "fr", "target_language": "zh", "sentence_id": "key"},
    "cot_st": {"sentence_id": "key"},
    "llm_srt": {"sentence_id": "key"},
}


@pytest.fixture
def corpus(tmp_path):
    return partial(make_corpus, tmp_path)


def whole(audio, manifest):
    return (manifest.parent / audio).resolve()


# Round trips


@pytest.mark.parametrize("name", HERE)
def test_manifest_comes_back_in_all_fields_that_the_format_holds(name, corpus, tmp_path):
    other = dataclasses.replace(TRANSLATED, key="fr/b", audio="audio/fr/b.wav", sentence_id="s2")
    manifest = corpus(TRANSLATED, other)
    there, back = tmp_path / "elsewhere" / "file.jsonl", tmp_path / "back" / "deep" / "m.jsonl"
    done = convert(manifest, there, output_format=name)
    convert(there, back, source_format=name, **OPTIONS.get(name, {}))
    holds = FORMATS[name].holds
    text = {"target"} if FORMATS[name].one_text else set()
    assert set(done.lost) == set(FIELDS) - holds - text and done.absent == 0
    for before, after in zip(read_manifest(manifest), read_manifest(back), strict=True):
        for field in holds - {"audio"}:
            assert getattr(after, field) == getattr(before, field), field
        assert whole(after.audio, back) == whole(before.audio, manifest)
        assert after.target == before.target


@pytest.mark.parametrize("name", HERE)
def test_transcripts_alone_come_back_too(name, corpus, tmp_path):
    manifest = corpus(TRANSCRIBED)
    there, back = tmp_path / "file.jsonl", tmp_path / "m.jsonl"
    convert(manifest, there, output_format=name)
    options = dict(OPTIONS.get(name, {}))
    options.pop("target_language", None)
    if "language" in options:
        options["language"] = "en"
    convert(there, back, source_format=name, **options)
    (row,) = read_manifest(back)
    assert (row.transcript, row.language) == (TRANSCRIBED.transcript, "en")
    assert row.target is None and row.target_language is None
    if "duration" in FORMATS[name].holds:
        assert row.duration == 0.5


@pytest.mark.parametrize("name", [name for name in HERE if "target" in FORMATS[name].holds])
def test_a_target_in_the_spoken_language_stays_a_target(name, corpus, tmp_path):
    """As in the Asterisk prompts, whose English recordings have their own text as the target."""
    same = dataclasses.replace(TRANSCRIBED, target="all right", target_language="en")
    convert(corpus(same), tmp_path / "file.jsonl", output_format=name)
    convert(
        tmp_path / "file.jsonl",
        tmp_path / "m.jsonl",
        source_format=name,
        **OPTIONS.get(name, {}),
    )
    (row,) = read_manifest(tmp_path / "m.jsonl")
    assert (row.transcript, row.target, row.target_language) == ("All right.", "all right", "en")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_projects_own_lines_come_back(name, tmp_path):
    lines, options, added = EXAMPLES[name]
    there = write_rows(tmp_path / "theirs.jsonl", lines)
    manifest, back = tmp_path / "m" / "manifest.jsonl", tmp_path / "back.jsonl"
    convert(there, manifest, source_format=name, **options)
    convert(manifest, back, output_format=name)
    returned = rows(back)
    assert {key for row in returned for key in row} - {key for row in lines for key in row} == added
    assert [{k: v for k, v in row.items() if k not in added} for row in returned] == lines


def test_lhotse_cuts_come_back_through_lhotse_itself(corpus, tmp_path):
    lhotse = pytest.importorskip("lhotse")
    corpus(TRANSLATED)
    audio = tmp_path / "data" / "audio" / "fr" / "a.wav"
    recording = lhotse.Recording.from_file(audio, recording_id="rec")
    cut = lhotse.MonoCut(
        id="cut-1", start=0.0, duration=recording.duration, channel=0, recording=recording
    )
    cut.supervisions = [
        lhotse.SupervisionSegment(
            id="sup",
            recording_id="rec",
            start=0.0,
            duration=recording.duration,
            text="Ça va",
            language="fra",
            custom={"translated_text": {"zh-CN": "没事"}},
        )
    ]
    lhotse.CutSet.from_cuts([cut]).to_file(tmp_path / "cuts.jsonl.gz")
    manifest, back = tmp_path / "m.jsonl", tmp_path / "back.jsonl.gz"
    convert(tmp_path / "cuts.jsonl.gz", manifest, source_format="lhotse", sentence_id="transcript")
    (row,) = read_manifest(manifest)
    assert (row.key, row.language, row.transcript) == ("cut-1", "fr", "Ça va")
    assert (row.target, row.target_language, row.duration) == ("没事", "zh", 0.5)
    convert(manifest, back, output_format="lhotse")
    (returned,) = lhotse.CutSet.from_file(back)
    assert returned.id == "cut-1" and returned.supervisions[0].text == "Ça va"
    assert returned.supervisions[0].custom["translation"] == "没事"
    assert returned.load_audio().shape == (1, 8_000)


# What a format says, and what it is told


def test_cot_st_rows_that_only_repeat_are_left_out(tmp_path):
    """The seven lines of the recipe's README, of one recording, are three translations."""
    text = '"She\'ll be all right."'
    answers = {
        "de": "Sie wird schon in Ordnung sein.",
        "ja": "彼女は大丈夫だろう。",
        "zh": "她会没事的。",
    }
    lines = [{"audio": "/c/1.mp3", "prompt": "<|en|>", "gt": text, "source": "covost_en"}]
    for start, source in (("", "en"), (text, "enen")):
        lines += [
            {
                "audio": "/c/1.mp3",
                "prompt": f"{start}<|{code}|>",
                "gt": f"{text}<|{code}|>{answer}",
                "source": f"covost_{source}{code}",
            }
            for code, answer in answers.items()
        ]
    assert len(lines) == 7
    there = write_rows(tmp_path / "st.jsonl", lines)
    convert(there, tmp_path / "m.jsonl", source_format="cot_st", sentence_id="transcript")
    found = read_manifest(tmp_path / "m.jsonl")
    assert {row.target_language: row.target for row in found} == answers
    assert {row.transcript for row in found} == {text} and {row.language for row in found} == {"en"}
    assert [row.key for row in found] == ["1-de", "1-ja", "1-zh"]
    assert len({row.sentence_id for row in found}) == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"text": "hallo", "lang": "de"}, ("de", "hallo", None, None)),
        ({"text": "hi", "source_lang": "de", "target_lang": "en"}, ("de", None, "hi", "en")),
        (
            {"text": "hallo", "source_lang": "de", "target_lang": "en", "answer": "hi"},
            ("de", "hallo", "hi", "en"),
        ),
        (
            {"source_lang": "de-DE", "target_lang": "zh-CN", "taskname": "ast", "answer": "na"},
            ("de", None, None, None),
        ),
        (
            {"answer": "hallo", "context": "what is said?", "lang": "deu"},
            ("de", "hallo", None, None),
        ),
    ],
)
def test_nemo_in_its_variants(tmp_path, line, expected):
    there = write_rows(tmp_path / "n.json", [{"audio_filepath": "a.wav", "duration": None, **line}])
    convert(there, tmp_path / "m.jsonl", source_format="nemo", sentence_id="key")
    (row,) = read_manifest(tmp_path / "m.jsonl")
    assert (row.language, row.transcript, row.target, row.target_language) == expected


def test_nemo_measures_durations_that_are_not_there(corpus, tmp_path):
    manifest = corpus(dataclasses.replace(TRANSLATED, duration=None))
    convert(manifest, tmp_path / "n.json", output_format="nemo")
    assert rows(tmp_path / "n.json")[0]["duration"] == 0.5


def test_one_text_is_the_translation_where_a_target_language_is_given(tmp_path):
    there = write_rows(tmp_path / "s.jsonl", [{"key": "k", "source": "a.wav", "target": "没事"}])
    options = {"source_format": "slam_llm", "language": "fra", "sentence_id": "target"}
    convert(there, tmp_path / "m.jsonl", target_language="cmn", **options)
    (row,) = read_manifest(tmp_path / "m.jsonl")
    assert (row.language, row.transcript) == ("fr", None)
    assert (row.target, row.target_language) == ("没事", "zh")


def test_llm_srt_writes_its_own_codes_and_paths_from_the_file(corpus, tmp_path):
    swahili = dataclasses.replace(TRANSLATED, language="sw")
    convert(corpus(swahili), tmp_path / "data" / "srt.jsonl", output_format="llm_srt")
    (row,) = rows(tmp_path / "data" / "srt.jsonl")
    assert row["prompt"] == "<|swh|><|cmn|>" and row["source"] == "fleurs_swh_cmn"
    assert row["audio"] == "audio/fr/a.wav"
    assert row["gt"] == f"{swahili.transcript}<|swh|><|cmn|>{swahili.target}"


def test_ms_swift_names_the_language_and_the_recording_in_full(corpus, tmp_path):
    convert(corpus(TRANSLATED), tmp_path / "swift.jsonl", output_format="ms_swift")
    (row,) = rows(tmp_path / "swift.jsonl")
    assert row["messages"][0]["content"] == "<audio>Translate the speech to Chinese:"
    assert Path(row["audios"][0]).is_file() and Path(row["audios"][0]).is_absolute()


@pytest.mark.parametrize(
    ("how", "equal"), [("transcript", False), ("target", True), ("audio", True), ("key", False)]
)
def test_sentence_ids_by_what_is_asked(tmp_path, how, equal):
    def line(code, text):
        return {
            "audio": f"{code}/test/7.wav",
            "source": f"fleurs_{code}_cmn",
            "prompt": f"<|{code}|><|cmn|>",
            "gt": f"{text}<|{code}|><|cmn|>你好！",
        }

    there = write_rows(tmp_path / "f.jsonl", [line("fra", "Salut !"), line("spa", "¡Hola!")])
    convert(there, tmp_path / "m.jsonl", source_format="llm_srt", sentence_id=how)
    first, second = read_manifest(tmp_path / "m.jsonl")
    assert (first.sentence_id == second.sentence_id) == equal
    assert (first.key, second.key) == ("fra/test/7", "spa/test/7")


def test_keys_tell_repeated_recordings_apart(tmp_path):
    lines = [{"source": "/x/a.wav", "target": text} for text in ("one", "two")]
    lines.append({"source": "/x/b.wav", "target": "three"})
    there = write_rows(tmp_path / "s.jsonl", lines)
    options = {"source_format": "slam_llm", "language": "en", "sentence_id": "key"}
    convert(there, tmp_path / "m.jsonl", **options)
    assert [row.key for row in read_manifest(tmp_path / "m.jsonl")] == ["a-1", "a-2", "b"]


def test_command_line(corpus, tmp_path, capsys):
    import argparse

    parser = argparse.ArgumentParser()
    prepare_convert.add_to(parser.add_subparsers())
    assert list(prepare_convert.NAMES) == list(FORMATS)
    output = tmp_path / "srt.jsonl"
    args = parser.parse_args(["convert", str(corpus(TRANSLATED)), str(output), "--to", "llm_srt"])
    args.command(args)
    printed = capsys.readouterr().out
    assert printed == f"{output}: 1 utterances\nnot in this format: sentence_id, duration\n"
