import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from slam_potsa.data.audio import load_audio
from slam_potsa.data.manifest import check_manifest, is_checked, read_manifest
from slam_potsa.data.sources import fleurs
from slam_potsa.errors import InputError
from tests.support import mini_fleurs, tiny
from tests.support.mini_fleurs import (
    CHOICE,
    SENTENCES,
    build_tree,
    from_manifest,
    lines_of,
    texts,
    tone,
    world,
)

pytest.importorskip("indexed_gzip")


def test_every_recording_is_there_with_its_translation(corpus):
    found = {row.key: row for row in read_manifest(corpus.train, needs=("target", "transcript"))}
    assert len(found) == 30 and Counter(row.language for row in found.values()) == {
        "en": 20,
        "es": 10,
    }
    third = [row for row in found.values() if row.sentence_id == "fleurs-3"]
    assert Counter(row.language for row in third) == {"en": 2, "es": 1}
    for row in third:
        assert row.key.startswith(f"{row.language}-train-3-1000030")
        assert row.transcript == f'{row.language} "sentence" 03'  # raw: quotation marks are kept
        assert (row.target, row.target_language) == ("第3句。", "zh")
        assert row.duration == pytest.approx(1.23)
    assert corpus.dropped.read_text() == "" and corpus.dropped_by_reason == {}


def test_the_recordings_are_the_right_ones(corpus):
    for path in (corpus.train, corpus.dev, corpus.test, corpus.zero_shot):
        check_manifest(path)
        for row in read_manifest(path):
            samples = load_audio(row.audio, path.parent)
            pitch = int(np.abs(np.fft.rfft(samples)).argmax()) * 16_000 / len(samples)
            assert pitch == pytest.approx(200 + 20 * int(row.sentence_id.split("-")[1]), abs=1)


def test_what_was_listened_to_need_not_be_checked_again(tree, tmp_path):
    built = fleurs.build(tmp_path, source=tree, **CHOICE)
    manifests = (built.train, built.dev, built.test, built.zero_shot)
    assert all(is_checked(path) for path in manifests)
    built.train.write_text(built.train.read_text() + "\n")
    assert not is_checked(built.train)


def test_zero_shot_is_the_test_split_of_languages_that_are_not_trained_on(corpus):
    languages = {
        path.stem: {row.language for row in read_manifest(path)}
        for path in (corpus.train, corpus.dev, corpus.test, corpus.zero_shot)
    }
    assert languages["train"] == languages["dev"] == languages["test"] == {"en", "es"}
    assert languages["zero_shot"] == {"fr"}
    assert {row.sentence_id for row in read_manifest(corpus.zero_shot)} == {
        f"fleurs-{number}" for number in SENTENCES["test"]
    }


def test_summary(corpus):
    lines = corpus.summary.splitlines()
    assert lines[0] == "FLEURS into Chinese (zh)"
    assert "train      en English                     20    0.01         10" in lines
    assert "train      all                            30    0.01         10" in lines
    assert "zero_shot  fr French                       4    0.00          4" in lines
    assert lines[-4:-2] == ["es         4     4     4", "fr         4     4     4"]
    assert lines[-1] == "dropped: 0"
    told = json.loads((corpus.train.parent / "summary.json").read_text())
    assert told["recordings"] == corpus.recordings and told["shared"] == corpus.shared
    assert corpus.shared["train"] == {"en": {"en": 10, "es": 10}, "es": {"en": 10, "es": 10}}


@pytest.mark.parametrize("options", [{"packed": False}, {"compressed": False}])
def test_folders_and_plain_tars_give_the_same(corpus, tmp_path, options):
    again = fleurs.build(
        tmp_path / "o", source=build_tree(tmp_path / "f", world(), **options), **CHOICE
    )
    for first, second in ((corpus.train, again.train), (corpus.zero_shot, again.zero_shot)):
        for one, two in zip(read_manifest(first), read_manifest(second), strict=True):
            assert (one.key, one.target, one.duration) == (two.key, two.target, two.duration)
            expected = load_audio(one.audio, first.parent)
            np.testing.assert_array_equal(load_audio(two.audio, second.parent), expected)


