"""Eq. 1 and 2."""

import pytest
import torch

from slam_potsa import InputError, LanguageBias
from slam_potsa.data.languages import UNKNOWN_LANGUAGE, language_id
from slam_potsa.model.language_bias import BiasStatistics
from tests.support import refused

E = 5


def ids(*codes):
    return torch.tensor([language_id(c) if c else UNKNOWN_LANGUAGE for c in codes])


def batch(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.full((len(lengths), max(lengths), E), float("nan"))
    mask = torch.zeros(len(lengths), max(lengths), dtype=torch.bool)
    for row, length in enumerate(lengths):
        hidden[row, :length] = torch.randn(length, E, generator=generator)
        mask[row, :length] = True
    return hidden, mask


def estimated(hidden, mask, languages):
    statistics = BiasStatistics()
    for row, valid, language in zip(hidden, mask, languages, strict=True):
        statistics.update(row[valid], language)
    return statistics


def test_eq1_is_the_mean_of_utterance_means_not_of_frames():
    hidden, mask = batch([2, 6, 3])
    statistics = estimated(hidden, mask, ["fr", "fr", "en"])
    expected = (hidden[0, :2].mean(0) + hidden[1, :6].mean(0)) / 2
    torch.testing.assert_close(statistics.means()["fr"], expected)
    assert statistics.counts == {"fr": 2, "en": 1}


def test_eq2_leaves_a_zero_mean_per_language():
    hidden, mask = batch([4, 7, 3])
    languages = ["en", "en", "ru"]
    means = estimated(hidden, mask, languages).means()
    compensated = LanguageBias(means)(hidden, mask, ids(*languages))
    assert torch.equal(compensated[~mask], torch.zeros_like(compensated[~mask]))
    for mean in estimated(compensated, mask, languages).means().values():
        torch.testing.assert_close(mean, torch.zeros(E), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_input_is_subtracted_in_float32(dtype):
    hidden = torch.full((1, 2, E), 300.0, dtype=dtype)
    out = LanguageBias({"en": torch.full((E,), 299.9)})(hidden, None, ids("en"))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, torch.full((1, 2, E), 0.1), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"unseen_language": "mean"}, [3.0, 5.0, 4.0, 4.0]),
        ({"unseen_language": "zero"}, [3.0, 5.0, 0.0, 0.0]),
        ({"center": "language_only"}, [-1.0, 1.0, 0.0, 0.0]),  # what languages share stays
    ],
)
def test_what_is_subtracted_of_seen_and_unseen_languages(options, expected):
    biases = {"en": torch.full((E,), 3.0), "ru": torch.full((E,), 5.0)}
    asked = ids("en", "ru", "fr", None)
    found = LanguageBias(biases, **options).lookup(asked)
    torch.testing.assert_close(found, torch.tensor(expected)[:, None].expand(4, E))
    strict = LanguageBias(biases, unseen_language="error")
    refused("no language bias for .*fr", strict, torch.zeros(4, 3, E), None, asked)


def test_file_round_trip_and_module_round_trip(tmp_path):
    bias = LanguageBias(
        {"fr": torch.randn(E), "en": torch.randn(E)}, {"fr": 3, "en": 2}, fingerprint="abc"
    )
    bias.save(tmp_path / "b.safetensors")
    bias.save(tmp_path / "again")
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "again").read_bytes()
    loaded = LanguageBias.load(tmp_path / "b.safetensors", unseen_language="zero")
    assert loaded.languages == ("en", "fr") and loaded.unseen_language == "zero"
    torch.testing.assert_close(loaded.biases["fr"], bias.biases["fr"])
    other = LanguageBias({"xx": torch.zeros(E)})
    trainable = {k: v for k, v in bias.named_parameters()}  # all that SLAM-LLM's DDP path saves
    other.load_state_dict(trainable, strict=False)
    assert other.languages == ("en", "fr") and other.fingerprint == "abc"
    torch.testing.assert_close(other.lookup(ids("fr")), bias.lookup(ids("fr")))


def test_what_is_no_bias_is_refused(tmp_path):
    with pytest.raises(InputError, match="another encoder or window.*slam-potsa bias"):
        LanguageBias({"en": torch.zeros(E)}, fingerprint="f" * 64).check_fingerprint("e" * 64)
    refused("no language", LanguageBias, {})
    refused("one width", LanguageBias, {"en": torch.zeros(2), "fr": torch.zeros(3)})
    refused("without an encoder frame", BiasStatistics().update, torch.zeros(0, E), "en")
    refused("NaN", BiasStatistics().update, torch.full((2, E), float("nan")), "en")
    (tmp_path / "x.safetensors").write_bytes(b"hello")
    refused("not a file of language biases", LanguageBias.load, tmp_path / "x.safetensors")
    refused("no such file", LanguageBias.load, tmp_path / "missing")
    beyond = LanguageBias({"en": torch.zeros(E)})
    beyond.biases["en"] = torch.full((E,), 1e300, dtype=torch.float64)  # infinite in float32
    beyond.save(tmp_path / "x.safetensors")
    refused("en: expected a row of finite", LanguageBias.load, tmp_path / "x.safetensors")
