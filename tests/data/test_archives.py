import gzip
import io
import multiprocessing
import tarfile

import numpy as np
import pytest

from slam_potsa.data.archives import index_of, read_member, split_reference, unpack
from slam_potsa.errors import InputError
from tests.support import refused
from tests.support.torchrun import in_a_process

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


def test_members_in_any_order_and_of_an_archive_that_changed(archive):
    for name in [*reversed(FILES), *FILES]:
        assert read_member(archive, name) == FILES[name]
    assert list(index_of(archive)) == list(FILES)
    with pytest.raises(InputError, match="c.wav: no such member; .* 8 files, such as train/0.wav$"):
        read_member(archive, "c.wav")
    with tarfile.open(archive, "a") as tar:
        tar.addfile(tarfile.TarInfo("c.wav"))
    assert read_member(archive, "c.wav") == b""
    for archive in ("x/a.tar", "x/a.tar.gz", "x/a.tgz"):
        assert split_reference(f"{archive}:b/c.wav") == (archive, "b/c.wav")
    for path in ("a.wav", "x/a.zip:b.wav", "a.tar.gz"):
        assert split_reference(path) == (path, None)


def test_what_is_no_whole_plain_archive_is_refused_with_the_remedy(archive):
    whole, boundary = archive.read_bytes(), index_of(archive)["train/1.wav"][0] - 512
    for content in (b"", b"no archive" * 100, gzip.compress(b"text" * 400)):
        archive.write_bytes(content)
        refused("a.tar: .*not an uncompressed tar archive .*gunzip", read_member, archive, "a.wav")
    for left in (len(whole) // 2, len(whole) * 96 // 100, boundary):
        archive.write_bytes(whole[:left])
        refused("a.tar: truncated.*again", read_member, archive, "train/0.wav")


def _read_all(path, seed):
    order = np.random.default_rng(seed).permutation(np.arange(40) % 8)
    return all(read_member(path, name) == FILES[name] for name in (f"train/{n}.wav" for n in order))


def _read_in_forked_workers(archive):
    read_member(archive, "train/0.wav")  # the parent has walked it before it forks
    pool = multiprocessing.get_context("fork").Pool(4)
    assert all(pool.starmap(_read_all, [(archive, seed) for seed in range(8)], chunksize=1))
    pool.close()
    pool.join()


def test_forked_workers_read_at_the_same_time(archive):
    in_a_process(_read_in_forked_workers, archive)


def test_unpacking_leaves_a_whole_plain_archive_or_nothing(tmp_path):
    tar, packed = tmp_path / "b.tar", tmp_path / "a.tgz"
    content = gzip.compress(FILES["train/0.wav"])
    packed.write_bytes(content)
    unpack(packed, tar)
    assert tar.read_bytes() == FILES["train/0.wav"]
    tar.unlink()
    damaged = content[:20_000] + bytes([content[20_000] ^ 0xFF]) + content[20_001:]
    for bad, problem in ((content[:-9], "truncated"), (damaged, "damaged")):
        packed.write_bytes(bad)
        refused(f"{problem}: .*copy or download it again", unpack, packed, tar)
        assert not tar.exists()
