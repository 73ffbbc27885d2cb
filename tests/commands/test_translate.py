"""`slam-potsa translate`: into which language, where none is given."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from slam_potsa.cli import main
from slam_potsa.engine import decode as decoding
from slam_potsa.engine.run_directory import write_config
from tests.support import tiny


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny.world(tmp_path_factory.mktemp("translate"))


def other_run(config, folder, targets, **data):
    """A run that was trained on these target languages in turn; its model is never loaded."""
    manifest = Path(config.dataset_config.train_data_path)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows = [r | {"target_language": targets[i % len(targets)]} for i, r in enumerate(rows)]
    folder.mkdir()
    train = folder / "train.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = replace(config.dataset_config, train_data_path=str(train), **data)
    options = replace(config.train_config, output_dir=str(folder))
    write_config(replace(config, dataset_config=data, train_config=options))
    (folder / "model.pt").touch()
    return folder


@pytest.fixture
def translate(config, monkeypatch, capsys):
    """Of a run and flags: exit code, the target language that was asked for, what was said."""
    asked = []

    class Listening:
        def __init__(self, config):
            pass

        def translate(self, recordings, language, target_language):
            asked.append(target_language)
            return ["text"]

    monkeypatch.setattr(decoding, "Translator", Listening)
    audio = str(Path(config.dataset_config.train_data_path).parent / "audio" / "en-1.wav")

    def call(run, *flags):
        asked.clear()
        code = main(["translate", audio, "--language", "en", "--run", str(run), *flags])
        return code, list(asked), capsys.readouterr().err

    return call


def test_the_default_is_what_the_run_was_trained_on(config, translate, tmp_path):
    run = other_run(config, tmp_path / "zh", ["zh"])
    assert translate(run) == (0, ["zh"], "")
    assert translate(run, "--target-language", "de") == (0, ["de"], "")
    code, asked, said = translate(run, "--target-language", "chinese!")
    assert (code, asked) == (2, []) and "chinese!" in said
    assert translate(other_run(config, tmp_path / "asr", [None], tasks=["asr"])) == (0, [""], "")


def test_the_flag_is_asked_for_where_that_is_not_one_language(config, translate, tmp_path):
    run = other_run(config, tmp_path / "two", ["zh", "ko"])
    code, asked, said = translate(run)
    assert (code, asked) == (2, []) and "--target-language is not given" in said
    (run / "train.jsonl").unlink()
    code, asked, said = translate(run)
    assert (code, asked) == (2, []) and "--target-language is not given" in said
    assert translate(run, "--target-language", "ko") == (0, ["ko"], "")
