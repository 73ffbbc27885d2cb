"""Decoding's throughput: ours against SLAM-LLM's, on the same weights, rows and beams.

    python benchmarks/decode.py [--size tiny] [--batch 1 4 16] [--rounds 3] [--json PATH]

Ours is what `slam-potsa decode` does: rows sorted by length, the prompt read once for all of a
row's beams, recordings as long as they are; and from stored features. Theirs, where SLAM_LLM_SRC is
set, is the loop of SLAM-LLM's `inference_batch` around its own `slam_model.generate`: the
manifest's order, windows of 30 s; with as many rows at once, and with one: `val_batch_size` is 1 in
its scripts for asr_librispeech, 16 in st_covost2/scripts/infer_enzh.sh. Its rows come from our
dataset, whose batches it reads.

The weights are random, so that the texts mean nothing and are all as long; recordings are about as
long too, as they are in a batch of a long manifest that is sorted. `alike` says how many texts are
those of the same recordings, heard alike, one by one. Variants take turns within a round and a
ratio is of one round. All of it is timed, by PARTS.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from meters import Clock, machine
from step import quartiles, save
from step_models import ANSWER, OURS, SIZES, THEIRS, Size, build_models, configuration, write_data
from torch.utils.data import DataLoader

from slam_potsa.config import PotsaConfig
from slam_potsa.data.dataset import SpeechTranslationDataset, get_speech_dataset
from slam_potsa.data.manifest import read_manifest, write_manifest
from slam_potsa.engine.decode import Translator
from slam_potsa.model.speech_llm import SpeechLLM
from slam_potsa.text import table

# Reading audio; the encoder; the projector; the LLM's blocks on prompts, and on answers; its head;
# the search over beams, with all else that is between two steps; making text of tokens.
PARTS = ("load", "encode", "project", "prompt", "blocks", "head", "search", "text")
Texts = dict[str, str]  # by key
WORKERS = 0  # that load, of both sides
NEIGHBOURS = (14.0, 15.0)  # seconds, around the mean of step_models.SECONDS


def name_of(side: str, batch: int, stored: bool = False) -> str:
    return f"{side}, {batch} at once{', stored features' * stored}"


def watch(model: SpeechLLM, clock: Clock) -> None:
    """Marks of PARTS, on the modules that both sides have."""
    reads = [False]  # whether the LLM is at a prompt

    def begins(_module: Any, _inputs: Any, named: dict[str, Any]) -> None:
        columns = named["inputs_embeds" if named.get("inputs_embeds") is not None else "input_ids"]
        reads[0] = columns.shape[1] > 1
        clock.mark("prompt" if reads[0] else "search")

    for module, part in ((model.encoder, "encode"), (model.encoder_projector, "project")):
        module.register_forward_pre_hook(lambda *_: clock.mark("load"))
        module.register_forward_hook(lambda *_, part=part: clock.mark(part))
    model.llm.register_forward_pre_hook(begins, with_kwargs=True)
    head = model.llm.get_output_embeddings()
    head.register_forward_pre_hook(lambda *_: clock.mark("prompt" if reads[0] else "blocks"))
    head.register_forward_hook(lambda *_: clock.mark("head"))
    inner = model.tokenizer.batch_decode

    def batch_decode(*rows: Any, **options: Any) -> list[str]:
        clock.mark("search")
        texts = inner(*rows, **options)
        clock.mark("text")
        return texts

    model.tokenizer.batch_decode = batch_decode


class Bench:
    """Models, built once, and what answers all rows in each way: `variants`, by name.

    Args:
        folder: of recordings, store and the models' configurations.
    """

    def __init__(self, size: Size, args: Any, folder: Path):
        self.args, self.folder = args, folder
        size = size._replace(pairs=args.rows // 2, seconds=NEIGHBOURS)
        write_data(folder, size)
        rows = read_manifest(folder / "manifest.jsonl")
        # Without durations there is nothing to sort by.
        write_manifest(folder / "unsorted.jsonl", (replace(row, duration=None) for row in rows))
        own = argparse.Namespace(device=args.device, lora=False)
        configs = {loss: configuration(folder, size, loss, "mel", 1, own) for loss in OURS}
        self.config = configs[OURS[0]]
        self.models = build_models(configs, args.device)
        for model in self.models.values():
            model.eval()
        self.clock = Clock(args.device, PARTS)
        watch(self.models[OURS[0]], self.clock)
        self.variants: dict[str, Callable[[], Texts]] = {}
        if THEIRS in self.models:
            for batch in sorted({1, *args.batch}):
                self.variants[name_of(THEIRS, batch)] = partial(self.theirs, batch)
        for stored in (False, True):
            for batch in args.batch:
                ours = partial(self.ours, batch, stored=stored)
                self.variants[name_of("ours", batch, stored)] = ours

    def ours(self, batch: int, window: str = "trimmed", stored: bool = False) -> Texts:
        config, dataset = self._asked(batch, "manifest", window, stored)
        answers = Translator.around(self.models[OURS[0]], config).answers(dataset, progress=False)
        return {answer.key: answer.texts[0] for batch in answers for answer in batch}

    @torch.inference_mode()
    def theirs(self, size: int) -> Texts:
        """The loop of `inference_batch`, but for its files."""
        _, dataset = self._asked(size, "unsorted", "30s")
        model, texts = self.models[THEIRS], {}
        search = {"num_beams": self.args.beams, "max_new_tokens": ANSWER}
        loads = {"collate_fn": dataset.collator, "num_workers": WORKERS}
        for batch in DataLoader(dataset, size, **loads):
            batch = {
                k: v.to(self.args.device) if torch.is_tensor(v) else v for k, v in batch.items()
            }
            model.encoder_projector.set_languages(batch["language_ids"])  # it tells none
            output = model.generate(**batch, **search)
            texts |= zip(batch["keys"], model.tokenizer.batch_decode(output), strict=True)
        return texts

    def _asked(
        self, batch: int, manifest: str, window: str, stored: bool = False
    ) -> tuple[PotsaConfig, SpeechTranslationDataset]:
        model = self.models[OURS[0]]
        model.encoder.window = window
        data = replace(
            self.config.dataset_config,
            test_data_path=str(self.folder / f"{manifest}.jsonl"),
            feature_store=str(self.folder / "store") if stored else None,
            encoder_window=window,
            inference_mode=True,
        )
        search = {"num_beams": self.args.beams, "max_new_tokens": ANSWER}
        model.decode = search
        config = replace(
            self.config,
            dataset_config=data,
            train_config=replace(
                self.config.train_config, val_batch_size=batch, num_workers_dataloader=WORKERS
            ),
            decode=replace(self.config.decode, cross_entropy=False, **search),
        )
        return config, get_speech_dataset(data, model.tokenizer, "test")

    def measure(self) -> list[dict[str, Any]]:
        """A row of the table for each variant."""
        alone = {  # and warms up
            "ours": self.ours(1),
            "stored": self.ours(1, stored=True),
            THEIRS: self.ours(1, window="30s"),
        }
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in self.variants}
        alike = {}
        for turn in range(self.args.rounds):
            names = list(self.variants)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                self.clock.start()
                texts = self.variants[name]()
                rounds[name].append(self.clock.seconds())
                kind = "stored" if "stored" in name else name.split(",")[0]
                alike[name] = sum(texts[key] == text for key, text in alone[kind].items())
        return [row | {"alike": alike[row["name"]]} for row in self._rows(rounds)]

    def _rows(self, rounds: dict[str, list[dict[str, float]]]) -> Iterator[dict[str, Any]]:
        seconds = {name: [one["step"] for one in ran] for name, ran in rounds.items()}
        for name, own in seconds.items():
            yield {
                "name": name,
                "seconds": quartiles(own),
                "rows_a_second": quartiles([self.args.rows / one for one in own]),
                "parts": {
                    part: statistics.median(one[part] for one in rounds[name]) for part in PARTS
                },
                # Of throughput: above 1 is faster than the reference.
                "ratio": {
                    to: quartiles([b / a for a, b in zip(own, theirs, strict=True)])
                    for to, theirs in seconds.items()
                    if to.startswith(THEIRS)
                },
            }


def text(record: dict[str, Any]) -> str:
    """The printed tables: throughput, then where the time goes."""
    asked, rows = record["arguments"], record["rows"]
    lines = [f"{record['machine']}; sizes: {record['size']}; {asked['rows']} rows, "]
    lines[0] += f"{asked['beams']} beams, {ANSWER} tokens a row, {NEIGHBOURS[0]:.0f} s of speech; "
    lines[0] += f"{asked['threads']} thread; median (quartiles) of {asked['rounds']} rounds"
    lines[0] += f"; {asked['note']}" * bool(asked["note"])
    if not rows[0]["ratio"]:
        lines.append("SLAM-LLM was not there (SLAM_LLM_SRC): only ours was measured")
    head = ("", "rows a second", *(f"to {name}" for name in rows[0]["ratio"]), "alike")
    shown = []
    for row in rows:
        figures = [row["rows_a_second"], *row["ratio"].values()]
        cells = ("{1:.2f} ({0:.2f}-{2:.2f})".format(*figure) for figure in figures)
        shown.append((row["name"], *cells, f"{row['alike']} of {asked['rows']}"))
    parts = [
        (row["name"], *(f"{1e3 * row['parts'][part] / asked['rows']:.1f}" for part in PARTS))
        for row in rows
    ]
    return "\n".join([*lines, table(head, shown), "", "ms a row", table(("", *PARTS), parts)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="tiny", choices=sorted(SIZES))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16], help="rows at once")
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--note", default="", help="kept in the JSON, such as a busy machine")
    parser.add_argument(
        "--json", type=Path, help="also write the figures here, and beside them the text"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    kept = {name: value for name, value in vars(args).items() if name not in ("json", "size")}
    record = {"machine": machine(args.device)}
    record |= {"size": args.size, "arguments": kept}
    with tempfile.TemporaryDirectory() as folder:
        record["rows"] = Bench(SIZES[args.size], args, Path(folder)).measure()
    save(record, args.json)
    if args.json:
        args.json.with_suffix(".txt").write_text(text(record) + "\n")
    print(text(record))


if __name__ == "__main__":
    main()
