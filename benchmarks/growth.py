"""How cost grows: exponents of a training step's time, by part, and of reading a manifest.

    python benchmarks/growth.py [--rounds 3] [--lines 100000] [--json PATH] [--svg PATH]

One size at a time is doubled, all else stays (sizes far below the paper's, one thread, stored
features unless it says mel): pairs of a batch, query tokens, candidate layers, layers aligned at
once, seconds of audio, processes (as many rows on each: weak scaling over gloo) and lines of a
manifest, each file read and checked in a process of its own. Sizes take turns within a round. The
exponent is the slope of log time over log size; that of each round gives its spread. Random
weights, noise for audio, made-up lines.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from matplotlib.figure import Figure
from meters import machine
from step import GIB, Bench, quartiles
from step_models import TINY, Size, Variant, configuration, load
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from slam_potsa.model.carried_state import carried_names
from slam_potsa.text import table

SMALL = Size(
    TINY["whisper"] | {"d_model": 128, "encoder_ffn_dim": 512, "encoder_attention_heads": 4},
    {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 2, "vocab_size": 2048}
    | {"num_attention_heads": 4, "num_key_value_heads": 2},
    {"qformer_dim": 128, "qformer_heads": 4, "query_len": 80},
    pairs=2,
    micro=(2,),
)
ARGUMENTS = argparse.Namespace(device="cpu", lora=False)
PROCESSES, MANIFEST = "processes, as many rows on each", "lines of a manifest"
Seconds = dict[str, float]  # by part, and all as "step"
LINES = (1_000, 10_000, 100_000, 1_000_000)


class Axis(NamedTuple):
    """What is doubled, and the most that the exponent of a step may be."""

    sizes: Sequence[float]
    at_most: float
    size: Callable[[Any], Size]
    part: str = "step"  # or "transport": the alignment's forward alone
    source: str = "stored"


def pairs(number: int, *options: str) -> Size:
    return SMALL._replace(pairs=number, options=options)


def queries(number: int) -> Size:
    options = (f"dataset_config.fix_length_audio={number}",)
    return SMALL._replace(projector=SMALL.projector | {"query_len": number}, options=options)


def layers(number: int, option: str) -> Size:
    numbers = ",".join(map(str, range(1, number + 1)))
    return SMALL._replace(options=(f"alignment.{option % numbers}",))


def seconds(number: float) -> Size:
    return SMALL._replace(seconds=(number, number))


AXES = {
    "pairs of a batch": Axis((1, 2, 4, 8), 1.1, pairs),
    "pairs of a batch, alignment": Axis((2, 4, 8), 1.1, pairs, part="transport"),
    "pairs of a batch, contrastive alignment": Axis(
        (2, 4, 8), 2.1, lambda n: pairs(n, "alignment.terms.ot.variant=contrastive"), "transport"
    ),
    "query tokens": Axis((20, 40, 80, 160), 1.1, queries),
    "query tokens, alignment": Axis((40, 80, 160), 2.1, queries, part="transport"),
    "candidate layers": Axis((1, 2, 4, 8), 0.1, lambda n: layers(n, "schedule.candidates='%s'")),
    "layers aligned at once, alignment": Axis(
        (1, 2, 4, 8), 1.1, lambda n: layers(n, "terms.ot.layers=[%s]"), part="transport"
    ),
    "seconds of audio": Axis((3.75, 7.5, 15, 30), 1.1, seconds),
    "seconds of audio, mel": Axis((3.75, 7.5, 15, 30), 0.1, seconds, source="mel"),
}


def time_steps(axis: Axis, folder: Path, rounds: int) -> list[list[Seconds]]:
    """[rounds][sizes]"""
    runs = []
    for number in axis.sizes:
        size, own = axis.size(number), folder / f"{number:g}"
        own.mkdir(parents=True)
        bench, variant = Bench(size, ARGUMENTS, own), Variant("transport", axis.source)
        config = configuration(own, size, variant.loss, axis.source, size.pairs, ARGUMENTS)
        bench.models[variant.loss].controller.accumulation = 1
        runs.append((bench, variant, {axis.source: load(config, "cpu")}))

    def run(bench: Bench, *about: Any) -> Seconds:
        bench.run(*about)
        return bench.clock.seconds()

    return [[run(*about) for about in runs] for _ in range(rounds + 1)][1:]  # the first warms up


class Parallel(DistributedDataParallel):
    """DDP through which a step still finds the projector."""

    @property
    def encoder_projector(self) -> torch.nn.Module:
        return self.module.encoder_projector


def train_in_parallel(rank: int, world: int, folder: Path, rounds: int) -> None:
    """A process of some: steps on rows of its own; rank 0 writes their seconds."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world)
    own = folder / str(rank)
    own.mkdir()
    bench = Bench(SMALL, ARGUMENTS, own)
    bench.models["transport"].controller.accumulation = 1
    model = bench.models["transport"]
    model._ddp_params_and_buffers_to_ignore = carried_names(model)  # as both hosts have it
    bench.models["transport"] = Parallel(model)
    batches = {
        "stored": load(configuration(own, SMALL, "transport", "stored", 2, ARGUMENTS), "cpu")
    }
    spent = []
    for _ in range(rounds + 1):
        dist.barrier()
        bench.run(Variant("transport", "stored"), batches)
        spent.append(bench.clock.seconds())
    if rank == 0:
        (folder / "seconds.json").write_text(json.dumps(spent[1:]))
    dist.destroy_process_group()


