"""Twenty steps of a tiny real world, kept as figures: what a change of the house must not move.

`python -m tests.support.golden` writes tests/golden/tiny.json anew, where a change is meant to move
them. Runs on one thread: sums then have one order.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from slam_potsa.data.jsonl import read_log
from slam_potsa.engine import native
from slam_potsa.engine.decode import Translator, load_run
from tests.support import tiny

FILE = Path(__file__).resolve().parents[1] / "golden" / "tiny.json"
STEPS = 20
KEPT = ("step", "layers", "lr", "ce", "ot", "ot/matched", "ot/mismatched")


def world(folder: Path):
    """Ten sentences in three languages, two epochs of ten steps, validated in the middle."""
    config = tiny.world(folder, sentences=10)
    # So that a wrong gradient of the cost shows in the losses.
    config.alignment.terms["ot"].weight = 100.0
    config.train_config.validation_interval = 5
    return config


def figures(run: str | Path) -> dict[str, Any]:
    """What a trained run directory says: a line a step, and the text its last model answers."""
    lines = read_log(Path(run) / "metrics.jsonl")[:STEPS]
    config = load_run(run, ckpt_path=str(Path(run) / "model.pt"))
    answers = Translator(config, "cpu").decode(config.dataset_config.val_data_path, progress=False)
    return {
        "steps": [{name: line[name] for name in KEPT if name in line} for line in lines],
        "answers": {answer.key: answer.prediction for answer in answers},
    }


def train(folder: Path) -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        config = world(folder)
        native.finetune(config)
        return figures(config.train_config.output_dir)
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        FILE.write_text(json.dumps(train(Path(folder)), indent=1) + "\n")
