import shutil
import sys

import pytest

from slam_potsa.data.manifest import check_manifest
from slam_potsa.data.sources import fleurs, fleurs_audio
from slam_potsa.errors import InputError
from tests.support.mini_fleurs import CHOICE, Breakage, build_tree, world

pytest.importorskip("indexed_gzip")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return build_tree(tmp_path_factory.mktemp("fleurs"), world())


def test_a_truncated_archive_is_refused_before_anything_is_heard(tmp_path, monkeypatch):
    breakage = Breakage(truncated={"en_us/train": 0.6, "es_419/test": 0.5})
    tree = build_tree(tmp_path, world(), breakage=breakage)
    monkeypatch.setattr(fleurs_audio, "measure_content", lambda *_, **__: pytest.fail("too late"))
    with pytest.raises(InputError) as caught:
        fleurs.build(tmp_path / "out", source=tree, **CHOICE)
    assert len(caught.value.problems) == 2
    first = next(text for text in caught.value.problems if "en_us" in text)
    assert "audio/train.tar.gz: truncated: expected the end of the gzip stream" in first
    assert "recordings: --allow-truncated" in first and " of 20 " in first
    assert not list((tmp_path / "out").glob("*.jsonl"))


@pytest.mark.parametrize("compressed", [True, False])
def test_what_a_truncated_archive_still_has_can_be_used(tmp_path, compressed):
    breakage = Breakage(truncated={"en_us/train": 0.6})
    tree = build_tree(tmp_path, world(), breakage=breakage, compressed=compressed)
    built = fleurs.build(tmp_path / "out", source=tree, allow_truncated=True, **CHOICE)
    left = built.recordings["train"]["en"]
    assert 5 < left < 20
    assert built.dropped_by_reason == {"no recording": 20 - left}
    assert "is truncated: what it still has is used" in built.summary
    check_manifest(built.train)


def test_a_damaged_archive_is_always_refused(tmp_path):
    tree = build_tree(tmp_path, world(), breakage=Breakage(damaged=["en_us/dev"]))
    with pytest.raises(InputError, match="dev.tar.gz: damaged: .*; copy or download it again$"):
        fleurs.build(tmp_path / "out", source=tree, allow_truncated=True, **CHOICE)


def test_a_second_run_does_not_listen_again(tree, tmp_path, monkeypatch):
    output = tmp_path / "out"
    fleurs.build(output, source=tree, **CHOICE)
    before = {path.name: path.read_bytes() for path in output.glob("*.json*")}
    monkeypatch.setattr(fleurs_audio, "measure_content", lambda *_, **__: pytest.fail("again"))
    fleurs.build(output, source=tree, **CHOICE)
    assert {path.name: path.read_bytes() for path in output.glob("*.json*")} == before
    for kept in (output / ".listened").iterdir():
        kept.write_text("{broken")
    with pytest.raises(pytest.fail.Exception, match="again"):
        fleurs.build(output, source=tree, **CHOICE)


def test_an_interrupted_run_goes_on(tree, tmp_path, monkeypatch):
    heard, measure = [], fleurs_audio.measure_content

    def interrupted(content, place, **options):
        heard.append(place)
        if len(heard) == 25:  # in the second split
            raise KeyboardInterrupt
        return measure(content, place, **options)

    monkeypatch.setattr(fleurs_audio, "measure_content", interrupted)
    options = CHOICE | {"workers": 1}
    with pytest.raises(KeyboardInterrupt):
        fleurs.build(tmp_path / "out", source=tree, **options)
    assert [path.name for path in (tmp_path / "out" / ".listened").iterdir()] == [
        "en_us-train.json"
    ]
    built = fleurs.build(tmp_path / "out", source=tree, **options)
    assert len(heard) == 25 + sum(sum(n.values()) for n in built.recordings.values()) - 20


def test_a_missing_library_is_told_before_anything_is_heard(tree, tmp_path, monkeypatch):
    copy = tmp_path / "fleurs"
    shutil.copytree(tree / "data", copy, ignore=shutil.ignore_patterns("*.index"))
    monkeypatch.setitem(sys.modules, "indexed_gzip", None)
    monkeypatch.setattr(fleurs_audio, "measure_content", lambda *_, **__: pytest.fail("too late"))
    with pytest.raises(InputError, match=r"pip install 'slam-potsa\[fleurs\]', or unpack"):
        fleurs.build(tmp_path / "out", source=copy, **CHOICE)
