import gzip
import io
import multiprocessing
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from slam_potsa.data import archives
from slam_potsa.data.archives import index_of, known_index, read_member, read_through
from slam_potsa.errors import InputError

pytest.importorskip("indexed_gzip")
ARCHIVES = ["a.tar", "a.tar.gz", "a.tgz"]


def files(count=8, size=40_000):
    """Incompressible files, so that an archive's place on disk is its place in the content."""
    rng = np.random.default_rng(0)
    return {f"train/{index}.wav": rng.bytes(size + index) for index in range(count)}


def pack(path, members):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        folder = tarfile.TarInfo("train")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    plain = content.getvalue()
    path.write_bytes(plain if path.suffix == ".tar" else gzip.compress(plain, mtime=0))
    return path


@pytest.fixture(params=ARCHIVES)
def archive(request, tmp_path):
    return pack(tmp_path / request.param, files())


@pytest.fixture
def compressed(tmp_path):
    return pack(tmp_path / "a.tar.gz", files())


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("a.wav", ("a.wav", None)),
        ("x/a.tar:b/c.wav", ("x/a.tar", "b/c.wav")),
        ("x/a.tar.gz:b.wav", ("x/a.tar.gz", "b.wav")),
        ("x/a.tgz:b.wav", ("x/a.tgz", "b.wav")),
        ("x/a.zip:b.wav", ("x/a.zip:b.wav", None)),
        ("a.tar.gz", ("a.tar.gz", None)),
    ],
)
def test_references(reference, parts):
    assert archives.split_reference(reference) == parts


def test_members_in_any_order(archive):
    expected = files()
    for name in [*reversed(expected), *expected]:
        assert read_member(archive, name) == expected[name]
    assert list(index_of(archive).members) == list(expected)
    assert index_of(archive).trouble is None


def test_reading_through_gives_all_in_order_and_leaves_the_index(archive, monkeypatch):
    assert list(read_through(archive)) == list(files().items())
    monkeypatch.setattr(archives, "_walk_compressed", lambda *_: pytest.fail("is indexed already"))
    assert known_index(archive).trouble is None
    assert read_member(archive, "train/3.wav") == files()["train/3.wav"]


def test_an_unknown_member_is_named_with_an_example(archive):
    message = r"a\.t.*:c.wav: no such member; the archive has 8 files, such as train/0.wav$"
    with pytest.raises(InputError, match=message):
        read_member(archive, "c.wav")


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("content", [b"", b"no archive" * 100, gzip.compress(b"text" * 400)])
def test_what_is_no_archive(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="a.t.*: not a.* tar archive"):
        read_member(tmp_path / name, "a.wav")


def test_a_truncated_archive_gives_what_is_whole(archive):
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    found = known_index(archive)
    assert found.trouble == "truncated" and 0 < len(found.members) < 8
    assert str(archive.stat().st_size) in found.detail
    for name in reversed(found.members):
        assert read_member(archive, name) == files()[name]
    assert dict(read_through(archive)).keys() == found.members.keys()
    with pytest.raises(InputError, match=r"7.wav: no such member; .* it is truncated \(.*again"):
        read_member(archive, "train/7.wav")


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.999])
def test_a_truncated_archive_is_found_without_an_index(compressed, keep):
    content = compressed.read_bytes()
    compressed.write_bytes(content[: int(keep * len(content))])
    assert known_index(compressed).trouble == "truncated"


def test_a_whole_archive_that_was_never_read_is_not_read_to_be_judged(compressed, monkeypatch):
    monkeypatch.setattr(archives, "_walk_compressed", lambda *_: pytest.fail("reads all"))
    assert known_index(compressed) is None


