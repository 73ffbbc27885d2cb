import json
import pickle

import numpy as np
import pytest

from slam_potsa.data.feature_store import FeatureStore, FeatureStoreWriter
from slam_potsa.errors import InputError


def features(key, width=6):
    generator = np.random.default_rng(sum(key.encode()))
    return generator.normal(size=(3 + len(key), width)).astype(np.float32)


def fill(folder, keys, fingerprint="tiny:30s"):
    with FeatureStoreWriter(folder, fingerprint, 6) as writer:
        for key in keys:
            writer.add(key, features(key))


def test_what_is_added_is_read(tmp_path):
    fill(tmp_path, ["a", "en/long key", "ключ"])
    store = FeatureStore.open(tmp_path, "tiny:30s")
    assert (len(store), store.width, store.fingerprint) == (3, 6, "tiny:30s")
    assert "a" in store and "b" not in store
    for key in ("ключ", "a", "en/long key"):
        assert store[key].dtype == np.float16 and len(store[key]) == len(features(key))
        np.testing.assert_array_equal(store[key], features(key).astype(np.float16))


def test_writing_resumes_and_skips(tmp_path):
    fill(tmp_path, ["a", "b"])
    with FeatureStoreWriter(tmp_path, "tiny:30s", 6) as writer:
        assert len(writer) == 2 and "a" in writer
        writer.add("a", np.zeros((9, 6)))  # there already: skipped
        writer.add("c", features("c"))
    store = FeatureStore.open(tmp_path)
    for key in "abc":
        np.testing.assert_array_equal(store[key], features(key).astype(np.float16))


def test_an_interrupted_write_leaves_a_smaller_store(tmp_path):
    fill(tmp_path, ["a"])
    with (tmp_path / "features.bin").open("ab") as file:  # whose index was not written any more
        file.write(features("lost").astype("f2").tobytes())
    store = FeatureStore.open(tmp_path)
    assert len(store) == 1
    np.testing.assert_array_equal(store["a"], features("a").astype(np.float16))
    fill(tmp_path, ["b"])
    np.testing.assert_array_equal(FeatureStore.open(tmp_path)["b"], features("b").astype("f2"))


def test_many_additions_are_saved_on_the_way(tmp_path):
    writer = FeatureStoreWriter(tmp_path, "tiny:30s", 6)
    for index in range(300):
        writer.add(f"k{index}", features("k"))
    assert len(FeatureStore.open(tmp_path)) == 256
    writer.close()
    assert len(FeatureStore.open(tmp_path)) == 300


def test_another_fingerprint_is_refused_naming_both(tmp_path):
    fill(tmp_path, ["a"])
    for opener in (
        lambda: FeatureStore.open(tmp_path, "large:30s"),
        lambda: FeatureStoreWriter(tmp_path, "large:30s", 6),
    ):
        with pytest.raises(InputError, match="'tiny:30s', but this run has 'large:30s'"):
            opener()
    with pytest.raises(InputError, match="6 wide, this encoder's are 8"):
        FeatureStoreWriter(tmp_path, "tiny:30s", 8)


def test_broken_stores(tmp_path):
    with pytest.raises(InputError, match="no such feature store; make it with"):
        FeatureStore.open(tmp_path / "none")
    fill(tmp_path, ["a"])
    (tmp_path / "features.bin").write_bytes(b"\0\0")
    with pytest.raises(InputError, match="2 bytes, the index needs 48"):
        FeatureStore.open(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({"keys": []}))
    with pytest.raises(InputError, match="not the index of a feature store"):
        FeatureStore.open(tmp_path)


def test_missing_keys_are_counted(tmp_path):
    fill(tmp_path, ["a"])
    store = FeatureStore.open(tmp_path)
    store.require(["a"])
    with pytest.raises(InputError, match="2 utterances have no features \\(such as 'x'\\)"):
        store.require(["x", "a", "y"])
    with pytest.raises(InputError, match="'x'"):
        store["x"]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 5)), r"expected shape \[frames, 6\], got \[3, 5\]"),
        (np.zeros((0, 6)), r"got \[0, 6\]"),
        (np.zeros(6), r"got \[6\]"),
        (np.full((1, 6), np.nan), "NaN"),
        (np.full((1, 6), 1e6), "beyond float16's 65504"),
    ],
)
def test_unusable_features(tmp_path, array, message):
    with FeatureStoreWriter(tmp_path, "f", 6) as writer, pytest.raises(InputError, match=message):
        writer.add("a", array)


def test_a_store_is_pickled_without_its_frames(tmp_path):
    with FeatureStoreWriter(tmp_path, "f", 6) as writer:
        writer.add("a", np.ones((50_000, 6)))
    store = FeatureStore.open(tmp_path)
    assert store["a"].shape == (50_000, 6)
    stored = pickle.dumps(store)
    assert len(stored) < 2000
    np.testing.assert_array_equal(pickle.loads(stored)["a"], store["a"])
