"""Which alignment loss helps on the demo's real speech: variant x weight x layer strategy x seeds.

    python benchmarks/variants.py --demo outputs/demo --json benchmarks/results/variants.json

Needs what `make demo` has built. Every run trains the demo's POTSA with another loss and is then
measured: cross-lingual R@1 of mean-pooled speech tokens, on sentences never trained on ("new")
and on those of training ("trained"), among heard languages and with an unheard one; validation
cross-entropy; BLEU (greedy) of the training sentences in languages never heard. A finished run is
not repeated. The table has the mean over seeds and a 95 % interval (Student's t); differences
inside it are noise. One weight does not pull equally hard in all variants, whose losses differ in
scale: compare a variant's best, not its rows at one weight.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from slam_potsa.config import PotsaConfig
from slam_potsa.config.compose import compose_config
from slam_potsa.engine import native
from slam_potsa.engine.decode import Translator, load_run
from slam_potsa.engine.launch import quieten
from slam_potsa.evaluation.activations import read_recordings, record
from slam_potsa.evaluation.retrieval import means_by_hearing, recall_at_1
from slam_potsa.evaluation.scores import score
from slam_potsa.files import atomic_write
from slam_potsa.model.metrics import read_metrics
from slam_potsa.text import table

HEARD, ZERO_SHOT = ("en", "es", "ru"), ("fr", "it")
VARIANTS = ("plain", "normalised", "debiased", "contrastive")
MEASURES = {
    "r1_heard": "new: R@1 heard",
    "r1_unheard": "R@1 unheard",
    "r1_heard_trained": "trained: R@1 heard",
    "r1_unheard_trained": "R@1 unheard",
    "ce": "validation CE",
    "bleu": "BLEU unheard",
    "ratio": "matched/mismatched",
}


@dataclass(frozen=True)
class Cell:
    """One row of the table, before its seeds; no variant is the run without alignment."""

    variant: str
    weight: float
    strategy: str

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.weight:g}-{self.strategy}" if self.weight else "none"

    @property
    def term(self) -> str:
        return "ot" if self.variant == "plain" else self.variant

    def overrides(self) -> list[str]:
        if not self.weight:
            return ["alignment=none"]
        return [
            f"alignment={self.term}",
            f"alignment.terms.{self.term}.weight={self.weight}",
            f"alignment/schedule={self.strategy}",
            # The demo's, for every strategy that reads them.
            "alignment.schedule.exploration=1.0",
            "alignment.schedule.temperature=0.1",
        ]


def main() -> None:
    args = _arguments()
    quieten()
    torch.set_num_threads(args.threads)
    cells = [Cell("none", 0.0, "none")]
    cells += [Cell(*c) for c in itertools.product(args.variants, args.weights, args.strategies)]
    results: dict[str, dict] = {}
    if args.json.is_file():
        results = json.loads(args.json.read_text())["runs"]
    for seed, cell in itertools.product(args.seeds, cells):  # all cells have as many seeds
        name = f"{cell.name}-seed{seed}"
        if name in results and results[name]["steps"] != args.steps:
            raise SystemExit(
                f"{args.json}: {name} has {results[name]['steps']} steps, --steps is {args.steps}: "
                "give another --json and --output"
            )
        if name not in results:
            config = configuration(cell, seed, args)
            native.finetune(config)
            about = {**vars(cell), "seed": seed, "steps": args.steps}
            results[name] = about | measure(config, args)
            save(args, results)
            print(json.dumps({name: results[name]}), flush=True)
    save(args, results)
    print(text(results))


def configuration(cell: Cell, seed: int, args: argparse.Namespace) -> PotsaConfig:
    demo = args.demo
    return compose_config(
        [
            "experiment=demo",
            *cell.overrides(),
            "engine=native",
            f"train_config.seed={seed}",
            f"train_config.output_dir={args.output / f'{cell.name}-seed{seed}'}",
            f"train_config.total_steps={args.steps + 20}",
            "train_config.run_validation=false",
            f"native.max_steps={args.steps}",
            "native.save_interval=0",
            f"model_config.llm_path={demo / 'parts/llm'}",
            f"model_config.encoder_path_hf={demo / 'parts/whisper-tiny-en'}",
            f"dataset_config.feature_store={demo / 'features'}",
            f"dataset_config.train_data_path={demo / 'data/train.jsonl'}",
            f"dataset_config.val_data_path={demo / 'data/dev.jsonl'}",
        ]
    )


def measure(config: PotsaConfig, args: argparse.Namespace) -> dict[str, float]:
    data = args.demo / "data"
    loaded = load_run(config.train_config.output_dir)
    loaded.decode = replace(loaded.decode, num_beams=1, max_new_tokens=30)
    translator = Translator(loaded)
    trained = retrieval(translator, [data / "train.jsonl", data / "zero_shot.jsonl"])
    new = retrieval(translator, [data / "test.jsonl"])
    predictions = translator.decode(data / "zero_shot.jsonl", progress=False)
    bleu = score(predictions, zero_shot=ZERO_SHOT, bootstrap=0).row("zero-shot, pooled").bleu
    metrics = read_metrics(Path(config.train_config.output_dir) / "metrics.jsonl")
    matched = [
        line["ot/matched"] / line["ot/mismatched"]
        for line in metrics[-100:]
        if line.get("ot/mismatched")
    ]
    return {
        "r1_heard": 100 * new["among heard"],
        "r1_unheard": 100 * new["with an unheard"],
        "r1_heard_trained": 100 * trained["among heard"],
        "r1_unheard_trained": 100 * trained["with an unheard"],
        "ce": validation(translator, data / "dev.jsonl"),
        "bleu": bleu.value,
        "ratio": statistics.fmean(matched) if matched else float("nan"),
        "train_ce": statistics.fmean(line["ce"] for line in metrics[-50:]),
        "seconds": sum(line["seconds"] for line in metrics),
    }


def retrieval(translator: Translator, manifests: list[Path]) -> dict[str, float]:
    rows = read_recordings(manifests)
    vectors = record(translator, rows, ["projector"])["projector"].pooled
    sentences, languages = [row.sentence_id for row in rows], [row.language for row in rows]
    found = recall_at_1(vectors, sentences, languages)
    return means_by_hearing({pair: each.recall for pair, each in found.items()}, HEARD)


@torch.inference_mode()
def validation(translator: Translator, manifest: Path) -> float:
    """Mean cross-entropy over target tokens."""
    from slam_potsa.data.dataset import get_speech_dataset

    data = replace(
        translator.config.dataset_config, val_data_path=str(manifest), inference_mode=False
    )
    dataset = get_speech_dataset(data, translator.tokenizer, "val")
    total = tokens = 0.0
    for start in range(0, len(dataset), 32):
        items = [dataset[i] for i in range(start, min(start + 32, len(dataset)))]
        batch = translator.to_device(dataset.collator(items))
        count = int((batch["labels"] != -100).sum())
        total += float(translator.model(**batch)[0].loss) * count
        tokens += count
    return total / tokens


def text(results: dict[str, dict]) -> str:
    """The table: mean and interval over seeds, one line a cell."""
    cells: dict[tuple, list[dict]] = {}
    for run in results.values():
        cells.setdefault((run["variant"], run["weight"], run["strategy"]), []).append(run)
    lines = [("variant", "lambda", "layers", "seeds", *MEASURES.values())]
    for (variant, weight, strategy), runs in cells.items():
        values = [_interval([run[name] for run in runs]) for name in MEASURES]
        lines.append((variant, f"{weight:g}", strategy, str(len(runs)), *values))
    return table(lines[0], lines[1:])


def _interval(values: list[float]) -> str:
    from scipy.stats import t

    if None in values or any(value != value for value in values):  # nothing was aligned
        return ""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.2f}"
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.2f} ± {half:.2f}"


def save(args: argparse.Namespace, results: dict[str, dict]) -> None:
    settings = {"torch": torch.__version__, "threads": args.threads}
    content = json.dumps({"settings": settings, "runs": results}, indent=1)
    # NaN is not JSON: a run without alignment has no ratio.
    atomic_write(args.json, content.replace("NaN", "null") + "\n")
    atomic_write(args.json.with_suffix(".txt"), text(results) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("outputs/demo"))
    parser.add_argument("--output", type=Path, default=Path("outputs/variants"))
    parser.add_argument("--json", type=Path, default=Path("outputs/variants/results.json"))
    parser.add_argument("--variants", nargs="+", default=VARIANTS)
    parser.add_argument("--weights", nargs="+", type=float, default=(0.3, 3.0))
    parser.add_argument("--strategies", nargs="+", default=("single", "ucb_lower"))
    parser.add_argument("--seeds", nargs="+", type=int, default=(1, 2, 3))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


if __name__ == "__main__":
    main()
