"""Does alignment help, on which languages, and by what: every system several times, with controls.

    python benchmarks/evidence.py --demo outputs/demo --json benchmarks/results/evidence.json

Needs the encoder and the LLM that `make demo` has built. The systems stand in evidence.yaml. Each
run trains, and is then measured on sentences that no run was trained on, by language and voice:
cross-entropy of the right translation (nats a token) and BLEU (greedy). A finished run is not
repeated, so an interrupted call goes on, and several processes may share the seeds.

A control has the same steps and rows, and partners of other sentences. The tables and the chart are
those of evidence_tables.py.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from evidence_tables import chart, summarise, text
from torch.utils.data import DataLoader

from slam_potsa.config import PotsaConfig
from slam_potsa.config.compose import compose_config
from slam_potsa.data.manifest import Utterance, read_manifest, write_manifest
from slam_potsa.data.pairs import shuffled_partners
from slam_potsa.data.sources import announcements
from slam_potsa.engine import native
from slam_potsa.engine.decode import Translator, load_run
from slam_potsa.engine.encode import store_features
from slam_potsa.engine.launch import quieten
from slam_potsa.engine.pseudo import write_pseudo_targets
from slam_potsa.evaluation.figures import standalone
from slam_potsa.evaluation.scores import score
from slam_potsa.files import atomic_write
from slam_potsa.model.encoder import load_encoder
from slam_potsa.provenance import folder_hash

SYSTEMS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
SENTENCES = {"train": 140, "pairs": 320, "dev": 5, "test": 100, "clauses": 1}
PAIRS = 160  # but where the number varies: those of the first sentences
HEARD = ("en", "es", "ru")
FEW = 60  # sentences a language, after English
TESTS = ("test", "test_new_voices")
# Kinds of rows of a language that joins: in pairs, and by themselves.
PAIRED = ("join", "shuffled", "answered", "answered_shuffled")
JOINING = (*PAIRED, "pseudo", "pseudo_shuffled", "translated")
BATCH = 128  # recordings measured at once
RESULT = "result.json"  # in a run's folder; its last file


@dataclass(frozen=True)
class Run:
    """A system, trained once. `language` and `pairs`: of what joins, where something does."""

    system: str
    seed: int
    language: str = ""
    pairs: int = 0

    @property
    def stage(self) -> str:
        return "second" if self.system in SYSTEMS["second"] else "first"

    @property
    def settings(self) -> dict[str, Any]:
        return SYSTEMS[self.stage][self.system]

    @property
    def name(self) -> str:
        joins = f"-{self.language}{self.pairs}" if self.language else ""
        return f"{self.system}{joins}-seed{self.seed}"

    @property
    def start(self) -> Run | None:
        if self.stage == "first":
            return None
        return Run(self.settings.get("start", "alone"), self.seed)

    @property
    def against(self) -> Run | None:
        return Run(self.settings["against"], self.seed) if "against" in self.settings else None


def runs(args: argparse.Namespace) -> Iterator[Run]:
    """All of them, what others start from first.

    Other numbers of pairs for `join` and the first language only, other languages for `join` and
    its control only.
    """
    systems, first = SYSTEMS["first"] | SYSTEMS["second"], args.languages[0]
    for seed, (system, settings) in itertools.product(args.seeds, systems.items()):
        if settings.get("rows") not in JOINING:
            yield Run(system, seed)
            continue
        for language in args.languages if system in ("join", "join_shuffled") else [first]:
            several = system == "join" and language == first
            for pairs in args.pairs if several else [min(PAIRS, max(args.pairs))]:
                yield Run(system, seed, language, pairs)


def main() -> None:
    args = _arguments()
    quieten()
    torch.set_num_threads(args.threads)
    build_world(args)
    wanted = [run for run in runs(args) if run.system in args.systems or not args.systems]
    for number, run in enumerate(wanted, start=1):
        folder = args.output / run.name
        if read_result(run, args) is None:
            print(f"== {number}/{len(wanted)} {run.name}", flush=True)
            native.finetune(configuration(run, args))
            content = {"made_from": made_from(run, args), "tests": measure(folder, args)}
            atomic_write(folder / RESULT, json.dumps(content) + "\n")
    found = ((run, read_result(run, args)) for run in runs(args))
    results = {run: result for run, result in found if result}
    about = {"device": device_name(), "torch": torch.__version__, "steps": args.steps}
    about |= {"more": args.more, "share": args.share, "options": args.options}
    rows = in_order(summarise(results, earlier_rows(args.beside, about)))
    content = about | {"rows": rows}
    atomic_write(args.json, json.dumps(content, indent=1) + "\n")
    atomic_write(args.json.with_suffix(".txt"), text(rows) + "\n")
    atomic_write(args.json.with_suffix(".svg"), standalone(chart(rows)))
    print(text(rows))


def earlier_rows(file: Path | None, about: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of a result of other seeds; exits where it was made otherwise."""
    found = json.loads(file.read_text()) if file else about | {"rows": []}
    if differing := [name for name, value in about.items() if found[name] != value]:
        raise SystemExit(f"{file}: made with another {', '.join(differing)}")
    return found["rows"]


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As in evidence.yaml."""
    order = [*SYSTEMS["first"], *SYSTEMS["second"]]
    return sorted(rows, key=lambda row: order.index(row["system"]))


def build_world(args: argparse.Namespace) -> None:
    """Announcements, and the encoder's output for them; what is there stays."""
    corpus = announcements.build(args.world / "data", from_dir=args.from_dir, **SENTENCES)
    encoder = load_encoder(str(args.demo / "parts/whisper-base"), "trimmed")
    encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    manifests = [corpus.path(name) for name in ("train", "pairs", *TESTS)]
    store_features(encoder, manifests, args.world / "features")


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def configuration(run: Run, args: argparse.Namespace) -> PotsaConfig:
    world, steps = args.world, steps_of(run, args)
    options = []
    if run.start:
        options += [f"ckpt_path={args.output / run.start.name / 'model.pt'}"]
        options += ["dataset_config.pairing=none", "train_config.batch_size_training=8"]
        options += [f"train_config.lr={3.3e-4 if run.start.system == 'english' else 5.0e-4}"]
    if run.settings.get("rows") in PAIRED:
        options += ["dataset_config.pairing=joining", f"dataset_config.joining=[{run.language}]"]
        options += [f"dataset_config.joining_share={args.share}"]
    options += run.settings["options"]
    return compose_config(
        [
            "experiment=demo",
            *options,
            "engine=native",
            f"train_config.seed={run.seed}",
            f"train_config.output_dir={args.output / run.name}",
            f"train_config.total_steps={steps + 20}",
            "train_config.run_validation=false",
            f"native.max_steps={steps}",
            "native.save_interval=0",
            f"model_config.llm_path={args.demo / 'parts/llm'}",
            f"model_config.encoder_path_hf={args.demo / 'parts/whisper-base'}",
            f"dataset_config.feature_store={world / 'features'}",
            f"dataset_config.train_data_path={training_manifest(run, args)}",
            *args.options,
        ]
    )


