"""Our forward over Whisper's modules: transformers' at 30 s, independent of the batch otherwise."""

import pytest
import torch

from slam_potsa.model.encoder import encoder_fingerprint, load_encoder
from tests.support import refused, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tiny.whisper(tmp_path_factory.mktemp("whisper")))


def test_equals_transformers_at_thirty_seconds(folder):
    encoder = load_encoder(folder, "30s")
    mel = torch.randn(2, 3000, 80)
    with torch.no_grad():
        expected = encoder.whisper(mel.transpose(1, 2)).last_hidden_state
        torch.testing.assert_close(encoder(mel), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frames", [50, 51])
def test_trimmed_features_do_not_depend_on_the_batch(folder, frames):
    encoder = load_encoder(folder, "trimmed")
    mel = torch.randn(3, 120, 80)
    lengths = [60, (frames + 1) // 2, 40]
    mask = torch.arange(60) < torch.tensor(lengths)[:, None]
    mel[1, 2 * lengths[1] :] = float("nan")
    with torch.no_grad():
        together = encoder(mel, mask)
        alone = encoder(mel[1:2, : 2 * lengths[1]])
    torch.testing.assert_close(together[1, : lengths[1]], alone[0], atol=1e-5, rtol=1e-5)


def test_fingerprint_tells_windows_and_weights_apart(tmp_path):
    path = str(tiny.whisper(tmp_path))
    encoder = load_encoder(path, "30s")
    before = encoder.fingerprint()
    assert encoder.half().fingerprint() == before == encoder_fingerprint(path, "30s")
    assert encoder_fingerprint(path, "trimmed") != before
    tiny.whisper(tmp_path, seed=1)  # other weights in the same place
    assert encoder_fingerprint(path, "30s") == load_encoder(path).fingerprint() != before


def test_bad_input(folder, tmp_path):
    refused("at most 30 s", load_encoder(folder, "trimmed"), torch.zeros(1, 3002, 80))
    refused("neither a transformers folder", load_encoder, str(tmp_path / "nothing"))
    refused("expected a Whisper, got 'llama'", load_encoder, str(tiny.llm(tmp_path / "llm")))