def time_processes(folder: Path, rounds: int, counts: Sequence[int]) -> list[list[Seconds]]:
    columns = []
    for world in counts:
        own = folder / str(world)
        own.mkdir(parents=True)
        multiprocessing.spawn(train_in_parallel, (world, own, rounds), nprocs=world)
        columns.append(json.loads((own / "seconds.json").read_text()))
    return [list(row) for row in zip(*columns, strict=True)]


READER = """
import sys, time
from slam_potsa.data.manifest import check_manifest
begun = time.perf_counter()
check_manifest(sys.argv[1], audio=False)
took = time.perf_counter() - begun
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(took, 1024 * int(peak.split()[1]))
"""


def time_lines(folder: Path, rounds: int, counts: Sequence[int]) -> list[list[dict[str, float]]]:
    """[rounds][counts] of `read` of a manifest of so many lines."""
    folder.mkdir()
    for count in counts:
        with (folder / f"{count}.jsonl").open("w") as file:
            for n in range(count):
                row = {"key": f"r{n}", "audio": f"clips/{n}.wav", "language": ["en", "es"][n % 2]}
                row |= {"sentence_id": str(n // 2), "target": f"译文 {n}", "target_language": "zh"}
                file.write(json.dumps(row | {"duration": 5 + n % 7}) + "\n")
    return [[read(folder / f"{count}.jsonl") for count in counts] for _ in range(rounds)]


def read(manifest: Path, processes: int = 1) -> dict[str, float]:
    """Seconds and GiB held at most of reading and checking it, in the worst of so many at once."""
    command = [sys.executable, "-c", READER, str(manifest)]
    readers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    told = [tuple(map(float, reader.communicate()[0].split())) for reader in readers]
    took, peak = (max(each) for each in zip(*told, strict=True))
    return {"check_manifest": took, "step": took, "GiB": peak / GIB}


def curve(
    sizes: Sequence[float], rounds: list[list[Seconds]], at_most: float, part: str = "step"
) -> dict[str, Any]:
    """Medians, the exponent's quartiles over rounds, and which parts take the most at the end."""
    times = [[seconds[part] for seconds in one] for one in rounds]
    logs = [math.log(size) for size in sizes]
    slopes = [statistics.linear_regression(logs, list(map(math.log, one))).slope for one in times]
    last = {name: statistics.median(one[-1][name] for one in rounds) for name in rounds[0][-1]}
    whole = last.pop("step")
    most = sorted(last, key=last.get, reverse=True)[:3]
    return {
        "sizes": list(sizes),
        "seconds": [statistics.median(column) for column in zip(*times, strict=True)],
        "exponent": quartiles(slopes),
        "at_most": at_most,
        "where": ", ".join(f"{name} {100 * last[name] / whole:.0f} %" for name in most),
        "largest": quartiles([one[-1] for one in times]),
    }


def measured(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    curves = {}
    for name in args.only or [*AXES, PROCESSES, MANIFEST]:
        print(name, flush=True, file=sys.stderr)
        own = folder / name.replace(",", "")
        if name in AXES:
            axis = AXES[name]._replace(sizes=AXES[name].sizes[: args.most])
            found = time_steps(axis, own, args.rounds)
            curves[name] = curve(axis.sizes, found, axis.at_most, axis.part)
        elif name == PROCESSES:
            curves[name] = curve((1, 2), time_processes(own, args.rounds, (1, 2)), 0.1)
        else:
            counts = [count for count in LINES if count <= args.lines]
            found = time_lines(own, min(args.rounds, 3), counts)
            curves[name] = curve(counts, found, 1.1)
            curves[name]["gib"] = quartiles([one[-1]["GiB"] for one in found])
            both = [read(own / f"{counts[-1]}.jsonl", 2) for _ in found]
            curves[name]["two at once"] = quartiles([one["step"] for one in both])
            curves[name]["two at once, gib"] = quartiles([one["GiB"] for one in both])
    record = {"machine": machine("cpu"), "rounds": args.rounds, "curves": curves}
    return record | {"table": list(rows(curves))}


def rows(curves: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those of docs/scale.md's table: exponents, and what a million lines took."""
    for name, found in curves.items():
        about = {"at_most": found["at_most"], "result": found["exponent"], "where": found["where"]}
        yield {"what": f"time ~ size^exponent: {name}", **about}
    found = curves.get(MANIFEST, {"sizes": [0]})
    if found["sizes"][-1] == LINES[-1]:
        times = (
            ("one process", "largest", "gib"),
            ("each of two", "two at once", "two at once, gib"),
        )
        for who, seconds, gib in times:
            for unit, part, most in (("s", seconds, 30), ("GiB", gib, 1)):
                what = f"{unit} to read and check 10^6 lines, {who}"
                yield {"what": what, "at_most": most, "result": found[part], "where": who}


def text(record: dict[str, Any]) -> str:
    lines = []
    for name, found in record["curves"].items():
        points = zip(found["sizes"], found["seconds"], strict=True)
        times = ", ".join(f"{size:g}: {1e3 * took:.3g} ms" for size, took in points)
        low, middle, high = found["exponent"]
        lines.append((name, f"{middle:.2f} ({low:.2f}-{high:.2f})", times))
    return f"{record['machine']}\n" + table(("size", "exponent", "seconds"), lines, left=3)


def chart(record: dict[str, Any], path: Path) -> None:
    """A picture a curve, both axes logarithmic."""
    figure = Figure(figsize=(10, 7.5), layout="constrained")
    axes = figure.subplots(math.ceil(len(record["curves"]) / 4), 4, squeeze=False).flat
    for (name, found), axis in zip(record["curves"].items(), axes, strict=False):
        axis.loglog(found["sizes"], found["seconds"], "o-")
        axis.set_title(f"{name}\nexponent {found['exponent'][1]:.2f}", fontsize=8)
        axis.set_xticks(found["sizes"], [f"{size:g}" for size in found["sizes"]])
        axis.minorticks_off()
        axis.set_ylim(min(found["seconds"]) / 3, 3 * max(found["seconds"]))
    for unused in list(axes):
        unused.set_visible(False)
    figure.supylabel("seconds")
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lines", type=int, default=100_000, help="of the largest manifest")
    parser.add_argument("--most", type=int, default=4, help="sizes of a curve, from the smallest")
    parser.add_argument("--only", nargs="*", help="curves by name; default: all")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--svg", type=Path, help="and the chart here; default: beside the JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.pop("SLAM_LLM_SRC", None)  # its model is not trained here
    with tempfile.TemporaryDirectory() as folder:
        record = measured(args, Path(folder))
    print(text(record))
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + "\n")
        chart(record, args.svg or args.json.with_suffix(".svg"))


if __name__ == "__main__":
    main()
