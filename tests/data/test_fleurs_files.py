import os
import shutil

import pytest

from slam_potsa.data.sources import fleurs
from slam_potsa.data.sources.fleurs_files import Row, find_audio, find_root, read_tsv
from slam_potsa.errors import InputError
from tests.support.mini_fleurs import CHOICE

pytest.importorskip("indexed_gzip")


def test_everything_that_is_missing_is_told_at_once(tree, tmp_path):
    copy = tmp_path / "fleurs"
    shutil.copytree(tree / "data", copy / "data")
    (copy / "data" / "es_419" / "dev.tsv").unlink()
    (copy / "data" / "en_us" / "audio" / "test.tar.gz").unlink()
    (copy / "data" / "cmn_hans_cn" / "test.tsv").write_text("<html>not found</html>")
    with pytest.raises(InputError) as caught:
        fleurs.build(tmp_path / "out", source=copy, **CHOICE)
    layout, dev, test, malformed = caught.value.problems
    assert layout.startswith(f"{copy / 'data'}: 2 files are missing; expected the layout")
    assert layout.endswith("--hub; fewer languages: --train-languages, --zero-shot")
    assert dev == "dev: no dev.tsv of es_419" and test == "test: no audio/test.tar.gz of en_us"
    assert "test.tsv: not a TSV of FLEURS: 1 of 1 lines are malformed (line 1: found 1 col" in (
        malformed
    )
    assert not (tmp_path / "out").exists()


def test_missing_languages_are_told_by_split(tree, tmp_path):
    with pytest.raises(InputError) as caught:
        fleurs.build(tmp_path, source=tree, progress=False)  # those of the paper
    layout, train, audio, *rest = caught.value.problems
    assert "data/<locale>/<split>.tsv" in layout and "28 files are missing" in layout
    assert train == "train: no train.tsv of ja_jp, ko_kr, ru_ru"
    assert audio == "train: no audio/train.tar.gz of ja_jp, ko_kr, ru_ru"
    assert rest[2] == (
        "test: no test.tsv of ja_jp, ko_kr, ru_ru, de_de, kea_cv, ceb_ph, ast_es, ky_kg"
    )
    assert len(rest) == 4 and "data/<locale>" not in "".join(rest)


def test_the_hubs_cache_is_followed_to_its_newest_snapshot(corpus, tree, tmp_path):
    cache = tmp_path / "datasets--google--fleurs"
    for place, name in enumerate(("fff", "aaa", "empty")):
        (cache / "snapshots" / name).mkdir(parents=True)
        if name != "empty":  # the newest, of a download that was given up
            (cache / "snapshots" / name / "data").symlink_to(tree / "data")
        os.utime(cache / "snapshots" / name, (place, place))
    assert find_root(cache) == cache / "snapshots" / "aaa" / "data"
    built = fleurs.build(tmp_path / "out", source=cache, **CHOICE)
    assert built.recordings == corpus.recordings


@pytest.mark.parametrize("place", ["fr_fr", "data/fr_fr", "snapshots/abc/parquet-data/fr_fr", "."])
def test_converted_files_are_told_from_an_empty_folder(tmp_path, place):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    with pytest.raises(InputError, match="found no <locale>/<split>.tsv"):
        find_root(tmp_path)
    (tmp_path / place / "train-00000-of-00005.parquet").touch()
    with pytest.raises(InputError, match="converted parquet files; the original TSVs and arch"):
        find_root(tmp_path)


def test_lines_of_a_tsv(tmp_path):
    path = tmp_path / "train.tsv"
    lines = ['4\ta.wav\t"A\u2028B\tx\tx\t1\tMALE', "", "5\tb.wav\t  C  d \tx\tx\t1\tMALE\r"]
    path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8", newline="")
    found, bad = read_tsv(path, "en_us", "train")
    assert found == [Row(4, "a.wav", '"A B'), Row(5, "b.wav", "C d")] and bad == []
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="train.tsv: cannot be read as a TSV in UTF-8"):
        read_tsv(path, "en_us", "train")


def test_an_interrupted_extraction_does_not_hide_the_archive(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.wav").touch()
    (tmp_path / "train.tar.gz").touch()
    listed = [Row(1, "a.wav", "a"), Row(2, "b.wav", "b")]
    assert find_audio(tmp_path, "train", listed) == tmp_path / "train.tar.gz"
    assert find_audio(tmp_path, "train", listed[:1]) == tmp_path / "train"


@pytest.fixture
def hub(tree, monkeypatch):
    """Stands in for the hub: has the tree's files, and notes what is asked for."""
    import huggingface_hub

    asked = []

    def hf_hub_download(repo_id, filename, repo_type, revision):
        assert (repo_id, repo_type) == ("google/fleurs", "dataset")
        asked.append((filename, revision))
        path = tree / filename
        if not path.is_file():
            raise huggingface_hub.errors.LocalEntryNotFoundError("offline, and not in the cache")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return asked


def test_only_what_is_needed_is_fetched(corpus, hub, tmp_path):
    built = fleurs.build(tmp_path, hub=True, revision="abc", **CHOICE)
    assert built.recordings == corpus.recordings
    splits = ("train", "dev", "test")
    needed = [(locale, split) for locale in ("en_us", "es_419") for split in splits]
    needed.append(("fr_fr", "test"))
    expected = [f"data/{locale}/audio/{split}.tar.gz" for locale, split in needed]
    expected += [f"data/{locale}/{split}.tsv" for locale, split in needed]
    expected += [f"data/cmn_hans_cn/{split}.tsv" for split in splits]
    assert sorted(name for name, _ in hub) == sorted(expected)
    assert {revision for _, revision in hub} == {"abc"}
    assert all(name.endswith(".tsv") for name, _ in hub[: len(hub) - len(needed)])  # texts first


def test_what_cannot_be_fetched_is_named(hub, tmp_path):
    with pytest.raises(InputError, match="google/fleurs: data/de_de/test.tsv cannot be fetched: "):
        fleurs.build(tmp_path, hub=True, **CHOICE | {"zero_shot": "de"})