def test_what_is_not_needed_need_not_be_there(corpus, tree, tmp_path):
    copy = tmp_path / "fleurs"
    shutil.copytree(tree / "data", copy)  # without data/ above
    shutil.rmtree(copy / "cmn_hans_cn" / "audio")
    for split in ("train", "dev"):
        (copy / "fr_fr" / f"{split}.tsv").unlink()
        (copy / "fr_fr" / "audio" / f"{split}.tar.gz").unlink()
    again = fleurs.build(tmp_path / "out", source=copy, **CHOICE)
    assert again.recordings == corpus.recordings


def test_data_and_manifests_move_together(tree, tmp_path):
    shutil.copytree(tree / "data", tmp_path / "a" / "raw" / "data")
    built = fleurs.build(tmp_path / "a" / "made", source=tmp_path / "a" / "raw", **CHOICE)
    assert read_manifest(built.train)[0].audio.startswith("../raw/data/en_us/audio/train.tar.gz:")
    (tmp_path / "a").rename(tmp_path / "b")
    check_manifest(tmp_path / "b" / "made" / "test.jsonl")


def test_far_away_data_is_named_by_its_whole_path(corpus, tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tree)
    built = fleurs.build(tmp_path / "out", source="data", **CHOICE)
    assert read_manifest(built.train)[0].audio.startswith(f"{tree}/data/en_us/")


def test_the_target_language_is_left_out_unless_asked_for(tmp_path):
    chinese = [
        mini_fleurs.Row(row.id, row.text, tone(1.2), row.split) for row in texts() if row.id != 3
    ]
    tree = build_tree(tmp_path, world(cmn_hans_cn=chinese))
    options = CHOICE | {"train_languages": "en,zh"}
    without = fleurs.build(tmp_path / "a", source=tree, **options)
    assert without.recordings["train"].keys() == {"en"}
    assert "note: cmn_hans_cn is the target language" in without.summary
    kept = fleurs.build(tmp_path / "b", source=tree, keep_target_language=True, **options)
    assert kept.recordings["train"] == {"en": 18, "zh": 9}
    row = next(row for row in read_manifest(kept.train) if row.language == "zh")
    assert row.transcript == row.target


