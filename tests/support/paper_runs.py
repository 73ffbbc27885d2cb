"""Run directories as a training and two decodings leave them, for the paper's tables."""

from __future__ import annotations

import copy
import dataclasses
from functools import cache, reduce

import yaml

from slam_potsa.config.compose import compose_config, conf_dir
from slam_potsa.data.predictions import write_predictions
from slam_potsa.evaluation.paper import TESTS
from tests.support.predictions import make


@cache
def composed(name):
    known = (conf_dir() / "experiment" / f"{name}.yaml").is_file()
    return dataclasses.asdict(compose_config([f"experiment={name}"] if known else []))


def run(folder, name, seed=42, noise=0.2, tests=("test", "zero_shot"), options=(), **train):
    """A run directory as a training and two decodings leave it.

    options: (dotted key, value) pairs that are not as the experiment has them. train: the same, of
    train_config.
    """
    folder.mkdir(parents=True)
    config = copy.deepcopy(composed(name))
    config["train_config"] |= {"model_name": name, "seed": seed, **train}
    config["dataset_config"]["seed"] = seed
    for key, value in options:
        *sections, last = key.split(".")
        reduce(lambda tree, section: tree[section], sections, config)[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for test in tests:
        made = make(TESTS[test].languages, 8, noise, seed, target="zh")
        write_predictions(folder / f"{test}_predictions.jsonl", made)
    return folder
