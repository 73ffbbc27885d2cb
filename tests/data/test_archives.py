import gzip
import io
import multiprocessing
import sys
import tarfile

import numpy as np
import pytest

from slam_potsa.data.archives import index_of, read_member, split_reference, unpack
from slam_potsa.errors import InputError

FILES = {f"train/{n}.wav": np.random.default_rng(n).bytes(40_000 + n) for n in range(8)}


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, mode="w") as tar:
        folder = tarfile.TarInfo("train")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


REFERENCES = {
    "a.wav": ("a.wav", None),
    "x/a.tar:b/c.wav": ("x/a.tar", "b/c.wav"),
    "x/a.tar.gz:b.wav": ("x/a.tar.gz", "b.wav"),
    "x/a.tgz:b.wav": ("x/a.tgz", "b.wav"),
    "x/a.zip:b.wav": ("x/a.zip:b.wav", None),
    "a.tar.gz": ("a.tar.gz", None),
}


def test_references():
    assert {reference: split_reference(reference) for reference in REFERENCES} == REFERENCES


def test_members_in_any_order_and_of_an_archive_that_changed(archive):
    for name in [*reversed(FILES), *FILES]:
        assert read_member(archive, name) == FILES[name]
    assert list(index_of(archive)) == list(FILES)
    with pytest.raises(InputError, match="c.wav: no such member; .* 8 files, such as train/0.wav$"):
        read_member(archive, "c.wav")
    with tarfile.open(archive, "a") as tar:
        tar.addfile(tarfile.TarInfo("c.wav"))
    assert read_member(archive, "c.wav") == b""


@pytest.mark.parametrize("content", [b"", b"no archive" * 100, gzip.compress(b"text" * 400)])
def test_what_is_no_plain_archive_is_refused_with_the_remedy(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(InputError, match="a.tar: .*not an uncompressed tar archive .*gunzip"):
        read_member(tmp_path / "a.tar", "a.wav")


@pytest.mark.parametrize("left", [0.3, 0.5, 0.96])
def test_a_truncated_archive_is_refused(archive, left):
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * left)])
    with pytest.raises(InputError, match="a.tar: truncated.*again"):
        read_member(archive, "train/0.wav")


def _read_all(path, seed):
    order = np.random.default_rng(seed).permutation(np.arange(40) % 8)
    return all(read_member(path, name) == FILES[name] for name in (f"train/{n}.wav" for n in order))


@pytest.mark.skipif(sys.platform == "win32", reason="fork")
def test_forked_workers_read_at_the_same_time(archive):
    read_member(archive, "train/0.wav")  # the parent has walked it before it forks
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert all(pool.starmap(_read_all, [(archive, seed) for seed in range(8)], chunksize=1))


def test_unpacking_leaves_a_whole_plain_archive_or_nothing(archive, tmp_path):
    tar, packed, whole = tmp_path / "b.tar", tmp_path / "a.tar.gz", archive.read_bytes()
    packed.write_bytes(gzip.compress(whole))
    unpack(packed, tar)
    assert tar.read_bytes() == whole
    tar.unlink()
    content = packed.read_bytes()
    half = len(content) // 2
    damaged = content[:half] + bytes([content[half] ^ 0xFF]) + content[half + 1 :]
    for bad, problem in ((content[:-9], "truncated"), (damaged, "damaged")):
        packed.write_bytes(bad)
        with pytest.raises(InputError, match=f"{problem}: .*copy or download it again"):
            unpack(packed, tar)
        assert not tar.exists()
