import json
import shutil

import pytest

from slam_potsa.data import sentence_ids
from slam_potsa.data.manifest import check_manifest, is_checked, read_manifest
from slam_potsa.data.sources import common_voice, covost2
from slam_potsa.errors import InputError
from tests.support import mini_covost2, tiny


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    manifest = tiny.recordings(folder / "tiny", sentences=5, languages=("en", "es"))
    return mini_covost2.from_manifest(folder / "covost", manifest)


@pytest.fixture(scope="module")
def corpus(mini, tmp_path_factory):
    output = tmp_path_factory.mktemp("built")
    return build(mini, output)


def build(mini, output, **options):
    options = {"tsv": [mini.tsv], **options}
    return covost2.build(output, common_voice_dir=mini.common_voice, progress=False, **options)


def rows(corpus):
    return {split: read_manifest(path) for split, path in corpus.manifests.items()}


def texts(corpus):
    return {
        row.key: (split, row.transcript, row.target)
        for split, part in rows(corpus).items()
        for row in part
    }


def test_every_good_row_is_there_with_its_texts_in_its_split(mini, corpus):
    assert texts(corpus) == mini.good
    assert {row.target_language for part in rows(corpus).values() for row in part} == {"zh"}


def test_manifests_pass_the_check_with_every_recording_decoded(corpus):
    for path in corpus.manifests.values():
        summary = check_manifest(path, needs=("transcript", "target", "duration"))
        assert not any("duration" in warning for warning in summary.warnings)


def test_every_broken_row_is_listed_with_its_reason(mini, corpus):
    lines = [json.loads(line) for line in corpus.dropped_list.read_text().splitlines()]
    assert {line["clip"]: line["reason"] for line in lines} == mini.dropped
    assert all(line["row"].startswith(f"{mini.tsv}:") for line in lines)
    truncated = next(line for line in lines if line["clip"].endswith("_truncated"))
    assert "the header promises 16000 samples" in truncated["detail"]
    assert sum(sum(part.values()) for part in corpus.dropped.values()) == len(mini.dropped)


def test_table_and_summary_say_the_same(corpus):
    summary = json.loads((corpus.dropped_list.parent / "summary.json").read_text())
    assert summary["recordings"] == {split: len(part) for split, part in rows(corpus).items()}
    seconds = sum(row.duration for row in rows(corpus)["train"])
    assert summary["seconds"]["train"] == pytest.approx(seconds, abs=1e-3)
    assert (summary["language"], summary["target_language"]) == ("en", "zh")
    header, train, *_ = corpus.summary.splitlines()
    assert header.split() == ["split", "recordings", "hours", "sentences", "dropped"]
    dropped = sum(corpus.dropped["train"].values())
    assert train.split() == ["train", "6", "0.00", str(corpus.sentences["train"]), str(dropped)]
    assert "2 clip unreadable" in corpus.summary


def test_both_layouts_give_the_same_manifests(mini, corpus, tmp_path):
    other = build(mini, tmp_path, tsv=mini.split_files())
    assert texts(other) == texts(corpus)
    assert not other.dropped


def test_train_without_covosts_extension(mini, corpus, tmp_path):
    extension = {
        f"common_voice_en_{number}"
        for number in range(len(mini.good))
        if mini_covost2.CYCLE[number % len(mini_covost2.CYCLE)] == "train_covost"
    }
    original = build(mini, tmp_path / "a", train_splits=["train"])
    assert texts(original) == {k: v for k, v in texts(corpus).items() if k not in extension}
    assert extension and extension <= set(texts(corpus))
    assert original.dropped["other"]["of no split"] == len(extension) + 1
    told = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert told["train_splits"] == ["train"]
    with pytest.raises(InputError, match="does not tell train from train_covost") as caught:
        build(mini, tmp_path / "b", tsv=mini.split_files(), train_splits=["train"])
    assert len(caught.value.problems) == 3


def test_decoded_manifests_are_marked_as_checked(mini, corpus, tmp_path):
    assert all(is_checked(path) for path in corpus.manifests.values())
    unheard = build(mini, tmp_path, check_audio="none")
    assert not any(is_checked(path) for path in unheard.manifests.values())


