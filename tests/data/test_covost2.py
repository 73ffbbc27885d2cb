import os
import shutil
from dataclasses import replace

import pytest

from slam_potsa.data.jsonl import read_log
from slam_potsa.data.manifest import check_manifest, is_checked, read_manifest, text_sentence_id
from slam_potsa.data.sources import covost2
from tests.support import mini_covost2, refused, tiny
from tests.support.mini_covost2 import write_tsv

RELEASED = ("path", "translation", "split")  # columns of its TSVs


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    manifest = tiny.recordings(folder / "tiny", sentences=5, languages=("en", "es"))
    return mini_covost2.from_manifest(folder / "covost", manifest)


@pytest.fixture(scope="module")
def made(mini, tmp_path_factory):
    return build(mini, tmp_path_factory.mktemp("built"))


def build(mini, output, **options):
    options = {"tsv": mini.tsv, "max_dropped": 0.8, **options}
    return covost2.build(output, common_voice_dir=mini.common_voice, progress=False, **options)


def rows(made):
    return {split: read_manifest(made.path(split)) for split in made.manifests}


def texts(made):
    found = ((split, row) for split, part in rows(made).items() for row in part)
    return {row.key: (split, row.transcript, row.target) for split, row in found}


def test_every_good_row_is_there_and_checked_every_broken_one_listed(mini, made):
    assert texts(made) == mini.good
    for split, part in rows(made).items():
        assert {row.target_language for row in part} == {"zh"} and is_checked(made.path(split))
        assert not any("duration" in w for w in check_manifest(made.path(split)).warnings)
    lines = read_log(made.folder / "dropped.jsonl")
    assert {line["utterance"]["key"]: line["reason"] for line in lines} == mini.dropped
    assert all(line["place"].startswith(f"{mini.tsv}:") for line in lines)
    assert any("the header promises 16000 samples" in line["detail"] for line in lines)
    assert "warning: train: 12 of 18 recordings left out (3 unreadable, " in str(made)
    assert "sentences of test are in train too" in str(made)  # Spanish repeats English


def test_tsvs_are_read_as_covost_reads_them(mini, tmp_path):
    table = tmp_path / "covost_v2.en_zh-CN.tsv"
    first = ("a.mp3", '\\"She\'ll be  all right.\\"', "dev")
    write_tsv(table, RELEASED, [first, ("b.mp3", '"Open\\\\b'), ("c.mp3",)])
    (_, one), (place, two), (_, three) = covost2.read_tsv(table, ["translation", "split"])
    assert one == ['"She\'ll be all right."', "dev"]
    assert two == ['"Open\\b', ""] and place == f"{table}:3" and three == ["", ""]
    table.write_bytes(table.read_bytes() + b"d" * 200_000 + b"\ta\ttrain\nf\t\xff\ttest\n")
    *_, torn, last = covost2.read_tsv(table, ["translation", "split"])
    assert torn == (f"{table}:5", ["", ""]) and last == (f"{table}:6", ["\ufffd", "test"])


def test_same_transcript_is_the_same_sentence(mini, tmp_path):
    (tmp_path / "clips").symlink_to(mini.common_voice / "clips")
    table, clips = tmp_path / "covost_v2.en_zh-CN.tsv", [f"common_voice_en_{i}" for i in range(3)]
    spoken = zip(clips, ["She'll go.", "she’ll GO", "He'll go."], strict=True)
    write_tsv(tmp_path / "validated.tsv", ("path", "sentence"), list(spoken))
    write_tsv(table, RELEASED, [(clip, "去", "train") for clip in [*clips, f"{clips[0]}.mp3"]])
    made = covost2.build(tmp_path / "o", common_voice_dir=tmp_path, tsv=table, progress=False)
    first, second, third = rows(made)["train"]
    assert first.sentence_id == second.sentence_id != third.sentence_id
    assert [line["reason"] for line in read_log(made.folder / "dropped.jsonl")] == ["listed twice"]
    make = text_sentence_id
    assert make("no", "en") != make("no", "es")
    assert make("கி", "ta") != make("கு", "ta")  # one consonant, two vowel signs
    assert make("?!", "en") != make("...", "en")


@pytest.mark.parametrize(
    ("source", "target", "codes"), [("en", "de", ("en", "de")), ("sv-SE", "zh-CN", ("sv", "zh"))]
)
def test_other_directions(mini, tmp_path, source, target, codes):
    shutil.copy(mini.tsv, table := tmp_path / f"covost_v2.{source}_{target}.tsv")
    row = rows(build(mini, tmp_path / "out", tsv=table))["dev"][0]
    assert (row.language, row.target_language) == codes
    assert row.sentence_id.startswith(f"{codes[0]}-")


def test_options_and_folders_that_do_not_fit(mini, tmp_path):
    other, out, given = tmp_path / "other", tmp_path / "out", mini.common_voice

    def refuse(message, common_voice=other, **options):
        refused(message, build, replace(mini, common_voice=common_voice), out, **options)

    refuse("train_splits dev: expected train, train_covost, or both", given, train_splits=["dev"])
    refuse("train_splits none", given, train_splits=[])
    refuse("covost_v2.en_de.tsv: cannot be read", given, tsv="nowhere/covost_v2.en_de.tsv")
    os.mkfifo(pipe := tmp_path / "covost_v2.en_fr.tsv")
    refuse("covost_v2.en_fr.tsv: cannot be read: it is .* a pipe", given, tsv=pipe)
    refuse("other.tsv: the languages are not known; expected CoVoST2's", given, tsv="other.tsv")
    refuse("'xq'", given, tsv="covost_v2.en_xq.tsv")
    refuse("found no clips/ in it")
    (other / "clips").mkdir(parents=True)
    refuse("validated.tsv: cannot be read")
    shutil.copy(mini.common_voice / "validated.tsv", other)
    refuse("dev: 2 of 2 recordings left out \\(2 clip missing\\), such as .*tsv:")
    refuse("--max-dropped 0.67", given, max_dropped=0.5)
    table = tmp_path / "covost_v2.en_de.tsv"
    table.write_text("path,translation,split\na,b,train\n")
    refuse("found no column path, translation, split", tsv=table)


def test_train_without_covosts_extension_is_another_data_set(mini, made, tmp_path):
    build(mini, tmp_path)
    before = (tmp_path / "train.jsonl").read_bytes()
    message = "train_splits: .*--replace"
    refused(message, build, mini, tmp_path, train_splits=["train"])
    assert (tmp_path / "train.jsonl").read_bytes() == before
    original = build(mini, tmp_path, train_splits=["train"], replace=True)
    extension = {f"common_voice_en_{n}" for n in (2, 7)}
    assert texts(original) == {k: v for k, v in texts(made).items() if k not in extension}
    assert original.left_out["other"] == {"of no split": 3}