# -- what a run hears ------------------------------------------------------------------------------


def training_manifest(run: Run, args: argparse.Namespace) -> Path:
    data, kind = args.world / "data", run.settings.get("rows", "none")
    pairs = read_manifest(data / "pairs.jsonl")
    first = set([*dict.fromkeys(u.sentence_id for u in pairs)][:PAIRS])
    own, more = ([u for u in pairs if (u.sentence_id in first) is is_in] for is_in in (True, False))
    rows = [*more, *read_manifest(data / "train.jsonl"), *own]
    rows = [u for u in rows if u.language in HEARD]
    if kind.startswith("few"):
        sentences = sorted(first)
        chosen = random.Random(f"few:{run.seed}").sample(sentences, FEW)
        rows = [u for u in rows if u.sentence_id in set(chosen)]
    if kind == "english":
        rows = [u for u in rows if u.language == "en"]
    elif kind in ("shuffled_heard", "few_shuffled"):
        spoken = ([u for u in rows if u.language == code] for code in HEARD)
        seeds = itertools.count(len(HEARD) * run.seed)  # another one for each language
        moved = {u.key: u for own in spoken for u in shuffled_partners(own, next(seeds))}
        rows = [moved[u.key] for u in rows]
    elif kind in JOINING:
        rows += joining_rows(run, args, [u for u in own + more if u.language == run.language])
    path = args.output / "data" / f"{run.name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(path, rows)
    return path


def joining_rows(
    run: Run, args: argparse.Namespace, spoken: Sequence[Utterance]
) -> list[Utterance]:
    """The same recordings for every kind of rows, with what that kind knows of them."""
    kind, first = run.settings["rows"], sorted(spoken[:PAIRS], key=lambda u: u.key)
    first = random.Random(f"pairs:{run.seed}").sample(first, len(first))
    rows = [*first, *spoken[PAIRS:]][: run.pairs]
    if kind.endswith("shuffled"):
        rows = shuffled_partners(rows, run.seed)
    made = "target" if kind.startswith("answered") else None
    if kind.startswith(("pseudo", "answered")):
        targets = pseudo_targets(args.output / run.start.name, args)
    elif kind == "translated":
        translated = read_manifest(args.world / "data/pairs_translated.jsonl")
        targets = {u.sentence_id: u.target for u in translated}
    else:
        return rows
    found = [(u, targets[u.sentence_id]) for u in rows]
    return [replace(u, target=text, synthetic=made) for u, text in found if text]


