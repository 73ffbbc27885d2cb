"""Time and memory of a training step, part by part: cross-entropy alone, with transport, theirs.

    python benchmarks/step.py [--size tiny] [--device cpu] [--rounds 8] [--json PATH]
    python benchmarks/step.py --plan PATH      adds what `slam-potsa plan` says to figures measured

One set of random weights is trained by every variant: cross-entropy alone and with eq. 3 at the
layer that UCB chooses, on log-mel and on stored features, and where SLAM_LLM_SRC is set SLAM-LLM's
own `slam_model` with the same encoder, LLM, projector and rows. The configuration is the paper's
(experiment=table1_ours) but for sizes and the measurements that are not made at every step. A step
has as many pairs as one of the recipe's four GPUs sees, in micro-steps of `--micro` pairs each.

Variants take turns within a round and a ratio is of one round, so that whatever else the machine
does meets all of them. On a GPU times are of the device's own events: nothing waits in a step.
`load` (audio or store to the device's batch) is not part of the step: a loader's workers do it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from meters import PARTS, Clock, Peak, busiest, machine, waits
from step_models import (
    ANSWER,
    LETTERS_PER_TOKEN,
    OURS,
    PAPER,
    SECONDS,
    SIZES,
    THEIRS,
    Size,
    Variant,
    build_models,
    configuration,
    load,
    write_data,
)
from torch import nn

from slam_potsa.text import table

REFERENCES = (OURS[0], THEIRS)
GIB = 2**30


def watch(models: dict[str, nn.Module], clock: Clock) -> None:
    """Let every part of the models tell the clock when it begins and ends."""
    names = {"encoder": "encode", "encoder_projector": "project", "llm": "LLM forward"}
    parts = {
        getattr(m, attribute): name for m in models.values() for attribute, name in names.items()
    }
    for module, name in parts.items():
        module.register_forward_pre_hook(lambda *_: clock.mark("rest"))
        module.register_forward_hook(lambda *_, name=name: clock.mark(name))
    for loss in OURS:
        controller = models[loss].controller

        def end(*args: Any, inner: Callable = controller.end) -> torch.Tensor:
            clock.mark("rest")
            total = inner(*args)
            clock.mark("transport")
            return total

        controller.end = end


def train_step(
    model: nn.Module,
    batches: Sequence[dict[str, Any]],
    optimizer: torch.optim.Optimizer,
    clock: Clock,
    autocast: bool = False,
) -> None:
    clock.start()
    for batch in batches:
        batch = {**batch, "input_ids": batch["input_ids"].clone()}  # slam_model edits them
        model.encoder_projector.set_languages(batch["language_ids"])  # and tells no languages
        with torch.autocast(batch["input_ids"].device.type, torch.bfloat16, enabled=autocast):
            loss = model(**batch)[0].loss / len(batches)
        clock.mark("rest")
        loss.backward()
        clock.mark("backward")
        del loss
    optimizer.step()
    optimizer.zero_grad()
    clock.mark("optimizer")


class Bench:
    """The models, built once, and what is measured on them.

    Args:
        folder: of recordings, store and the models' configurations.
    """

    def __init__(self, size: Size, args: Any, folder: Path):
        self.size, self.args, self.folder, self.clock = size, args, folder, Clock(args.device)
        write_data(folder, size)
        configs = {loss: configuration(folder, size, loss, "mel", 1, args) for loss in OURS}
        self.models = build_models(configs, args.device)
        watch(self.models, self.clock)
        train = configs["transport"].train_config
        trained = {p: 0 for m in self.models.values() for p in m.parameters() if p.requires_grad}
        rates = {"lr": train.lr, "weight_decay": train.weight_decay}
        self.optimizer = torch.optim.AdamW(list(trained), **rates)
        self.variants = [Variant(loss, source) for loss in OURS for source in ("mel", "stored")]
        if THEIRS in self.models:
            self.variants.insert(0, Variant(THEIRS, "mel"))
        if args.device == "cuda":
            self.variants += [Variant(loss, "mel", autocast=True) for loss in OURS]

    def run(self, variant: Variant, batches: dict[str, list]) -> None:
        model = self.models[variant.loss]
        batch = batches[variant.source]
        train_step(model, batch, self.optimizer, self.clock, variant.autocast)

    def measure(self, micro: int) -> dict[str, Any]:
        """All variants with `micro` pairs at once: seconds by part of every round, peak memory."""
        device, batches, loads = self.args.device, {}, {}
        for source in ("mel", "stored"):
            config = configuration(self.folder, self.size, OURS[1], source, micro, self.args)
            load(config, device)
            begun = time.perf_counter()
            batches[source] = load(config, device)
            loads[source] = time.perf_counter() - begun
        for loss in OURS:
            self.models[loss].controller.accumulation = self.size.pairs // micro
        found = {v: {"rounds": []} for v in self.variants}
        for variant in self.variants:  # twice to warm up, the second of which is looked at
            self.run(variant, batches)
            with Peak(device) as peak:
                self.run(variant, batches)
                self.clock.seconds()
            found[variant]["peak_bytes"] = peak.bytes
        for turn in range(self.args.rounds):
            first = turn % len(self.variants)
            for variant in self.variants[first:] + self.variants[:first]:
                begun = time.perf_counter()
                self.run(variant, batches)
                issued = time.perf_counter() - begun
                found[variant]["rounds"].append(self.clock.seconds() | {"host": issued})
        for variant, about in found.items():
            step = partial(self.run, variant, batches)
            if variant == Variant(OURS[1], "mel"):
                about["profile"] = busiest(step, device)
            about["waits"] = waits(step) if device == "cuda" else []
            about |= {"name": variant.name, **variant._asdict()}
        figures = {"micro": micro, "accumulation": self.size.pairs // micro, "load": loads}
        return figures | {"variants": summarised(list(found.values()))}


def summarised(variants: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the median of each part, quartiles of the step, and of its ratio to its references."""
    steps = {v["name"]: [one["step"] for one in v["rounds"]] for v in variants}
    for variant in variants:
        rounds, own = variant.pop("rounds"), steps[variant["name"]]
        medians = {part: statistics.median(r[part] for r in rounds) for part in rounds[0]}
        references = {
            OURS[0]: Variant(OURS[0], variant["source"], variant["autocast"]).name,
            THEIRS: Variant(THEIRS, "mel").name,
        }
        variant |= {"seconds": medians, "step": quartiles(own)}
        variant["ratio"] = {
            to: quartiles([a / b for a, b in zip(own, steps[name], strict=True)])
            for to, name in references.items()
            if name in steps
        }
    return variants


def quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4, method="inclusive")


# ---------------------------------------------------------------- beside the plan, and printing


def add_plan(record: dict[str, Any]) -> None:
    """What `slam-potsa plan` counts for the same configurations, of the paper's sizes."""
    from slam_potsa.engine.plan.plan import plan_stages

    size, args = (
        SIZES[record["size"]],
        argparse.Namespace(**{"solver": "torch", **record["arguments"]}),
    )
    given = {"tokens_per_letter": 1 / LETTERS_PER_TOKEN, "longest_answer": 1.0}
    given["target_tokens"] = ANSWER / statistics.mean(SECONDS)  # all answers are as long
    cards = ["h100"] if args.device == "cuda" else []
    with tempfile.TemporaryDirectory() as name:
        write_data(Path(name), size)
        for one in record["micro_batches"]:
            for variant in one["variants"]:
                if variant["loss"] != THEIRS:
                    about = variant["loss"], variant["source"], one["micro"], args
                    config = configuration(Path(name), size, *about)
                    config.native.bf16 = variant["autocast"]
                    config.model_config.llm_path = PAPER["llm"]  # a folder has no tokenizer
                    plan = plan_stages([("step", config)], assumptions=given, gpu_names=cards)
                    variant["plan"] = beside(plan, variant)


def beside(plan: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """FLOPs, their share of the card's peak, and memory, as the plan of one stage has them."""
    stage, (_, seconds, _) = plan["stages"][0], measured["step"]
    overhead = "allocator's fragments", "CUDA context"
    held = {name: size for name, size in stage["memory_bytes"].items() if name not in overhead}
    found = {name: stage[name] for name in ("step_flops", "memory_bytes", "peak_bytes")}
    found |= {
        "flops_a_second": stage["step_flops"] / seconds,
        "allocated_bytes": sum(held.values()),
    }
    for name, card in stage["on"].items():
        if measured["peak_bytes"].get("allocated"):
            found["planned_seconds"] = card["seconds_a_step"]
            found["utilisation"] = found["flops_a_second"] / plan["hardware"][name]["half"]
    return found


def text(record: dict[str, Any]) -> str:
    """The printed tables: ratios, memory and plan, then the parts."""
    rounds, size = record["arguments"]["rounds"], record["size"]
    lines = [f"{record['machine']}; sizes: {size}; median (quartiles) of {rounds} rounds"]
    for one in record["micro_batches"]:
        loads = ", ".join(f"{name} {1e3 * took:.0f} ms" for name, took in one["load"].items())
        lines += ["", f"micro-steps of {one['micro']} pairs, {one['accumulation']} a step"]
        head = ("", "step, ms", "planned", *(f"to {name}" for name in REFERENCES))
        head += ("GiB", "planned", "MFU")
        lines += [table(head, map(_compared, one["variants"])), "", f"ms of a step; load: {loads}"]
        parts = [
            (v["name"], *(f"{1e3 * v['seconds'][part]:.1f}" for part in PARTS))
            for v in one["variants"]
        ]
        lines.append(table(("", *PARTS), parts))
    return "\n".join(lines)


def _compared(variant: dict[str, Any]) -> tuple[str | None, ...]:
    low, median, high = (1e3 * seconds for seconds in variant["step"])
    plan, peak, ratio = variant.get("plan", {}), variant["peak_bytes"], variant["ratio"]
    held = peak.get("allocated", peak.get("process", 0))
    cells = [variant["name"], f"{median:.0f} ({low:.0f}-{high:.0f})"]
    cells.append(f"{1e3 * plan['planned_seconds']:.0f}" if plan else None)
    for to in REFERENCES:
        cells.append("{1:.2f} ({0:.2f}-{2:.2f})".format(*ratio[to]) if to in ratio else None)
    cells.append(f"{held / GIB:.1f}")
    cells += [f"{plan['allocated_bytes'] / GIB:.1f}", f"{plan['utilisation']:.2f}"] if plan else []
    return *cells, *[None] * (8 - len(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="tiny", choices=sorted(SIZES))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--micro", type=int, nargs="*", help="pairs at once; default: the size's")
    parser.add_argument("--lora", action="store_true", help="LoRA trains too")
    parser.add_argument("--solver", default="torch", choices=["torch", "triton"], help="of eq. 3")
    parser.add_argument("--note", default="", help="kept in the JSON, such as a busy machine")
    parser.add_argument("--json", type=Path, help="also write the figures here, as they come")
    parser.add_argument("--no-plan", action="store_true", help="leave the plan's count for later")
    parser.add_argument("--plan", type=Path, metavar="PATH", help="only add the plan to figures")
    args = parser.parse_args()
    path = args.plan or args.json
    record = json.loads(args.plan.read_text()) if args.plan else measured(args)
    if record["size"] == "paper" and not args.no_plan:
        add_plan(record)
    save(record, path)
    print(text(record))


def measured(args: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(args.threads)
    names = ("device", "threads", "rounds", "lora", "solver", "note")
    kept = {name: getattr(args, name) for name in names}
    record = {"machine": machine(args.device)}
    record |= {"size": args.size, "arguments": kept, "micro_batches": []}
    with tempfile.TemporaryDirectory() as folder:
        solver = f"alignment.terms.ot.solver={args.solver}"
        bench = Bench(SIZES[args.size]._replace(options=(solver,)), args, Path(folder))
        for micro in args.micro or SIZES[args.size].micro:
            record["micro_batches"].append(bench.measure(micro))
            save(record, args.json)
    return record


def save(record: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