def test_a_damaged_archive_is_told_from_a_truncated_one(compressed):
    content = bytearray(compressed.read_bytes())
    content[len(content) // 2] ^= 0xFF
    compressed.write_bytes(content)
    assert index_of(compressed).trouble == "damaged"
    assert "CRC check failed" in index_of(compressed).detail


def test_an_index_belongs_to_its_archive(compressed, tmp_path):
    index_of(compressed)
    (place,) = tmp_path.glob("*.index")
    other = {name: data[::-1] for name, data in files().items()}
    pack(compressed, other)
    assert read_member(compressed, "train/5.wav") == other["train/5.wav"]
    place.write_bytes(b"no index")
    archives._index.cache_clear()
    assert read_member(compressed, "train/5.wav") == other["train/5.wav"]


def test_a_copied_archive_keeps_its_index(compressed, tmp_path, monkeypatch):
    index_of(compressed)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tmp_path.glob("a.tar.gz*"):
        (copy / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(archives, "_walk_compressed", lambda *_: pytest.fail("is indexed already"))
    assert read_member(copy / "a.tar.gz", "train/2.wav") == files()["train/2.wav"]


@pytest.mark.parametrize("cache_too", [False, True])
def test_a_read_only_folder(compressed, tmp_path, monkeypatch, cache_too):
    """The index goes to the cache folder, or where that is read-only too, stays in memory."""
    write = archives.atomic_path

    def refuse(path):
        if cache_too or path.parent == compressed.parent:
            raise PermissionError("read-only")
        return write(path)

    monkeypatch.setattr(archives, "atomic_path", refuse)
    assert read_member(compressed, "train/6.wav") == files()["train/6.wav"]
    assert not list(tmp_path.glob("*.index"))
    assert bool(list((tmp_path / "cache").rglob("*-a.tar.gz.index"))) is not cache_too


def test_threads(compressed):
    expected = files()
    with ThreadPoolExecutor(8) as pool:
        names = list(expected) * 20
        assert all(
            content == expected[name]
            for name, content in zip(
                names, pool.map(lambda n: read_member(compressed, n), names), strict=True
            )
        )


def _read_all(path, order, results):
    expected = files()
    names = [f"train/{index}.wav" for index in order]
    results.put(all(read_member(path, name) == expected[name] for name in names))


@pytest.mark.skipif(sys.platform == "win32", reason="fork")
def test_forked_workers_read_at_the_same_time(compressed):
    read_member(compressed, "train/0.wav")  # the parent has a reader before it forks
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    orders = [np.random.default_rng(seed).permutation(np.arange(40) % 8) for seed in range(4)]
    workers = [
        context.Process(target=_read_all, args=(compressed, order, results)) for order in orders
    ]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=30) for _ in workers] == [True] * 4
    for worker in workers:
        worker.join()


def test_members_beyond_the_first_starting_point(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "SPACING", 64 * 1024)
    members = files(count=12, size=50_000)
    path = pack(tmp_path / "a.tar.gz", members)
    for name in reversed(members):
        assert read_member(path, name) == members[name]


def test_without_the_library_the_remedy_is_named(compressed, monkeypatch):
    monkeypatch.setitem(sys.modules, "indexed_gzip", None)
    with pytest.raises(InputError, match=r"pip install 'slam-potsa\[fleurs\]', or unpack"):
        read_member(compressed, "train/0.wav")


def test_unpacking_leaves_a_whole_plain_archive_or_nothing(compressed, tmp_path):
    tar, whole = tmp_path / "b.tar", compressed.read_bytes()
    archives.unpack(compressed, tar)
    assert read_member(tar, "train/3.wav") == files()["train/3.wav"]
    tar.unlink()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    for content, problem in ((whole[:-9], "truncated"), (bytes(damaged), "damaged")):
        compressed.write_bytes(content)
        with pytest.raises(InputError, match=f"{problem}: .*; copy or download it again"):
            archives.unpack(compressed, tar)
        assert not tar.exists()
    compressed.write_bytes(whole[: len(whole) // 2])
    archives.unpack(compressed, tar, allow_truncated=True)
    assert index_of(tar).trouble == "truncated" and 0 < len(index_of(tar).members) < 8
