"""Overrides that do not exist are named once, with the nearest that do."""

from __future__ import annotations

import pytest

from slam_potsa.cli import main
from slam_potsa.config.compose import compose_config, require_known_keys
from slam_potsa.errors import InputError


def test_keys_groups_and_hydras_own_are_known():
    require_known_keys(["alignment=cosine", "alignment/schedule=random", "~ckpt_path"])
    require_known_keys(["alignment.schedule.temperature=0.1", "hydra.job.name=x"])
    require_known_keys(["+train_config.peft_config.r=4"])


def test_every_unknown_key_comes_at_once_with_what_may_be_meant():
    with pytest.raises(InputError) as error:
        compose_config(["train_config.learning_rate=1", "lr=2", "recipe=potsa"])
    first, second, third = error.value.problems
    assert "'train_config.learning_rate': did you mean" in first
    assert "train_config.lr" in second and "slam-potsa run recipe=NAME" in third


def test_the_command_line_takes_overrides_after_options_and_refuses_other_words(capsys):
    assert main(["run", "recipe=potsa", "proceses=2", "arr.train_config.lr=1", "--dry-run"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("proceses") == 1 and "did you mean processes" in printed
    assert printed.count("arr.train_config.lr") == 1
    assert main(["plan", "--gpu", "h200", "experiment=table1_ours", "train_config.lr=-1"]) == 2
    assert "train_config.lr=-1.0: expected at least 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["score", "x.jsonl", "--beams", "4"])
    printed = capsys.readouterr().err
    assert "usage: slam-potsa score" in printed and "--beams" in printed
