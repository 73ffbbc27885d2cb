"""The whole pipeline on real speech, on a laptop: `make demo`.

Telephone announcements put together from recorded prompts (Debian's Asterisk sounds), Whisper base,
a small frozen LLM. English, Spanish and Russian speech is translated into English text; Italian and
French translations are never seen. A baseline and POTSA are trained. The baseline then goes on in
four ways: without Italian; with Italian, which joins by speech alone; the same with partners of
other sentences, a control; and with true translations of the Italian recordings, the ceiling.
Everything it writes is under --output; a second run continues where the first one stopped.

Two of its steps run at a time, in two processes, each on half of the cores: training in small
batches gains little by a second core.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from functools import partial
from graphlib import TopologicalSorter
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from parts import smollm2, whisper
from slam_potsa.config.compose import compose_config
from slam_potsa.data.manifest import read_manifest, write_manifest
from slam_potsa.data.pairs import shuffled_partners
from slam_potsa.data.predictions import read_predictions
from slam_potsa.data.sources import announcements
from slam_potsa.engine import native
from slam_potsa.engine.decode import Translator, decode_to, load_run, predictions_file
from slam_potsa.engine.encode import store_features
from slam_potsa.engine.launch import quieten
from slam_potsa.errors import InputError, as_messages, collecting, refuse
from slam_potsa.evaluation.analysis import analyze, write_analysis
from slam_potsa.evaluation.figures import bar_chart, standalone
from slam_potsa.evaluation.report.collect import Report, Request, collect
from slam_potsa.evaluation.report.page import write_page
from slam_potsa.evaluation.scores import ScoreTable, score
from slam_potsa.evaluation.tap_measures import MeasureSettings
from slam_potsa.files import alone, atomic_write, write_json
from slam_potsa.model.encoder import load_encoder
from slam_potsa.text import table

HEARD, JOINS = ("en", "es", "ru"), "it"
SENTENCES = {"train": 140, "pairs": 160, "dev": 5, "test": 48, "clauses": 1}


class System(NamedTuple):
    name: str
    experiment: str
    rows: str = "heard"  # of `training_rows`


SYSTEMS = {
    "baseline": System("baseline", "demo_baseline"),
    "potsa": System("POTSA", "demo_potsa"),
    "longer": System("longer", "demo_longer"),
    "joined": System("Italian joins", "demo_joined", "joined"),
    "control": System("control", "demo_joined", "shuffled"),
    "ceiling": System("ceiling", "demo_longer", "translated"),
}
TESTS = {"test": "new sentences", "test_new_voices": "new sentences, new voices"}
SUMMARY = (
    "Telephone announcements translated into English with Whisper base, a Q-Former and a small "
    "frozen LLM. English, Spanish and Russian were trained with translations; Italian joined with "
    "speech alone, French was never heard."
)
NOTES = [
    "“longer”, “Italian joins”, “control” and “ceiling” continue the baseline for a third of its "
    "steps. “Italian joins”: 160 Italian recordings without any text are pulled to the speech "
    "tokens that the baseline makes of the same sentences in the translated languages. “control”: "
    "the same recordings, pulled to those of other sentences. “ceiling”: the same recordings with "
    "their translations, what text would give.",
    "One seed, minutes of training: docs/evidence.md has several seeds and intervals over them.",
    "All speech is put together from recorded prompts; test sentences are new as wholes, not in "
    "their words. One voice a language in training; new voices are 8 kHz telephone recordings.",
    "All have bias compensation; a language that was never heard gets the mean of the biases, "
    "Italian that joins its own. A step has eight translated rows; with POTSA each has a partner, "
    "which is only aligned.",
]


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
LANES = min(2, CORES)
THREADS = CORES // LANES  # of a step
LOOKED_INTO = ("baseline", "potsa")
LOOK = MeasureSettings(detail_sentences=SENTENCES["test"] // 2, codes=16)  # R@1 is of all
START = ("baseline", "potsa")  # from new weights; the others go on from the baseline
# What each step waits for; of those that may start, the first one does.
AFTER: dict[str, Sequence[str]] = {
    "recordings": (),
    "encoder": (),
    "features": ("recordings", "encoder"),  # of what is heard
    "llm": ("recordings",),
    "other features": ("features",),  # of what joins, and of the tests
    **{f"train {name}": ("features", "llm") for name in START},
    **{
        f"train {name}": ("train baseline", "other features")
        for name in ("joined", "longer", "control", "ceiling")
    },
    **{f"test {name}": (f"train {name}", "other features") for name in SYSTEMS},
}


def main() -> None:
    args = _arguments()
    quieten()
    check_installed()
    out, start = args.output, time.perf_counter()
    seconds = side_by_side(AFTER, partial(step, args=args))
    report = report_on(out)
    write_page(out / "report.html", report)
    atomic_write(out / "quality.svg", standalone(quality_chart(report)))
    seconds["total"] = time.perf_counter() - start
    write_metrics(out / "metrics.json", report, seconds)
    text = f"{quality_text(report)}\n\n{joined_text(out)}"
    atomic_write(out / "table.txt", text + "\n")
    written = [out / name for name in ("quality.svg", "metrics.json", "report.html")]
    here = Path(sys.executable).parent
    tested = "-c constraints.txt " * Path("constraints.txt").is_file()  # in a clone
    serve = f"{here}/pip install {tested}gradio && {here}/slam-potsa serve"
    speak = f"to speak to it: {serve} {out / 'joined'}"
    print("", text, "", *written, f"{seconds['total']:.0f} s; {speak}", sep="\n")


def check_installed() -> None:
    """Refuse now what a step would lack in ten minutes."""
    needed = ("matplotlib", "jinja2", "sklearn", "gguf")
    lacking = ", ".join(name for name in needed if find_spec(name) is None)
    problems = [f"not installed: {lacking}: pip install 'slam-potsa[demo]'"] * bool(lacking)
    with collecting(problems):
        smollm2.gguf_file()
    refuse(problems)


def step(name: str, args: argparse.Namespace) -> None:
    """One of `AFTER`, those that it waits for being done."""
    out, (doing, _, system) = args.output, name.partition(" ")
    data = out / "data"
    if name == "recordings":
        corpus = announcements.build(data, from_dir=args.from_dir, **SENTENCES)
        print(corpus)
        training_rows(data)
    elif name == "encoder":
        whisper.base(out / "parts/whisper-base")
    elif name == "llm":
        smollm2.build(out / "parts/llm", [u.target for u in read_manifest(data / "heard.jsonl")])
    elif name.endswith("features"):
        encoder = load_encoder(str(out / "parts/whisper-base"), "trimmed")
        manifests = ["heard"] if name == "features" else ["joined", *TESTS]
        store_features(encoder, [data / f"{name}.jsonl" for name in manifests], out / "features")
    elif doing == "train":
        train(system, out, args.steps, args.seed)
    else:
        decode(system, out)
        if system in LOOKED_INTO:
            look_into(system, out)


def side_by_side(after: Mapping[str, Sequence[str]], do: Callable[[str], None]) -> dict[str, float]:
    """`do` each step, a process a lane; the seconds of each.

    After a failure nothing is begun. Raises InputError with every message of the steps beside it.
    """
    steps, order, ready = TopologicalSorter(after), list(after), []
    steps.prepare()
    seconds: dict[str, float] = {}
    running: dict[Future, tuple[str, ProcessPoolExecutor, float]] = {}
    problems: list[str] = []
    with ExitStack() as stack:
        free = [stack.enter_context(_lane(number)) for number in range(LANES)]
        while True:
            ready = sorted([*ready, *steps.get_ready()], key=order.index)
            while ready and free and not problems:
                print(f"== {ready[0]}", flush=True)
                lane, name = free.pop(0), ready.pop(0)
                running[lane.submit(do, name)] = name, lane, time.perf_counter()
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name, lane, start = running.pop(future)
                free.append(lane)
                seconds[name] = time.perf_counter() - start
                try:
                    future.result()
                    steps.done(name)
                except InputError as error:
                    problems.append(f"{name}: {error}")
    refuse(problems)
    return seconds


def _lane(number: int) -> ProcessPoolExecutor:
    """A process that does one step after the other; its progress bars stand in line `number`."""
    lane = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    os.environ |= {"OMP_NUM_THREADS": str(THREADS), "TQDM_POSITION": str(number)}  # at its start
    lane.submit(quieten)
    return lane


def training_rows(data: Path) -> None:
    """The manifests that systems train on: translated rows, and the rows of what joins."""
    pairs = read_manifest(data / "pairs.jsonl")
    heard = [u for u in [*read_manifest(data / "train.jsonl"), *pairs] if u.language in HEARD]
    joining = [u for u in pairs if u.language == JOINS]
    true = [u for u in read_manifest(data / "pairs_translated.jsonl") if u.language == JOINS]
    write_manifest(data / "heard.jsonl", heard)
    write_manifest(data / "joined.jsonl", heard + joining)
    write_manifest(data / "shuffled.jsonl", heard + shuffled_partners(joining))
    write_manifest(data / "translated.jsonl", heard + true)


def train(system: str, out: Path, steps: int, seed: int) -> None:
    """As README's finetune.py does; a finished run is not trained again."""
    settings = SYSTEMS[system]
    command = [f"experiment={settings.experiment}", "engine=native"]
    command += [f"train_config.model_name={system}"]
    command += [f"train_config.output_dir={out / system}", f"train_config.seed={seed}"]
    command += [f"native.max_steps={steps}"] if steps else []
    if system not in START:
        command += [f"ckpt_path={out / 'baseline/model.pt'}"]
    command += [f"model_config.llm_path={out / 'parts/llm'}"]
    command += [f"model_config.encoder_path_hf={out / 'parts/whisper-base'}"]
    command += [f"dataset_config.feature_store={out / 'features'}"]
    command += [f"dataset_config.train_data_path={out / 'data' / settings.rows}.jsonl"]
    command += [f"dataset_config.val_data_path={out / 'data/dev.jsonl'}"]
    with alone(out / system):
        native.finetune(compose_config(command))