def test_quotes_and_backslashes_are_read_as_covost_reads_them(tmp_path):
    table = tmp_path / "covost_v2.en_zh-CN.dev.tsv"
    table.write_text(
        "path\tsentence\ttranslation\tclient_id\n"
        'a.mp3\t\\"She\'ll be all right.\\"\t她会没事的。\tx\n'
        'b.mp3\t"Open quote  only\ta\\\\b\tx\n',
        encoding="utf-8",
    )
    read = list(common_voice.read_tsv(table, ["sentence", "translation"]))
    assert read == [
        (2, ('"She\'ll be all right."', "她会没事的。")),
        (3, ('"Open quote only', "a\\b")),
    ]


def test_asr_view_has_transcripts_only(mini, tmp_path):
    with_tsv = build(mini, tmp_path / "a", view="asr")
    assert {row.target for part in rows(with_tsv).values() for row in part} == {None}
    assert "common_voice_en_untranslated" in texts(with_tsv)
    own = build(mini, tmp_path / "b", view="asr", tsv=[])
    expected = {clip: (split, text, None) for clip, (split, text, _) in mini.good.items()}
    assert texts(own).items() <= expected.items()  # without CoVoST2's own train_covost
    assert own.recordings == {"train": 4, "dev": 2, "test": 2}


def test_check_audio_none_opens_nothing(mini, tmp_path, monkeypatch):
    monkeypatch.setattr(common_voice, "measure_audio", None)
    corpus = build(mini, tmp_path, check_audio="none")
    assert {row.duration for part in rows(corpus).values() for row in part} == {None}
    assert corpus.dropped["train"]["clip missing"] == 1
    assert "clip unreadable" not in corpus.dropped["train"]
    assert corpus.summary.splitlines()[1].split()[2] == "-"


def test_measurements_are_kept_and_only_changed_clips_are_measured_again(
    mini, tmp_path, monkeypatch
):
    raw, output = tmp_path / "raw", tmp_path / "out"
    shutil.copytree(mini.folder, raw)
    mini = mini_covost2.MiniCoVoST2(raw, mini.good, mini.dropped)
    measured = []

    def counting(name, *args, real=common_voice.measure_audio, **options):
        measured.append(name)
        return real(name, *args, **options)

    monkeypatch.setattr(common_voice, "measure_audio", counting)
    first = build(mini, output)
    everything = len(measured)
    cache = output / "measurements.jsonl"
    cache.write_bytes(cache.read_bytes()[:-5])  # interrupted in the middle of a line
    clip = mini.common_voice / "clips" / "common_voice_en_0.mp3"
    clip.write_bytes((clip.parent / "common_voice_en_8.mp3").read_bytes())
    measured.clear()
    second = build(mini, output)
    assert everything == len(mini.good) + 4
    assert sorted(set(measured)) == sorted(measured) and len(measured) == 2
    assert "common_voice_en_0.mp3" in measured
    assert second.recordings == first.recordings
    again = [json.loads(line) for line in cache.read_text().splitlines()]
    assert len(again) == everything + 1


def test_relative_folders_give_manifests_that_work_from_where_they_are(mini, tmp_path, monkeypatch):
    monkeypatch.chdir(mini.folder)
    from pathlib import Path

    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    corpus = covost2.build(
        tmp_path / "link" / "out",
        common_voice_dir=Path("en"),
        tsv=[mini.tsv.name],
        progress=False,
    )
    monkeypatch.chdir(tmp_path)
    assert rows(corpus)["dev"][0].audio.startswith("../")
    check_manifest(corpus.manifests["dev"])


def test_same_transcript_is_the_same_sentence(mini, tmp_path):
    table = tmp_path / "covost_v2.en_zh-CN.train.tsv"
    lines = ["path\tsentence\ttranslation\tclient_id"]
    spoken = ["She'll go.", "she’ll GO", "He'll go."]
    lines += [f"common_voice_en_{i}\t{text}\t去\tx" for i, text in enumerate(spoken)]
    lines.append("common_voice_en_0.mp3\tAgain.\t去\tx")
    table.write_text("\n".join(lines), encoding="utf-8")
    corpus = build(mini, tmp_path, tsv=[table])
    first, second, third = rows(corpus)["train"]
    assert first.sentence_id == second.sentence_id != third.sentence_id
    assert corpus.sentences == {"train": 2} and corpus.dropped == {"train": {"clip repeated": 1}}
    assert list(corpus.manifests) == ["train"]


def test_sentence_ids_keep_languages_and_vowel_signs_apart():
    make = sentence_ids.text_sentence_id
    assert make("no", "en") != make("no", "es")
    assert make("கி", "ta") != make("கு", "ta")  # one consonant, two vowel signs
    assert make("?!", "en") != make("...", "en")


