"""Run directories as training and decoding leave them, without a model: for reports."""

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import soundfile
import yaml

from slam_potsa.config import PotsaConfig
from slam_potsa.data.manifest import Utterance, write_manifest
from slam_potsa.data.predictions import Prediction, write_predictions
from slam_potsa.provenance import write_record

LANGUAGES = ("en", "es", "fr")
SENTENCES = (
    "Press the pound key now.",
    "Your call is important to us.",
    "Goodbye, and good luck!",
    "Please enter your number.",
)


def data(folder: Path, seconds: float = 0.3) -> Path:
    """`folder/test.jsonl` with a recording of each sentence in each language."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    rows, rng = [], np.random.default_rng(0)
    for item in predictions():
        noise = 0.1 * rng.standard_normal(int(16000 * seconds))
        soundfile.write(folder / item.source, noise, 16000)
        texts = item.transcript, item.reference, "en", seconds
        rows.append(Utterance(item.key, item.source, item.language, f"s{item.key[3:]}", *texts))
    write_manifest(folder / "test.jsonl", rows)
    write_manifest(folder / "train.jsonl", [row for row in rows if row.language != "fr"])
    return folder / "test.jsonl"


def predictions(prefix: str = "") -> list[Prediction]:
    """Of `data`, every text with a prefix."""
    found = []
    for language in LANGUAGES:
        for number, sentence in enumerate(SENTENCES):
            key = f"{language}-{number}"
            told = ("en", sentence, f"{prefix}{sentence}")
            spoken = f"{language}: {sentence}"
            audio = f"audio/{key}.flac"
            found.append(Prediction(key, language, audio, *told, transcript=spoken))
    return found


def metrics(aligned: bool, steps: int = 30) -> Iterator[dict[str, Any]]:
    """Lines of metrics.jsonl."""
    for step in range(steps):
        line: dict[str, Any] = {"step": step, "ce": 5 / (step + 1), "seconds": 0.5}
        line |= {"tokens_per_second": 100.0 + step, "layers": [], "lr": 1e-3}
        if aligned:
            line |= {"ot": 0.5, "layers": [1 + step % 2]}
        if aligned and step % 10 == 0:
            line |= {"ot/matched": 1 / (step + 1), "ot/mismatched": 1.0}
            for layer in (1, 2):
                told = {"reward": 0.01 * layer, "ucb": 0.1 if step else None, "count": step}
                told |= {"probability": 0.5}
                line |= {f"schedule/{layer}/{name}": value for name, value in told.items()}
        yield line


def write(folder: Path, manifest: Path, found: Sequence[Prediction], aligned: bool = False) -> Path:
    """A run whose configuration names `manifest`, with metrics and the predictions `found`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = PotsaConfig()
    config.train_config.output_dir = str(folder)
    config.train_config.model_name = folder.name
    config.alignment.terms["ot"].weight = 3.0 if aligned else 0.0
    config.dataset_config.train_data_path = str(manifest.with_name("train.jsonl"))
    config.dataset_config.test_data_path = str(manifest)
    (folder / "config.yaml").write_text(yaml.safe_dump(dataclasses.asdict(config)))
    lines = [json.dumps(line) + "\n" for line in metrics(aligned)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    write_predictions(folder / "test_predictions.jsonl", found)
    argv = ["/usr/bin/slam-potsa", "decode", folder.name, manifest.name]
    with patch.object(sys, "argv", argv):
        write_record(folder / "test.done.json", {}, notes={"manifest": str(manifest)})
    return folder
