"""`slam-potsa translate`: into which language, where none is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slam_potsa.cli import main
from slam_potsa.data.manifest import read_manifest, write_manifest
from slam_potsa.engine import decode as decoding
from slam_potsa.engine.run_directory import write_config
from tests.support import tiny


@pytest.fixture
def config(tmp_path):
    return tiny.world(tmp_path / "world")


def other_run(config, folder, targets, **data):
    """A run that was trained on these target languages in turn; its model is never loaded."""
    rows = read_manifest(config.dataset_config.train_data_path)
    rows = [replace(r, target_language=targets[i % len(targets)]) for i, r in enumerate(rows)]
    folder.mkdir()
    train = folder / "train.jsonl"
    write_manifest(train, rows)
    data = replace(config.dataset_config, train_data_path=str(train), **data)
    options = replace(config.train_config, output_dir=str(folder))
    write_config(replace(config, dataset_config=data, train_config=options))
    (folder / "model.pt").touch()
    return folder


def test_into_what_the_run_was_trained_on_else_into_what_the_flag_says(
    config, tmp_path, monkeypatch, capsys
):
    audio = str(Path(config.dataset_config.train_data_path).parent / "audio" / "en-1.wav")

    class Listening:
        def __init__(self, _config):
            pass

        def translate(self, _recordings, _language, target_language):
            asked.append(target_language)
            return ["text"]

    def translate(run, *flags):
        """The language that was asked for, or what was said instead."""
        asked.clear()
        code = main(["translate", audio, "--language", "en", "--run", str(run), *flags])
        said = capsys.readouterr().err
        assert (code, len(asked)) == ((2, 0) if said else (0, 1))
        return said or asked[0]

    asked = []
    monkeypatch.setattr(decoding, "Translator", Listening)
    run = other_run(config, tmp_path / "zh", ["zh"])
    assert translate(run) == "zh"
    assert translate(run, "--target-language", "de") == "de"
    assert "chinese!" in translate(run, "--target-language", "chinese!")
    assert translate(other_run(config, tmp_path / "asr", [None], tasks=["asr"])) == ""
    run = other_run(config, tmp_path / "two", ["zh", "ko"])
    assert "--target-language is not given" in translate(run)
    (run / "train.jsonl").unlink()
    assert "--target-language is not given" in translate(run)
    assert translate(run, "--target-language", "ko") == "ko"
