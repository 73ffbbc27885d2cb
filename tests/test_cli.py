"""The command line: what it prints, and what wrong input gets."""

from __future__ import annotations

import pytest

from slam_potsa.cli import main
from slam_potsa.engine import native
from tests.support import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = tiny.world(tmp_path_factory.mktemp("cli"))
    config.native.max_steps = 2
    native.finetune(config)
    return config


def test_check_decode_score_and_translate(run, capsys):
    manifest, output = run.dataset_config.train_data_path, run.train_config.output_dir
    assert main(["prepare", "check", manifest]) == 0
    assert "6 sentences in two languages or more" in capsys.readouterr().out
    assert main(["decode", output, manifest, "--beams", "1"]) == 0
    decoded = capsys.readouterr().out.strip()
    assert decoded.endswith("run/manifest_predictions.jsonl")
    assert (
        main(["score", decoded, "--seen", "en", "es", "--zero-shot", "ru", "--bootstrap", "0"]) == 0
    )
    printed = capsys.readouterr().out
    assert "zero-shot, pooled" in printed and "tok:13a" in printed
    audio = manifest.replace("manifest.jsonl", "audio/en-0.wav")
    assert main(["translate", audio, "--language", "en", "--run", output]) == 0


def test_features_and_bias(run, tmp_path, capsys):
    manifest, encoder = run.dataset_config.train_data_path, run.model_config.encoder_path_hf
    common = [manifest, "--encoder", encoder, "--window", "trimmed"]
    assert main(["features", *common, "--output", str(tmp_path / "f")]) == 0
    assert "18 utterances" in capsys.readouterr().out
    from_store, from_audio = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    store = ["--features", str(tmp_path / "f")]
    assert main(["bias", *common, *store, "--output", str(from_store)]) == 0
    assert main(["bias", *common, "--output", str(from_audio), "--languages", "en", "ru"]) == 0
    assert capsys.readouterr().out.endswith("biases of en, ru\n")
    assert main(["bias", *common, "--output", str(from_audio), "--languages", "xx"]) == 2
    assert "languages xx: not spoken in" in capsys.readouterr().err


def test_wrong_input_is_one_message_and_exit_code_two(run, tmp_path, capsys):
    (tmp_path / "empty.wav").write_bytes(b"")
    arguments = ["translate", "nowhere.wav", str(tmp_path / "empty.wav"), "--language", "français"]
    assert main([*arguments, "--run", run.train_config.output_dir]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: 3 problems") and "Traceback" not in message
    assert main(["decode", str(tmp_path), "x.jsonl"]) == 2
    assert "expected the output_dir of a training run" in capsys.readouterr().err
    assert main(["prepare", "check", str(tmp_path / "empty.wav")]) == 2
