"""The whole pipeline on real speech, on a laptop: `make demo`.

Telephone prompts in five languages (Debian's asterisk-core-sounds), Whisper tiny.en, a small frozen
LLM. English, Spanish and Russian are trained on, French and Italian are never heard in training.
A baseline and POTSA are trained with the same batches and compared. Everything it writes is under
--output; a second run continues where the first one stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from parts import smollm2, whisper
from slam_potsa.data.manifest import read_manifest
from slam_potsa.data.sources import asterisk
from slam_potsa.data.sources.corpus import Corpus
from slam_potsa.engine.decode import Translator, decode_to, load_run
from slam_potsa.engine.encode import store_features
from slam_potsa.engine.launch import quieten
from slam_potsa.errors import InputError
from slam_potsa.evaluation.analysis import analyze, write_analysis
from slam_potsa.evaluation.report import Report, Request, collect, headline_text, write_page
from slam_potsa.files import atomic_write
from slam_potsa.model.encoder import load_encoder

FINETUNE = Path(__file__).with_name("finetune.py")
SYSTEMS = {"baseline": "Baseline", "potsa": "POTSA"}
HEARD = ("en", "es", "ru")
GROUPS = ("among heard", "with an unheard")
RETRIEVAL = "training sentences, all five languages"
TESTS = {"zero_shot": "training sentences, unheard languages", "test": "unheard sentences"}
SUMMARY = (
    "Speech translation into English with Whisper tiny.en, a Q-Former and a small frozen LLM, "
    "trained on English, Spanish and Russian telephone prompts. French and Italian were never "
    "heard in training."
)
NOTES = [
    "This shows that the whole pipeline runs on real speech. It does not show that POTSA "
    "translates better: with some 270 sentences and minutes of training, differences in BLEU that "
    "lie inside the intervals mean nothing, and the intervals do not include the choice of seed.",
    "One speaker a language: language and speaker cannot be told apart here.",
    "Whisper tiny.en was trained on English only, and the LLM is small; neither is the paper's.",
    "R@1 is measured on the sentences of training, in all five languages.",
    "French and Italian get the mean of the biases of the trained languages.",
]


@dataclass
class Phases:
    """Wall time of each phase, printed as it ends."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str):
        print(f"== {name}", flush=True)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 1)
        print(f"   {self.seconds[name]} s", flush=True)


def main() -> None:
    args = _arguments()
    quieten()
    out, phase = args.output, Phases()
    with phase("recordings"):
        corpus = asterisk.build(out / "data", from_dir=args.from_dir)
        print(corpus.summary)
    manifests = [corpus.path(name) for name in corpus.manifests]
    with phase("encoder and LLM"):
        encoder = whisper.convert_encoder(whisper.find_packaged(), out / "parts/whisper-tiny-en")
        texts = sorted({u.target for u in read_manifest(corpus.path("train"))})
        smollm2.build(out / "parts/llm", texts)
    with phase("encoder features"):
        store_features(load_encoder(str(encoder), "trimmed"), manifests, out / "features")
    for system in SYSTEMS:
        with phase(f"training {system}"):
            train(system, out, args.steps)
    with phase("decoding"):
        for system in SYSTEMS:
            decode(system, out)
    with phase("analysis, scores and report"):
        for system in SYSTEMS:
            look_into(system, out, corpus)
        report = report_on(out)
        write_page(out / "report.html", report)
    write_metrics(out / "metrics.json", report, phase.seconds)
    atomic_write(out / "table.txt", headline_text(report) + "\n")
    print(f"\n{headline_text(report)}\n\n{out / 'metrics.json'}\n{out / 'report.html'}")


def train(system: str, out: Path, steps: int) -> None:
    """The README's command, in a process of its own; a finished run is not trained again."""
    command = [sys.executable, str(FINETUNE), f"experiment=demo_{system}", "engine=native"]
    command += [f"train_config.output_dir={out / system}"]
    command += [f"native.max_steps={steps}"] if steps else []
    command += [f"model_config.llm_path={out / 'parts/llm'}"]
    command += [f"model_config.encoder_path_hf={out / 'parts/whisper-tiny-en'}"]
    command += [f"dataset_config.feature_store={out / 'features'}"]
    command += [f"dataset_config.train_data_path={out / 'data/train.jsonl'}"]
    command += [f"dataset_config.val_data_path={out / 'data/dev.jsonl'}"]
    if subprocess.run(command).returncode:
        raise InputError(f"training {system} failed; its message is above")


def decode(system: str, out: Path) -> None:
    """Translate both tests into the run's directory."""
    for name in TESTS:
        decode_to(out / system / name, load_run(out / system), out / "data" / f"{name}.jsonl")


def look_into(system: str, out: Path, corpus: Corpus) -> None:
    """What `slam-potsa analyze` leaves in the run's directory."""
    manifests = [corpus.path("train"), corpus.path("zero_shot")]
    translator = Translator(load_run(out / system))
    write_analysis(out / system, analyze(translator, manifests, heard=HEARD, name=SYSTEMS[system]))


def report_on(out: Path) -> Report:
    """What `slam-potsa report` makes of both runs, with the demo's words about them."""
    request = Request(
        title="slam_potsa demo",
        summary=SUMMARY,
        notes=NOTES,
        names=list(SYSTEMS.values()),
        heard=HEARD,
        titles=TESTS,
        argv=sys.argv,
    )
    return collect([out / system for system in SYSTEMS], request)


def write_metrics(path: Path, report: Report, seconds: dict[str, float]) -> None:
    content = {
        "systems": {
            run.name: {
                "scores": {title: run.scored[test].as_dict() for test, title in TESTS.items()},
                "retrieval": {RETRIEVAL: {group: run.recall(group) for group in GROUPS}},
                "training_seconds": round(sum(run.series("seconds")[1]), 1),
            }
            for run in report.runs
        },
        "comparisons": {
            title: [asdict(found) for found in report.runs[1].scored[test].comparisons]
            for test, title in TESTS.items()
        },
        "wall_seconds": {**seconds, "total": round(sum(seconds.values()), 1)},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"))
    parser.add_argument("--from", dest="from_dir", type=Path, help="folder of downloaded packages")
    parser.add_argument("--steps", type=int, default=0, help="training steps; 0: as configured")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
