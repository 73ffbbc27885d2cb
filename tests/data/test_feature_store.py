import pickle
import shutil

import numpy as np
import pytest

from slam_potsa.data.feature_store import FeatureStore, add_features
from slam_potsa.engine.encode import store_features
from slam_potsa.model.encoder import load_encoder
from slam_potsa.provenance import seal
from tests.support import refused, tiny


def features(key):
    generator = np.random.default_rng(sum(key.encode()))
    return generator.normal(size=(3 + len(key), 6)).astype(np.float32)


def fill(folder, keys, fingerprint="tiny:30s"):
    return add_features(folder, fingerprint, 6, ((key, features(key)) for key in keys))


def is_whole(store, keys):
    for key in keys:
        np.testing.assert_array_equal(store[key], features(key).astype(np.float16))
    return len(store.keys) == len(keys) and store[keys[0]].dtype == np.float16


def test_what_is_added_is_read_and_what_is_there_stays(tmp_path):
    made, keys = fill(tmp_path, ["a", "en/long key", "ключ"]), ["a", "en/long key", "ключ"]
    store = FeatureStore.open(tmp_path, "tiny:30s")
    assert (store.width, store.fingerprint) == (6, "tiny:30s")
    for one in (made, store, pickle.loads(pickle.dumps(store))):
        assert is_whole(one, keys[::-1])
    add_features(tmp_path, "tiny:30s", 6, [("a", np.zeros((9, 6))), ("c", features("c"))])
    assert is_whole(FeatureStore.open(tmp_path), [*keys, "c"])


def test_an_interrupted_write_leaves_a_smaller_store(tmp_path):
    fill(tmp_path, ["a"])
    with (tmp_path / "features.bin").open("ab") as file:  # whose index was not written any more
        file.write(features("lost").astype("f2").tobytes())
    assert is_whole(FeatureStore.open(tmp_path), ["a"])

    def interrupted():
        for number in range(300):
            yield f"k{number}", features(f"k{number}")
            if number == 255:
                assert len(FeatureStore.open(tmp_path).keys) == 257  # saved on the way
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_features(tmp_path, "tiny:30s", 6, interrupted())
    assert is_whole(FeatureStore.open(tmp_path), ["a", *(f"k{number}" for number in range(300))])


def test_other_and_broken_stores_and_missing_keys(tmp_path):
    refused("no such feature store; make it with", FeatureStore.open, tmp_path / "none")
    store = fill(tmp_path, ["a"])
    store.require(["a"])
    refused("2 utterances have no features \\(such as 'x'\\)", store.require, ["x", "a", "y"])
    for opened in (lambda: FeatureStore.open(tmp_path, "b"), lambda: fill(tmp_path, [], "b")):
        refused("'tiny:30s', but this run has 'b'", opened)
    refused("6 wide, this encoder's are 8", add_features, tmp_path, "tiny:30s", 8, [])
    (tmp_path / "features.bin").write_bytes(b"\0\0")
    refused("2 bytes, the index needs 48", FeatureStore.open, tmp_path)
    seal(tmp_path / "index.json").unlink()
    for index in ('{"keys": []}', '{"keys": [], "fingerprint": "", "width": 1}', "[]", "3"):
        (tmp_path / "index.json").write_text(index)
        refused("not the index of a feature store", FeatureStore.open, tmp_path)


def test_a_key_of_another_recording_is_refused_and_one_of_the_same_taken(tmp_path):
    one, other = (tiny.recordings(tmp_path / str(n), sentences=1, seed=n) for n in (0, 1))
    same = shutil.copytree(one.parent, tmp_path / "same") / one.name
    encoder = load_encoder(str(tiny.whisper(tmp_path / "whisper")), "trimmed")

    def store(*manifests):
        return len(store_features(encoder, manifests, tmp_path / "f", progress=False).keys)

    refused(r"1/manifest.jsonl: 3 keys \(such as 'en-0'\) are those of other", store, one, other)
    assert not FeatureStore.open(tmp_path / "f").keys  # before any is encoded
    assert store(one, same) == 3
    shutil.copy(other.parent / "audio/es-0.wav", one.parent / "audio")  # exchanged since
    refused(r"1 keys \(such as 'es-0'\)", store, same, one)
    shutil.rmtree(one.parent / "audio")  # what is stored needs it no more
    assert store(one) == 3


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
    refused(message, add_features, tmp_path, "f", 6, [("b", features("b")), ("a", array)])
    assert is_whole(FeatureStore.open(tmp_path), ["b"])
