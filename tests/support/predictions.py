"""Predictions made up for the tests of evaluation, and the files sacrebleu's commands read."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from slam_potsa.data.predictions import Prediction

WORDS = [
    "please", "enter", "your", "mailbox", "number", "followed", "by", "the", "pound", "key",
    "Goodbye.", "new", "messages",
]  # fmt: skip
CHINESE = ["请", "输入", "您的", "邮箱", "号码", "然后", "按", "井号", "键", "再见。", "新", "留言"]


def make(
    languages: Sequence[str] = ("en", "es", "fr"),
    count: int = 12,
    noise: float = 0.3,
    seed: int = 0,
    target: str = "en",
) -> list[Prediction]:
    """Random sentences, each word replaced with probability `noise`; alike in all languages."""
    rng, words = random.Random(seed), CHINESE if target == "zh" else WORDS
    space = "" if target == "zh" else " "
    made = []
    for language in languages:
        for number in range(count):
            reference = random.Random(number).choices(words, k=6)
            written = [w if rng.random() > noise else rng.choice(words) for w in reference]
            texts = space.join(reference), space.join(written)
            made.append(Prediction(f"{language}-{number}", language, "x.flac", target, *texts))
    return made


def make_blind(**options) -> list[Prediction]:
    """A blind control of `make`: every sentence answered to another recording."""
    return [replace(item, source=f"not {item.source}") for item in make(**options)]


def command_line(folder: Path, items: Sequence[Prediction], *arguments, form: str = "json"):
    """What `python -m sacrebleu REF -i [baseline] HYP` says about the same sentences; one dict a
    metric, or with `form` "text" its table. The first argument may be a baseline's file."""
    (folder / "ref").write_text("".join(f"{item.reference}\n" for item in items))
    (folder / "hyp").write_text("".join(f"{item.prediction}\n" for item in items))
    baseline = [a for a in arguments if isinstance(a, Path)]
    more = [a for a in arguments if not isinstance(a, Path)]
    command = [sys.executable, "-m", "sacrebleu", folder / "ref", "-i", *baseline, folder / "hyp"]
    command += ["-m", "bleu", "chrf", "-f", form, "-w", "8", *more]
    environment = {k: v for k, v in os.environ.items() if k != "SACREBLEU_SEED"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout) if form == "json" else done.stdout
