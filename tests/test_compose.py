"""Overrides that do not exist are named once, with the nearest that do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from slam_potsa.cli import main
from slam_potsa.config.compose import compose_config, require_known_keys
from slam_potsa.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


def test_keys_groups_and_hydras_own_are_known():
    require_known_keys(
        [
            "experiment=table1_ours",
            "alignment=cosine",
            "alignment/schedule=random",
            "alignment.schedule.temperature=0.1",
            "+train_config.peft_config.r=4",
            "~ckpt_path",
            "hydra.job.name=x",
        ]
    )


def test_every_unknown_key_comes_at_once_with_what_may_be_meant():
    with pytest.raises(InputError) as error:
        compose_config(["train_config.learning_rate=1", "lr=2", "recipe=potsa"])
    first, second, third = error.value.problems
    assert "'train_config.learning_rate': did you mean" in first
    assert "train_config.lr" in second and "slam-potsa run recipe=NAME" in third


def test_a_recipes_typo_is_named_once(capsys):
    assert main(["run", "recipe=potsa", "proceses=2", "arr.train_config.lr=1", "--dry-run"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("proceses") == 1 and "did you mean processes" in printed
    assert printed.count("arr.train_config.lr") == 1


def test_overrides_may_follow_an_option(capsys):
    assert main(["plan", "--gpu", "h200", "experiment=table1_ours", "train_config.lr=-1"]) == 2
    assert "train_config.lr=-1.0: expected at least 0" in capsys.readouterr().err


def test_other_words_are_refused_with_the_commands_own_usage(capsys):
    with pytest.raises(SystemExit):
        main(["score", "x.jsonl", "--beams", "4"])
    printed = capsys.readouterr().err
    assert "usage: slam-potsa score" in printed and "--beams" in printed


def test_finetune_says_it_too(tmp_path):
    entry = ROOT / "examples/potsa/finetune.py"
    done = subprocess.run(
        [sys.executable, str(entry), "train_config.wieght_decay=1"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "did you mean train_config.weight_decay" in done.stderr
    assert not list(tmp_path.iterdir())  # nothing has begun