@pytest.mark.parametrize(
    ("source", "target", "codes"),
    [("en", "de", ("en", "de")), ("sv-SE", "en", ("sv", "en")), ("zh-CN", "en", ("zh", "en"))],
)
def test_other_directions(mini, tmp_path, source, target, codes):
    (tmp_path / "cv").mkdir()
    (tmp_path / "cv" / source).symlink_to(mini.common_voice)
    table = tmp_path / f"covost_v2.{source}_{target}.tsv"
    shutil.copy(mini.tsv, table)
    corpus = covost2.build(
        tmp_path / "out", common_voice_dir=tmp_path / "cv", tsv=[table], progress=False
    )
    row = rows(corpus)["dev"][0]
    assert (row.language, row.target_language) == codes
    assert row.sentence_id.startswith(f"{codes[0]}-")


def test_sentences_of_the_test_split_in_train_are_pointed_out(mini, corpus, tmp_path):
    # Both languages of the tiny recordings have the same transcripts, in different splits.
    shared = {row.sentence_id for row in rows(corpus)["train"]} & {
        row.sentence_id for row in rows(corpus)["test"]
    }
    expected = f"{len(shared)} of {corpus.sentences['test']} sentences of test are in train too"
    assert bool(shared) == (expected in corpus.warnings)
    assert shared


# Wrong input


def test_malformed_rows_of_all_files_are_named_at_once(mini, tmp_path):
    train, dev = (tmp_path / f"covost_v2.en_zh-CN.{split}.tsv" for split in ("train", "dev"))
    header = "path\tsentence\ttranslation\tclient_id\n"
    train.write_text(header + "a.mp3\tHello\n" + "b.mp3\tx\ty\tz\tw\n")
    dev.write_bytes(header.encode() + b"\nc.mp3\t\xff\ty\tz\n")
    with pytest.raises(InputError) as caught:
        build(mini, tmp_path / "out", tsv=[train, dev])
    problems = caught.value.problems
    assert [problem.split(": ")[0] for problem in problems] == [
        f"{train}:2",
        f"{train}:3",
        f"{dev}:3",
    ]
    assert "found 2 fields, expected 4" in problems[0] and "UTF-8" in problems[2]
    assert not (tmp_path / "out").exists()
    train.write_text(header + "a.mp3\t" + "x" * 200_000)
    with pytest.raises(InputError, match="train.tsv:2: field larger"):
        build(mini, tmp_path / "out", tsv=[train])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"view": "mt"}, "expected one of s2tt, asr"),
        ({"check_audio": "some"}, "expected one of full, none"),
        ({"train_splits": ["dev"]}, "train_splits dev: expected train, train_covost, or both"),
        ({"train_splits": []}, "train_splits empty"),
        (
            {"tsv": [], "view": "asr", "language": "en", "train_splits": ["train_covost"]},
            "does not",
        ),
        ({"tsv": []}, "needs translations"),
        ({"tsv": ["nowhere/covost_v2.en_de.tsv"]}, "nowhere/covost_v2.en_de.tsv: no such file"),
        ({"tsv": ["covost_v2.en_de.tsv", "covost_v2.en_ja.tsv"]}, "several directions (en_de, en_"),
        ({"tsv": ["other.tsv"]}, "give --language"),
        ({"tsv": ["other.tsv"], "language": "en"}, "give --target-language"),
        ({"tsv": ["covost_v2.en_xq.tsv"]}, "'xq'"),
        ({"clips": "nowhere"}, "nowhere: no such folder of clips"),
    ],
)
def test_options_that_do_not_fit(mini, tmp_path, options, message):
    with pytest.raises(InputError) as caught:
        build(mini, tmp_path, **options)
    assert message in str(caught.value)


def test_a_folder_that_is_not_common_voice(mini, tmp_path):
    with pytest.raises(InputError, match="found no folder 'clips' in it"):
        covost2.build(tmp_path / "out", common_voice_dir=tmp_path, tsv=[mini.tsv])
    (tmp_path / "clips").mkdir()
    with pytest.raises(InputError, match="validated.tsv: no such file"):
        covost2.build(tmp_path / "out", common_voice_dir=tmp_path, tsv=[mini.tsv])
    shutil.copy(mini.common_voice / "validated.tsv", tmp_path)
    with pytest.raises(InputError, match="none of the 15 clips .* is there"):
        covost2.build(tmp_path / "out", common_voice_dir=tmp_path, tsv=[mini.tsv])
    (tmp_path / "covost_v2.en_de.tsv").write_text("path,translation,split\na,b,train\n")
    with pytest.raises(InputError, match="separated by tabs|no column 'split'"):
        covost2.build(
            tmp_path / "out", common_voice_dir=tmp_path, tsv=[tmp_path / "covost_v2.en_de.tsv"]
        )