def decode(system: str, out: Path) -> None:
    """Translate the tests into the run's directory."""
    for name in TESTS:
        decode_to(out / system / name, load_run(out / system), out / "data" / f"{name}.jsonl")


def look_into(system: str, out: Path) -> None:
    """What `slam-potsa analyze` leaves in the run's directory."""
    translator, manifest = Translator(load_run(out / system)), out / "data/test.jsonl"
    how = {"heard": HEARD, "name": SYSTEMS[system].name, "settings": LOOK}
    write_analysis(out / system, analyze(translator, [manifest], **how))


def report_on(out: Path) -> Report:
    """What `slam-potsa report` makes of the runs, with the demo's words about them."""
    request = Request(
        title="slam_potsa demo",
        summary=SUMMARY,
        notes=NOTES,
        names=[system.name for system in SYSTEMS.values()],
        heard=HEARD,
        bootstrap=200,  # of six systems on two tests: a thousand take minutes
        titles=TESTS,
        argv=sys.argv,
    )
    return collect([out / system for system in SYSTEMS], request)


def quality_chart(report: Report) -> str:
    """BLEU of the first test, a group of bars a language, a bar a system."""
    test = next(iter(TESTS))
    codes = [row.name for row in report.runs[0].scored[test].rows if row.kind == "language"]
    bars = {run.name: [run.scored[test].row(c).bleu for c in codes] for run in report.runs}
    return bar_chart(codes, bars, title=f"BLEU, {TESTS[test]}", y_label="BLEU")