def test_sentences_in_two_splits_are_told(tmp_path):
    locales = world()
    for locale in ("en_us", "cmn_hans_cn"):
        audio = tone(1.2) if locale == "en_us" else None
        locales[locale].append(mini_fleurs.Row(5, f"{locale} sentence 05", audio, "test"))
    built = fleurs.build(tmp_path / "o", source=build_tree(tmp_path, locales), **CHOICE)
    assert "1 of 5 sentences of test are sentences of train too (such as id 5)" in built.summary


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_languages": "en,frr"}, r"train: language 'frr': not known, .*'fr' \(French\)"),
        ({"zero_shot": "es"}, "zero_shot: es_419 is trained on too"),
        ({"train_languages": ""}, "train_languages: found no language"),
        ({"train_languages": "zh"}, "found no language but the target"),
        ({"target": "zh,en"}, "target: found 2 languages, expected one"),
        ({"source": None}, "found neither a folder nor --hub"),
        ({"hub": True}, "found both a folder and --hub"),
        ({"workers": 0}, "workers=0: expected 1 or more"),
        ({"min_seconds": 5, "max_seconds": 4}, "expected 0 <= min_seconds < max_seconds <= 30"),
        ({"max_seconds": 40}, "Whisper's window"),
        ({"rate_deviations": -1}, "rate_deviations=-1: expected 0"),
        ({"source": "/nowhere"}, "nowhere: no such folder; expected the layout"),
    ],
)
def test_wrong_options_are_refused(tree, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        fleurs.build(tmp_path / "out", **({"source": tree} | CHOICE | options))


def test_wrong_options_are_told_together(tmp_path):
    with pytest.raises(InputError) as caught:
        fleurs.build(tmp_path, train_languages="xx,yy", target="zz", workers=0, max_seconds=99)
    assert len(caught.value.problems) == 6


def test_named_sets():
    train = fleurs.language_list("potsa", fleurs.TRAIN_SETS)
    assert train == ("en_us", "ja_jp", "es_419", "ko_kr", "ru_ru")
    unheard = fleurs.language_list("potsa", fleurs.ZERO_SHOT_SETS)
    assert unheard == ("fr_fr", "de_de", "kea_cv", "ceb_ph", "ast_es", "ky_kg")
    assert fleurs.language_list("none", fleurs.ZERO_SHOT_SETS) == ()
    assert fleurs.language_list(["potsa", "fra", "ko"], fleurs.TRAIN_SETS) == (*train, "fr_fr")


def test_no_zero_shot(tree, tmp_path):
    fleurs.build(tmp_path, source=tree, **CHOICE)
    built = fleurs.build(tmp_path, source=tree, replace=True, **CHOICE | {"zero_shot": "none"})
    assert built.zero_shot is None and not (tmp_path / "zero_shot.jsonl").exists()


def test_another_data_set_in_the_same_folder_is_refused(tree, tmp_path):
    output, other = tmp_path / "out", build_tree(tmp_path / "other", world())
    fleurs.build(output, source=tree, **CHOICE)
    before = (output / "train.jsonl").read_bytes()
    for options, found, wanted in (
        ({"train_languages": "en"}, "train_languages en,es", "train_languages en"),
        ({"zero_shot": "none"}, "zero_shot fr", "zero_shot none"),
        ({"target": "es", "train_languages": "en"}, "target_language zh", "target_language es"),
        ({"source": other}, f"source {tree}", f"source {other}"),
        ({"source": None, "hub": True}, f"source {tree}", "source google/fleurs on the hub"),
    ):
        with pytest.raises(InputError) as caught:
            fleurs.build(output, **{"source": tree} | CHOICE | options)
        then, now = str(caught.value).split("; now: ")
        assert then.startswith(f"{output} was built with ") and found in then and wanted in now
        assert now.endswith(": choose another folder, or --replace")
    assert (output / "train.jsonl").read_bytes() == before
    same = CHOICE | {"train_languages": "es_419,en_us", "max_seconds": 20}
    fleurs.build(output, source=tree, **same)
    fleurs.build(output, source=other, replace=True, **CHOICE)
    fleurs.build(output, source=other, **CHOICE)


def test_a_summary_of_an_earlier_version_is_compared_as_far_as_it_goes(tree, tmp_path):
    fleurs.build(tmp_path, source=tree, **CHOICE)
    place = tmp_path / "summary.json"
    told = json.loads(place.read_text())
    del told["built_with"]
    place.write_text(json.dumps(told))
    with pytest.raises(InputError, match="was built with train_languages en,es; now: "):
        fleurs.build(tmp_path, source=tree, **CHOICE | {"train_languages": "en"})
    fleurs.build(tmp_path, source=tree, **CHOICE)


def test_a_training_set_without_any_pair_is_warned_of(corpus, tree, tmp_path):
    built = fleurs.build(tmp_path, source=tree, **CHOICE | {"train_languages": "en"})
    (line,) = [line for line in built.summary.splitlines() if line.startswith("warning: ")]
    assert "(it has en only), so it holds no pair" in line and "--train-languages" in line
    assert json.loads((tmp_path / "summary.json").read_text())["warnings"] == [line[9:]]
    assert "warning: " not in corpus.summary


def test_nothing_left_is_an_error(tree, tmp_path):
    with pytest.raises(InputError, match="no recording is left for train: 30 were dropped"):
        fleurs.build(tmp_path / "out", source=tree, min_seconds=20, **CHOICE)


@pytest.mark.parametrize(
    "options",
    [
        ["--train-languages", "en,es", "--zero-shot=fr", "--target", "zh"],
        ["train_languages=en,es", "zero_shot=fr", "target=cmn_hans_cn"],
    ],
)
def test_the_command(corpus, tree, tmp_path, capsys, options):
    from slam_potsa.cli import main

    given = ["--workers", "1", *options]
    assert main(["prepare", "fleurs", str(tree), str(tmp_path / "out=1"), *given]) == 0
    assert capsys.readouterr().out.startswith("FLEURS into Chinese (zh)")
    made = read_manifest(tmp_path / "out=1" / "train.jsonl")
    assert [row.key for row in made] == [row.key for row in read_manifest(corpus.train)]
    assert main(["prepare", "fleurs", str(tmp_path / "x")]) == 2
    assert "neither a folder nor --hub" in capsys.readouterr().err


class Recordings:
    """What a DataLoader's worker does: one recording."""

    def __init__(self, path):
        self.path, self.rows = path, read_manifest(path)

    def __len__(self):
        return 4 * len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index % len(self.rows)]
        return len(load_audio(row.audio, self.path.parent)) - round(16_000 * row.duration)