def test_a_split_that_lost_everything_leaves_no_old_manifest(mini, tmp_path):
    table = tmp_path / "covost_v2.en_zh-CN.tsv"
    table.write_text(
        "path\ttranslation\tsplit\ncommon_voice_en_0.mp3\t零\ttrain\n"
        "common_voice_en_missing.mp3\t无\ttest\n"
    )
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "test.jsonl").write_text("old")
    corpus = build(mini, tmp_path / "out", tsv=[table])
    assert list(corpus.manifests) == ["train"] and corpus.recordings["test"] == 0
    assert not (tmp_path / "out" / "test.jsonl").exists()


def test_converted_clips_in_a_folder_of_their_own(mini, tmp_path):
    import soundfile

    clips = tmp_path / "wav"
    clips.mkdir()
    for path in (mini.common_voice / "clips").glob("common_voice_en_[0-9].mp3"):
        soundfile.write(clips / f"{path.stem}.wav", *soundfile.read(path))
    corpus = build(mini, tmp_path / "out", clips=clips)
    assert texts(corpus) == mini.good
    assert rows(corpus)["train"][0].audio == f"{clips}/common_voice_en_0.wav"


def test_command_line(mini, tmp_path, capsys):
    import argparse

    from slam_potsa.commands import prepare_covost2

    parser = argparse.ArgumentParser()
    prepare_covost2.add_to(parser.add_subparsers())
    arguments = ["covost2", "--common-voice", str(mini.common_voice), "--tsv", str(mini.tsv)]
    args = parser.parse_args([*arguments, "--output", str(tmp_path)])
    args.command(args)
    printed = capsys.readouterr().out
    assert printed.startswith("split") and "1 translation empty" in printed
    assert len(read_manifest(tmp_path / "train.jsonl")) == 6
    other = ["--output", str(tmp_path / "b"), "--train-splits", "train"]
    args = parser.parse_args([*arguments, *other])
    args.command(args)
    assert len(read_manifest(tmp_path / "b" / "train.jsonl")) == 4


# Another data set in the same folder


def test_another_data_set_in_the_same_folder_is_refused(mini, tmp_path):
    first = build(mini, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for options, found, wanted in (
        ({"view": "asr"}, "target_language zh, view s2tt", "target_language none, view asr"),
        ({"train_splits": ["train"]}, "train_splits train,train_covost", "train_splits train"),
        ({"tsv": mini.split_files()[:1]}, f"source {mini.common_voice},{mini.tsv}", "source"),
    ):
        with pytest.raises(InputError) as caught:
            build(mini, tmp_path, **options)
        assert f"{tmp_path} was built with {found}; now: {wanted}" in str(caught.value)
        assert str(caught.value).endswith(": choose another folder, or --replace")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    again = build(mini, tmp_path, train_splits=["train_covost", "train"], check_audio="none")
    assert again.recordings.keys() == first.recordings.keys()


def test_a_replaced_data_set_leaves_no_split_behind(mini, tmp_path):
    build(mini, tmp_path)
    corpus = build(mini, tmp_path, tsv=mini.split_files()[:1], replace=True)
    assert list(corpus.manifests) == ["train"]
    assert not (tmp_path / "dev.jsonl").exists() and not (tmp_path / "test.jsonl").exists()
    build(mini, tmp_path, tsv=mini.split_files()[:1])  # the choices are now these


def test_a_summary_of_an_earlier_version_is_compared_as_far_as_it_goes(mini, tmp_path):
    build(mini, tmp_path)
    place = tmp_path / "summary.json"
    told = json.loads(place.read_text())
    del told["built_with"]
    place.write_text(json.dumps(told))
    build(mini, tmp_path)
    place.write_text(json.dumps(told))
    with pytest.raises(InputError, match="was built with target_language zh, view s2tt; now: "):
        build(mini, tmp_path, view="asr")
    place.write_text("[]")
    with pytest.raises(InputError, match="not a summary of this command"):
        build(mini, tmp_path)
