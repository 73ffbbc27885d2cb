import os
import shutil
from collections import Counter
from functools import partial

import numpy as np
import pytest

from slam_potsa.data.audio import load_audio
from slam_potsa.data.jsonl import read_log
from slam_potsa.data.manifest import check_manifest, is_checked, read_manifest
from slam_potsa.data.sources import fleurs
from slam_potsa.errors import InputError
from tests.support import refusal, refused
from tests.support.mini_fleurs import CHOICE, SENTENCES, Row, build_tree, rows, tone, wav, world


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """A miniature FLEURS in its raw layout; copy it before breaking it."""
    return build_tree(tmp_path_factory.mktemp("fleurs"), world())


@pytest.fixture(scope="session")
def made(tree):
    return fleurs.build(tree / "manifests", source=tree, **CHOICE)


@pytest.fixture
def copy(tree, tmp_path):
    shutil.copytree(tree / "data", tmp_path / "raw" / "data")
    return tmp_path / "raw"


def counts(made):
    return {
        name: {code: own.utterances for code, own in found.languages.items()}
        for name, found in made.manifests.items()
    }


def test_every_recording_is_there_with_its_translation(made):
    found = {row.key: row for row in read_manifest(made.path("train"))}
    assert counts(made)["train"] == {"en": 20, "es": 10}
    assert read_log(made.folder / "dropped.jsonl") == []
    third = [row for row in found.values() if row.sentence_id == "fleurs-3"]
    assert Counter(row.language for row in third) == {"en": 2, "es": 1}
    for row in third:
        assert row.key.startswith(f"{row.language}-train-3-1000030")
        assert row.transcript == f'{row.language} "sentence" 03'  # raw: quotation marks are kept
        assert (row.target, row.target_language) == ("第3句。", "zh")  # the first wording
        assert row.duration == pytest.approx(1.23)
    unheard = read_manifest(made.path("zero_shot"))
    assert {row.language for row in unheard} == {"fr"}
    assert {row.sentence_id for row in unheard} == {f"fleurs-{n}" for n in SENTENCES["test"]}


@pytest.mark.parametrize("pack", ["tar.gz", "tar", ""])
def test_the_recordings_are_the_right_ones_and_checked(tmp_path, pack):
    tree = build_tree(tmp_path, world(), pack)
    made = fleurs.build(tmp_path / "o", source=tree, **CHOICE)
    for name in ("train", "dev", "test", "zero_shot"):
        assert is_checked(made.path(name))
        for row in read_manifest(made.path(name)):
            samples = load_audio(row.audio, made.folder)
            pitch = int(np.abs(np.fft.rfft(samples)).argmax()) * 16_000 / len(samples)
            assert pitch == pytest.approx(200 + 20 * int(row.sentence_id.split("-")[1]), abs=1)


def test_archives_are_unpacked_beside_themselves_or_into_the_output(
    copy, made, tmp_path, monkeypatch
):
    audio = copy / "data" / "en_us" / "audio"
    (audio / "train.tar").unlink(missing_ok=True)
    (audio / "train").mkdir()  # an extraction that was interrupted does not hide the archive
    (audio / "train" / "10000100.wav").touch()
    for path in (copy / "data" / "fr_fr").rglob("[td][re][av]*.*"):
        path.unlink()  # train and dev, of which nothing is needed
    monkeypatch.setattr(os, "access", lambda path, _: path != audio)  # a read-only folder
    built = fleurs.build(tmp_path / "out", source=copy / "data", **CHOICE)
    assert counts(built) == counts(made)
    first = {row.language: row.audio for row in read_manifest(built.path("train"))}
    assert first["en"].startswith("unpacked/en_us-train.tar:train/")
    assert first["es"].startswith("../raw/data/es_419/audio/train.tar:train/")
    tmp_path.rename(tmp_path.parent / "moved")  # raw data and manifests move together
    check_manifest(tmp_path.parent / "moved" / "out" / "train.jsonl")


def test_what_is_left_out_is_listed_with_its_reason(made, tmp_path):
    reasons = {
        "a.wav": ("no target", Row(99, "no such sentence", tone(1.2))),
        "c.wav": ("longer than 30 s", Row(1, "one", tone(30.5))),
        "d.wav": ("unreadable", Row(1, "one", wav(tone(1.3))[:9000])),
        "e.wav": ("no recording", Row(1, "one", None)),
        "h.wav": ("silent", Row(2, "two", np.zeros(20_000, dtype=np.float32))),
        "i.wav": ("unreadable", Row(2, "two", b"no recording")),
    }
    bad = [Row(row.id, row.text, row.audio, file=name) for name, (_, row) in reasons.items()]
    locales = world(en_us=[*rows("en"), *bad])
    for locale, split in (("en_us", "test"), ("fr_fr", "test")):
        locales[locale] += [Row(14, r.text, r.audio, split, r.file) for r in bad[1:]]
    tree = build_tree(tmp_path, locales)
    with open(tree / "data" / "en_us" / "train.tsv", "a") as file:
        file.write("7\tx.wav\tthree columns\nx\ty.wav\ta\ta\ta\t1\tM\n2\tc.wav\ta\ta\ta\t1\tM\n")
    built = fleurs.build(tmp_path / "out", source=tree, max_dropped=0.6, **CHOICE)
    assert counts(built)["train"] == counts(made)["train"]  # nothing good is lost
    found = [row for row in read_log(built.folder / "dropped.jsonl") if row["manifest"] == "train"]
    told = [(row["utterance"], row["reason"]) for row in found if row["utterance"]]
    by_name = {utterance["audio"].rpartition("/")[2]: reason for utterance, reason in told}
    assert by_name == {n: r for n, (r, _) in reasons.items()} | {"c.wav": "listed twice"}
    assert Counter(row["reason"] for row in found)["malformed row"] == 2
    assert found[0]["place"].startswith(f"{tree}/data/en_us/train.tsv:")
    # Tests keep all that can be decoded and fits; what they lack, their scores must say.
    expected = {"unreadable": 2, "longer than 30 s": 1, "no recording": 1, "silent": 1}
    assert built.left_out["test"] == built.left_out["zero_shot"] == expected
    line = "\nwarning: test: 5 of 17 recordings left out (2 unreadable, 1 longer than 30 s, 1 no "
    assert line + "recording, 1 silent): scores on this split are on 12\n" in str(built)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_languages": "en,frr"}, r"language 'frr': not known, .*'fr'"),
        ({"zero_shot": "es"}, "zero_shot: es_419 is trained on too"),
        ({"train_languages": "zh,en"}, "target: cmn_hans_cn is spoken too"),
        ({"target": "zh,en"}, "found 2 languages to train on and 2 targets, expected some and one"),
        ({"source": None}, "found neither a folder nor --hub"),
        ({"hub": True}, "found both a folder and --hub"),
        ({"source": "/nowhere"}, "nowhere: found no <locale>/<split>.tsv .*expected the layout"),
    ],
)
def test_wrong_options_are_refused(tree, tmp_path, options, message):
    refused(message, fleurs.build, tmp_path / "out", **{"source": tree} | CHOICE | options)