def quality_text(report: Report) -> str:
    """BLEU, and cross-entropy of the true translation, of each language; a column a system."""
    rows = []
    for test, title in TESTS.items():
        for row in report.runs[0].scored[test].rows:
            if row.kind == "language":
                found = [run.scored[test].row(row.name).scores for run in report.runs]
                rows += [
                    (title, row.name, measure, *(of[measure].text() for of in found))
                    for measure in ("BLEU", "CE")
                ]
    return table(("test", "spoken", "", *(run.name for run in report.runs)), rows, 3)


def joined_text(out: Path) -> str:
    """What each way of going on changed, against going on without Italian: paired by sentence."""
    test, rows = next(iter(TESTS)), []
    read = {name: read_predictions(predictions_file(out / name / test)) for name in SYSTEMS}
    for name in ("joined", "control", "ceiling"):
        for row in score(read[name], baseline=read["longer"], bootstrap=0).rows:
            if row.kind == "language":
                cells = [SYSTEMS[name].name, row.name]
                for metric, digits in {"BLEU": 1, "CE": 3}.items():
                    item = row.against[metric]
                    cells += [f"{item.difference:+.{digits}f}", f"{item.p_value:.3f}"]
                rows.append(cells)
    return table(("against longer", "spoken", "BLEU", "p", "CE", "p"), rows, 2)


def write_metrics(path: Path, report: Report, seconds: dict[str, float]) -> None:
    """Every score with its interval, what differs from the baseline with its p, and wall times."""
    content = {
        "systems": {
            run.name: {test: _scores(run.scored[test]) for test in TESTS} for run in report.runs
        },
        "wall_seconds": {name: round(taken, 1) for name, taken in seconds.items()},
        "torch": torch.__version__,
        "steps at a time": LANES,
        "threads of a step": THREADS,
    }
    write_json(path, content)


def _scores(scored: ScoreTable) -> dict[str, Any]:
    return {
        row.name: {
            name: [found.value, found.low, found.high, p_value]
            for name, found in row.scores.items()
            for p_value in [row.against[name].p_value if name in row.against else None]
        }
        for row in scored.rows
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"))
    parser.add_argument("--from", dest="from_dir", type=Path, help="folder of downloaded packages")
    parser.add_argument("--steps", type=int, default=0, help="training steps; 0: as configured")
    parser.add_argument("--seed", type=int, default=42, help="of the trainings; another --output")
    return parser.parse_args()


if __name__ == "__main__":
    with as_messages():
        main()
