"""One stage's figures: what it holds, computes and takes on each GPU.

Weights, gradients and AdamW's two moments are what the model's tensors say; what comes and goes is
the peak of a step over the longest rows there are. Hours are those of steps over average rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from torch import nn

from slam_potsa.config import PotsaConfig
from slam_potsa.engine import deepspeed
from slam_potsa.engine.plan import count
from slam_potsa.engine.plan.assumptions import GIB, Gpu
from slam_potsa.engine.plan.corpus import Corpus
from slam_potsa.engine.plan.count import LOSS, MANY, PARTS, Batch, Flops, Held
from slam_potsa.engine.plan.meta import MetaModel

FRAMES_PER_SECOND = 50  # encoder frames of 20 ms
FLOAT, HALF = 4, 2  # bytes
LARGEST_BATCH = 4096  # items a GPU; more are not looked for


@dataclass(frozen=True)
class Stage:
    """A configuration whose model could be built, on `gpus` GPUs in all."""

    config: PotsaConfig
    built: MetaModel
    corpus: Corpus
    gpus: int
    given: Mapping[str, float]  # the assumptions

    def figures(self, cards: Mapping[str, Gpu]) -> dict[str, Any]:
        """Plain numbers: of one GPU, but steps, their FLOPs and tokens of all of them."""
        train, model, built = self.config.train_config, self.config.model_config, self.built
        mean, held = self.batch(), self.memory(train.batch_size_training)
        micro_steps = train.gradient_accumulation_steps * self.gpus
        layers, width = built.model.encoder_projector.num_layers, model.qformer_dim
        return {
            "models": {
                "encoder": model.encoder_path_hf,
                "projector": f"{model.encoder_projector}, {layers} x {width}, "
                f"{model.query_len} queries",
                "llm": model.llm_path + (" in 8 bits" if train.quantization else ""),
            },
            "data": self.corpus.as_dict(),
            "trainable_parameters": built.total(lambda t: t.numel() * t.requires_grad),
            "frozen_parameters": built.total(
                lambda t: t.numel() * (isinstance(t, nn.Parameter) and not t.requires_grad)
            ),
            "memory_bytes": held,
            "peak_bytes": sum(held.values()),
            "mean_batch": asdict(mean),
            "worst_batch": asdict(self.batch(train.batch_size_training)),
            "micro_step_flops": {
                name: {way: self._flops(part, way) for way in ("forward", "backward")}
                for part, name in {**{p: p for p in PARTS.values()}, LOSS: "alignment"}.items()
            },
            "step_flops": self.flops.total() * micro_steps,
            "step_tokens": mean.rows * mean.positions * micro_steps,
            "accumulation": train.gradient_accumulation_steps,
            "steps": self.steps,
            "gpus": self.gpus,
            "feature_store_bytes": round(
                self.corpus.hours * 3600 * FRAMES_PER_SECOND * built.encoder.width * HALF
            ),
            "on": {name: self.on(gpu) for name, gpu in cards.items()},
        }

    def batch(self, items: int | None = None) -> Batch:
        """`items` with the longest recording and the longest answer there are.

        None: what a micro-step holds on average, its rows padded to the longest among them.
        """
        corpus, seconds, answers = self.corpus, self.corpus.seconds, self.corpus.answers
        rows = (items or 0) * (2 if corpus.pairs else 1)
        longest, answer = seconds.longest, math.ceil(answers.longest)
        if items is None:
            size = self.config.train_config.batch_size_training
            rows = round(size * (1 + corpus.pairs / corpus.items))
            longest = seconds.expected_longest(rows)
            answer = math.ceil(answers.expected_longest(rows))
        whole_window = self.built.encoder.window == "30s" and not self._stored_width
        return Batch(
            rows=rows,
            pairs=rows // 2 if corpus.pairs else 0,
            frames=self._frames(longest, whole_window),
            positions=self.config.model_config.query_len + corpus.prompt + answer,
            answer=answer,
        )

    def memory(self, items: int) -> dict[str, int]:
        """Bytes by what holds them, at the peak of a micro-step; their sum is the peak."""
        passing = self._held.peak(items)
        table = self._static | {
            f"activations: {name}" if name in PARTS.values() else name: size
            for name, size in passing.items()
        }
        table["allocator's fragments"] = self.given["reserve"] * sum(passing.values())
        table["CUDA context"] = self.given["context_gib"] * GIB
        return {name: int(size) for name, size in table.items() if size}

    @cached_property
    def flops(self) -> Flops:
        """Of a micro-step."""
        return self._step.flops(self.batch())

    @property
    def steps(self) -> int:
        """Optimizer steps, as the native host counts them: incomplete batches are dropped."""
        train, items = self.config.train_config, self.corpus.items
        if items < train.batch_size_training * self.gpus:
            return 0
        batches = -(-items // self.gpus) // train.batch_size_training
        epochs = train.num_epochs * math.ceil(batches / train.gradient_accumulation_steps)
        return self.config.native.max_steps or min(epochs, train.total_steps)

    def on(self, gpu: Gpu) -> dict[str, Any]:
        """What the stage is on one kind of GPU; hours are None where its speed is not known."""
        train, memory = self.config.train_config, self.memory
        free = gpu.memory - sum(memory(train.batch_size_training).values())
        seconds = hours = store = None
        if gpu.half is not None:
            seconds = self._seconds(gpu) * train.gradient_accumulation_steps
            hours = self.steps * seconds / 3600
            store = self._store_flops / (gpu.single * self.given["utilisation"]) / 3600
        low, high = 0, LARGEST_BATCH + 1  # bisected: memory only grows with the batch
        while high - low > 1:
            items = (low + high) // 2
            fits = sum(memory(items).values()) <= gpu.memory
            low, high = (items, high) if fits else (low, items)
        table = {"label": gpu.label, "fits": free >= 0, "free_gib": free / GIB}
        table |= {"largest_batch": low, "seconds_a_step": seconds, "hours": hours}
        return table | {"store_hours": store}

    def _frames(self, seconds: float, whole_window: bool) -> int:
        most = self.built.encoder.max_frames
        return most if whole_window else min(most, math.ceil(seconds * FRAMES_PER_SECOND))

    @property
    def _stored_width(self) -> int:
        """Of features that are read from a store; 0: the encoder runs."""
        return self.built.encoder.width if self.config.dataset_config.feature_store else 0

    @cached_property
    def _step(self) -> count.TrainingStep:
        return count.TrainingStep(self.built.model, self._stored_width, self.built.autocast)

    @cached_property
    def _held(self) -> Held:
        return self._step.held(self.batch(MANY))

    @cached_property
    def _weights(self) -> dict[str, int]:
        return self.built.total(lambda t: t.numel() * t.element_size())

    @cached_property
    def _static(self) -> dict[str, float]:
        """Weights, gradients, optimizer; DeepSpeed's ZeRO shares some of them among the GPUs."""
        trained = self.built.trained.values()
        gradients = sum(p.numel() * p.element_size() for p in trained)
        moments = 2 * FLOAT * sum(p.numel() for p in trained)
        table = {f"weights: {part}": size for part, size in self._weights.items()}
        table |= {"gradients": gradients, "AdamW": moments}
        if not self.config.train_config.enable_deepspeed:
            return table | ({"DDP's buckets": gradients} if self.gpus > 1 else {})
        settings = deepspeed.read_settings(self.config.deepspeed_config)
        stage = (settings.get("zero_optimization") or {}).get("stage", 0)
        if gradients < moments / 2:  # in 16 bits the optimizer has float32 weights of its own
            table["AdamW"] += moments / 2
        shared_from = {"AdamW": 1, "gradients": 2}
        return {
            name: size / (self.gpus if stage >= shared_from.get(name, 3) else 1)
            for name, size in table.items()
        }

    def _flops(self, part: str, way: str) -> int:
        return sum(n for (p, w, _), n in self.flops.items() if (p, w) == (part, way))

    def _seconds(self, gpu: Gpu) -> float:
        """Of a micro-step: products at the peak of their precision, weights read twice at least."""
        half = sum(n for (_, _, size), n in self.flops.items() if size == HALF)
        compute = half / gpu.half + (self.flops.total() - half) / gpu.single
        return max(compute / self.given["utilisation"], 2 * self._weights["llm"] / gpu.bandwidth)

    @cached_property
    def _store_flops(self) -> int:
        """`slam-potsa features`: the encoder once over every recording."""
        encoder = self.built.encoder
        frames = self._frames(self.corpus.seconds.mean, encoder.window == "30s")
        return self.corpus.recordings * count.encoder_flops(encoder, frames)