def test_data_loader_workers_read_inside_the_archive(corpus):
    from torch.utils.data import DataLoader

    recordings = Recordings(corpus.train)
    assert recordings[0] == 0  # this process has a reader before it forks
    loader = DataLoader(recordings, batch_size=8, shuffle=True, num_workers=2)
    assert all(not batch.any() for batch in loader)


def test_a_tree_from_a_manifest(tmp_path):
    """tests/support/mini_fleurs.py itself: others build on it."""
    made = tiny.recordings(tmp_path / "tiny", sentences=12)
    locales = {"en": "en_us", "es": "es_419", "ru": "ru_ru"}
    tree = from_manifest(tmp_path / "fleurs", made, locales, sentences=10)
    options = CHOICE | {"train_languages": "en,es", "zero_shot": "ru"}
    built = fleurs.build(
        tmp_path / "out", source=tree, min_seconds=0.2, rate_deviations=0, **options
    )
    assert built.sentences == {
        "train": {"en": 6, "es": 6},
        "dev": {"en": 2, "es": 2},
        "test": {"en": 2, "es": 2},
        "zero_shot": {"ru": 2},
    }
    original = {(row.language, round(row.duration, 2)): row for row in read_manifest(made)}
    for row in read_manifest(built.train):
        twin = original[row.language, round(row.duration, 2)]
        assert (row.transcript, row.target) == (twin.transcript, twin.target)
        expected = load_audio(twin.audio, made.parent)
        np.testing.assert_array_equal(load_audio(row.audio, built.train.parent), expected)


@pytest.mark.slow
@pytest.mark.skipif("ASTERISK_DEBS" not in os.environ, reason="ASTERISK_DEBS=folder of the .debs")
def test_real_recordings(tmp_path):
    from slam_potsa.data.sources import asterisk

    made = asterisk.build(
        tmp_path / "asterisk", from_dir=Path(os.environ["ASTERISK_DEBS"]), progress=False
    )
    tree = from_manifest(
        tmp_path / "fleurs", [made.train, made.dev, made.test_unheard, made.zero_shot]
    )
    options = {"train_languages": "en,es,ru", "zero_shot": "fr,it", "min_seconds": 0.3}
    built = fleurs.build(tmp_path / "out", source=tree, progress=False, **options)
    listed = lines_of(tree, ("en_us", "es_419", "ru_ru"), ("fr_fr", "it_it"))
    kept = sum(sum(part.values()) for part in built.recordings.values())
    assert kept + sum(built.dropped_by_reason.values()) == listed
    assert set(built.dropped_by_reason) <= {"spoken too fast", "spoken too slowly"}
    assert kept > 0.98 * listed
    for path in (built.train, built.dev, built.test, built.zero_shot):
        assert check_manifest(path).languages.keys() == built.recordings[path.stem].keys()