def pseudo_targets(start: Path, args: argparse.Namespace) -> dict[str, str]:
    """Sentence id -> what a finished model makes of its English recording."""
    loaded = load_run(start, ckpt_path=str(start / "model.pt"))
    loaded.decode = replace(loaded.decode, num_beams=1, max_new_tokens=32)
    loaded.train_config.val_batch_size = BATCH
    manifest, made = args.world / "data/pairs.jsonl", start / "pseudo.jsonl"
    write_pseudo_targets(made, loaded, manifest, partner_language="en")
    nothing = dict.fromkeys((u.sentence_id for u in read_manifest(manifest)), "")
    return nothing | {u.sentence_id: u.target for u in read_manifest(made) if u.synthetic}


def _placed(utterance: Utterance, folder: Path) -> Utterance:
    return replace(utterance, audio=str((folder / utterance.audio).resolve()))


# -- what it is worth ------------------------------------------------------------------------------


def translator_of(folder: Path) -> Translator:
    loaded = load_run(folder, ckpt_path=str(folder / "model.pt"))
    loaded.decode = replace(loaded.decode, num_beams=1, max_new_tokens=32)
    loaded.train_config.val_batch_size = BATCH
    return Translator(loaded)


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """By test and language: cross-entropy of every sentence, and BLEU."""
    translator, result = translator_of(folder), {}
    for test in TESTS:
        manifest = args.world / "data" / f"{test}.jsonl"
        rows, dataset, losses = read_manifest(manifest), translator.dataset(manifest), {}
        for batch in DataLoader(dataset, BATCH, collate_fn=dataset.collator):
            losses |= translator.losses(translator.encoded(batch))
        for code in sorted({u.language for u in rows}):
            own = {u.sentence_id: round(losses[u.key], 4) for u in rows if u.language == code}
            result[f"{test}/{code}"] = {"ce": own}
    manifest = args.output / "data" / "bleu.jsonl"
    spoken = [u for u in read_manifest(args.world / "data/test.jsonl") if u.language in args.bleu]
    write_manifest(manifest, [_placed(u, args.world / "data") for u in spoken])
    scored = score(translator.decode(manifest, progress=False), bootstrap=0)
    for code in args.bleu:
        result[f"test/{code}"]["bleu"] = round(scored.row(code).bleu.value, 2)
    return result


def steps_of(run: Run, args: argparse.Namespace) -> int:
    return run.settings.get("steps", args.more if run.start else args.steps)


def made_from(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    """What a result depends on beside the code; with what its start depends on."""
    own = {"system": run.settings, "steps": steps_of(run, args), "share": args.share}
    own |= {"options": args.options, "sentences": SENTENCES}
    own |= {part: folder_hash(args.demo / "parts" / part) for part in ("llm", "whisper-base")}
    return own | ({"start": made_from(run.start, args)} if run.start else {})


def read_result(run: Run, args: argparse.Namespace) -> dict[str, Any] | None:
    """None: not there yet. Exits where it was made with other settings."""
    file = args.output / run.name / RESULT
    if not file.is_file():
        return None
    found = json.loads(file.read_text())
    if found["made_from"] != made_from(run, args):
        raise SystemExit(f"{file}: made with other settings; give another --output, or remove it")
    return found["tests"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("outputs/demo"))
    parser.add_argument("--world", type=Path, default=Path("outputs/evidence/world"))
    parser.add_argument("--from", dest="from_dir", type=Path, help="folder of downloaded packages")
    parser.add_argument("--output", type=Path, default=Path("outputs/evidence"))
    parser.add_argument("--json", type=Path, default=Path("outputs/evidence/evidence.json"))
    parser.add_argument("--beside", type=Path, help="an earlier result, whose seeds are added")
    parser.add_argument("--systems", nargs="+", default=[], help="of evidence.yaml; default: all")
    parser.add_argument("--languages", nargs="+", default=["it", "fr"], help="that join")
    parser.add_argument("--bleu", nargs="+", default=["en", "it", "fr"], help="that are decoded")
    parser.add_argument("--pairs", nargs="+", type=int, default=[40, 80, 160, 320])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--steps", type=int, default=400, help="of the systems from new weights")
    parser.add_argument("--more", type=int, default=250, help="of those that start from alone")
    parser.add_argument("--share", type=float, default=0.3, help="joining pairs among the items")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--options", nargs="*", default=[], help="of every run, as KEY=VALUE")
    args = parser.parse_args()
    if max(args.pairs) > SENTENCES["pairs"]:
        parser.error(f"--pairs {max(args.pairs)}: this world has {SENTENCES['pairs']}")
    return args


if __name__ == "__main__":
    main()
