"""Decoding's throughput: ours against SLAM-LLM's, on the same weights, rows and beams.

    python benchmarks/decode.py [--size tiny] [--beams 4] [--rounds 3] [--json PATH]

Ours is what `slam-potsa decode` does: rows sorted by length, the prompt read once for all of a
row's beams, recordings as long as they are; and, a variant each, with windows of 30 s, from stored
features, in the manifest's order, and one by one. Theirs, where SLAM_LLM_SRC is set, is the loop of
SLAM-LLM's `inference_batch` around its own `slam_model.generate`: the manifest's order, windows of
30 s. Its rows come from our dataset, whose batches it reads.

The weights are random, so that the texts mean nothing and are all as long; `alike` says how many
are those of the same recordings one by one. Variants take turns within a round and a ratio is of
one round. All of it is timed: reading audio, the encoder, the search, and making text of tokens.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from meters import machine
from step import quartiles, save
from step_models import ANSWER, OURS, SIZES, THEIRS, Size, build_models, configuration, write_data
from torch.utils.data import DataLoader

from slam_potsa.config import PotsaConfig
from slam_potsa.data.dataset import SpeechTranslationDataset, get_speech_dataset
from slam_potsa.data.manifest import read_manifest, write_manifest
from slam_potsa.engine.decode import Translator
from slam_potsa.text import table

ALONE, WINDOW = "ours, one by one", "30 s windows"
REFERENCES = (THEIRS, ALONE)
Texts = dict[str, str]  # by key
WORKERS = 0  # that load, of both sides


class Bench:
    """Models, built once, and what answers all rows in each way: `variants`, by name.

    Args:
        folder: of recordings, store and the models' configurations.
    """

    def __init__(self, size: Size, args: Any, folder: Path):
        self.args, self.folder = args, folder
        size = size._replace(pairs=args.rows // 2)
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
        batch = args.batch
        self.variants: dict[str, Callable[[], Texts]] = {
            "ours": lambda: self.ours(batch),
            f"ours, {WINDOW}": lambda: self.ours(batch, window="30s"),
            "ours, stored features": lambda: self.ours(batch, stored=True),
            "ours, the manifest's order": lambda: self.ours(batch, "unsorted"),
            ALONE: lambda: self.ours(1),
        }
        if THEIRS in self.models:
            self.variants = {THEIRS: self.theirs, **self.variants}

    def ours(self, batch: int, manifest: str = "manifest", window: str = "trimmed", stored=False):
        config, dataset = self._asked(batch, manifest, window, stored)
        answers = Translator.around(self.models[OURS[0]], config).answers(dataset, progress=False)
        return {answer.key: answer.texts[0] for batch in answers for answer in batch}

    @torch.inference_mode()
    def theirs(self) -> Texts:
        """The loop of `inference_batch`, but for its files."""
        _, dataset = self._asked(self.args.batch, "unsorted", "30s")
        model, texts = self.models[THEIRS], {}
        search = {"num_beams": self.args.beams, "max_new_tokens": ANSWER}
        loads = {"collate_fn": dataset.collator, "num_workers": WORKERS}
        for batch in DataLoader(dataset, self.args.batch, **loads):
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
        texts = {name: answer() for name, answer in self.variants.items()}  # and warms up
        alone = {WINDOW: self.ours(1, window="30s"), "stored": self.ours(1, stored=True)}
        seconds: dict[str, list[float]] = {name: [] for name in self.variants}
        for turn in range(self.args.rounds):
            names = list(self.variants)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                begun = time.perf_counter()
                self.variants[name]()
                seconds[name].append(time.perf_counter() - begun)
        return list(self._rows(texts, alone, seconds))

    def _rows(
        self, texts: dict[str, Texts], alone: dict[str, Texts], seconds: dict[str, list[float]]
    ) -> Iterator[dict[str, Any]]:
        for name, own in seconds.items():
            kind = (
                "stored" if "stored" in name else WINDOW if WINDOW in name or name == THEIRS else ""
            )
            single = alone.get(kind, texts[ALONE])
            yield {
                "name": name,
                "seconds": quartiles(own),
                "rows_a_second": quartiles([len(single) / one for one in own]),
                "alike": sum(texts[name][key] == text for key, text in single.items()),
                # Of throughput: above 1 is faster than the reference.
                "ratio": {
                    to: quartiles([b / a for a, b in zip(own, seconds[to], strict=True)])
                    for to in REFERENCES
                    if to in seconds
                },
            }


def text(record: dict[str, Any]) -> str:
    """The printed table."""
    asked = record["arguments"]
    lines = [f"{record['machine']}; sizes: {record['size']}; {asked['rows']} rows, "]
    lines[0] += f"{asked['beams']} beams, batches of {asked['batch']}; {ANSWER} tokens a row; "
    lines[0] += f"median (quartiles) of {asked['rounds']} rounds"
    head = ("", "rows a second", *(f"times {name}" for name in REFERENCES), "alike")
    rows = []
    for row in record["rows"]:
        figures = [row["rows_a_second"], *(row["ratio"].get(name) for name in REFERENCES)]
        shown = ("{1:.2f} ({0:.2f}-{2:.2f})".format(*f) if f else None for f in figures)
        rows.append((row["name"], *shown, f"{row['alike']} of {asked['rows']}"))
    if not any(row["name"] == THEIRS for row in record["rows"]):
        lines.append("SLAM-LLM was not there (SLAM_LLM_SRC): only ours was measured")
    return "\n".join([*lines, table(head, rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="tiny", choices=sorted(SIZES))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--note", default="", help="kept in the JSON, such as a busy machine")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    kept = {name: value for name, value in vars(args).items() if name not in ("json", "size")}
    record = {"machine": machine(args.device)}
    record |= {"size": args.size, "arguments": kept}
    with tempfile.TemporaryDirectory() as folder:
        record["rows"] = Bench(SIZES[args.size], args, Path(folder)).measure()
    save(record, args.json)
    print(text(record))


if __name__ == "__main__":
    main()