def test_languages_in_any_spelling():
    trained, unheard, goal = fleurs.languages(fleurs.TRAIN_LANGUAGES, "fra, de, kea_cv", "zh")
    assert trained == ["en_us", "ja_jp", "es_419", "ko_kr", "ru_ru"]
    assert (unheard, goal) == (["fr_fr", "de_de", "kea_cv"], "cmn_hans_cn")
    assert fleurs.languages("en,eng,ko", "none", "zh")[:2] == (["en_us", "ko_kr"], [])


def test_another_data_set_in_the_same_folder_is_refused(tree, tmp_path):
    build = partial(fleurs.build, tmp_path / "o")
    build(source=tree, **CHOICE)
    before = (tmp_path / "o" / "train.jsonl").read_bytes()
    for options, name in (
        ({"zero_shot": "none"}, "zero_shot"),
        ({"target": "es", "train_languages": "en"}, "target_language"),
        ({"source": None, "hub": True}, "source"),
    ):
        refused(f"{name}: .* then, .* now.*--replace", build, **{"source": tree} | CHOICE | options)
    assert (tmp_path / "o" / "train.jsonl").read_bytes() == before
    build(source=tree, **CHOICE | {"train_languages": "es_419,en_us"})
    built = build(source=tree, replace=True, **CHOICE | {"zero_shot": "none"})
    assert "zero_shot" not in built.manifests and not built.path("zero_shot").exists()


def test_tsvs_are_read_line_by_line_as_they_are_and_all_that_are_missing_are_told(copy, tmp_path):
    path, part = tmp_path / "cmn_hans_cn" / "test.tsv", fleurs.Part("", "cmn_hans_cn", "test")
    path.parent.mkdir()
    path.write_text("<html>not found</html>")
    refused("test.tsv: not a TSV of FLEURS: 1 of 1 lines", fleurs.read_tsv, tmp_path, part)
    lines = ['4\ta.wav\t"A\u2028B\tx\tx\t1\tMALE', "", "5\tb.wav\t  C  d \tx\tx\t1\tMALE\r"]
    path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8", newline="")
    expected = [("4", "a.wav", '"A B'), ("5", "b.wav", "C d")]
    assert [line[1:] for line in fleurs.read_tsv(tmp_path, part)] == expected
    (copy / "data" / "es_419" / "dev.tsv").unlink()
    for path in (copy / "data" / "en_us" / "audio").glob("test.tar*"):
        path.unlink()
    audio, tsv = refusal(fleurs.build, tmp_path / "out", source=copy, **CHOICE).problems
    assert "en_us/audio: no test.tar.gz, nor its folder" in audio
    assert "es_419/dev.tsv: no such file" in tsv and not (tmp_path / "out").exists()


def test_only_what_is_needed_is_fetched(made, tree, tmp_path, monkeypatch):
    import huggingface_hub

    asked = {}
    fetch = partial(monkeypatch.setattr, huggingface_hub, "snapshot_download")
    fetch(lambda repo_id, **options: asked.update(options, repo_id=repo_id) or str(tree))
    built = fleurs.build(tmp_path, hub=True, revision="abc", **CHOICE)
    assert counts(built) == counts(made)
    spoken = [f"{locale}/{split}" for locale in ("en_us", "es_419") for split in SENTENCES]
    spoken.append("fr_fr/test")
    expected = [f"data/{name}.tsv" for name in spoken]
    expected += [f"data/cmn_hans_cn/{split}.tsv" for split in SENTENCES]
    expected += [f"data/{name.replace('/', '/audio/')}.tar.gz" for name in spoken]
    assert sorted(asked.pop("allow_patterns")) == sorted(expected)
    assert asked == {"repo_id": "google/fleurs", "repo_type": "dataset", "revision": "abc"}

    def offline(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline, and not in the cache")

    fetch(offline)
    with pytest.raises(InputError, match="google/fleurs cannot be fetched: offline"):
        fleurs.build(tmp_path / "o", hub=True, **CHOICE)
