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

from slam_potsa.config import PotsaConfig
from slam_potsa.engine import deepspeed
from slam_potsa.engine.plan.assumptions import GIB, Gpu
from slam_potsa.engine.plan.corpus import Corpus
from slam_potsa.engine.plan.count import (
    MANY,
    PARTS,
    REST,
    Batch,
    Flops,
    Held,
    TrainingStep,
    encoder_flops,
)
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
        train, mean = self.config.train_config, self.batch()
        items, corpus = train.batch_size_training, asdict(self.corpus)
        held = self.memory(items)
        for lengths in (corpus["seconds"], corpus["answers"]):
            del lengths["values"]  # one number a recording
        micro_steps = train.gradient_accumulation_steps * self.gpus
        return {
            "models": self._models(),
            "data": corpus,
            "trainable_parameters": self.built.parameters(trainable=True),
            "frozen_parameters": self.built.parameters(trainable=False),
            "memory_bytes": held,
            "peak_bytes": sum(held.values()),
            "mean_batch": asdict(mean),
            "worst_batch": asdict(self.batch(items)),
            "micro_step_flops": self._by_part(),
            "step_flops": self.flops.total() * micro_steps,
            "step_tokens": mean.rows * mean.positions * micro_steps,
            "accumulation": train.gradient_accumulation_steps,
            "steps": self.steps,
            "gpus": self.gpus,
            "feature_store_bytes": round(
                self.corpus.hours * 3600 * FRAMES_PER_SECOND * self.built.encoder.width * HALF
            ),
            "on": {name: self.on(gpu) for name, gpu in cards.items()},
        }

    def batch(self, items: int | None = None) -> Batch:
        """`items` with the longest recording and the longest answer there are.

        None: what a micro-step holds on average, its rows padded to the longest among them.
        """
        corpus, size = self.corpus, self.config.train_config.batch_size_training
        if items is None:
            rows = round(size * (1 + corpus.pairs / corpus.items))
            seconds = corpus.seconds.expected_longest(rows)
            answer = corpus.answers.expected_longest(rows)
        else:
            rows = items * (2 if corpus.pairs else 1)
            seconds, answer = corpus.seconds.longest, corpus.answers.longest
        stored = self.config.dataset_config.feature_store is not None
        answer = math.ceil(answer)
        return Batch(
            rows=rows,
            pairs=rows // 2 if corpus.pairs else 0,
            frames=self._frames(seconds, self.built.encoder.window == "30s" and not stored),
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
        train = self.config.train_config
        free = gpu.memory - sum(self.memory(train.batch_size_training).values())
        seconds = hours = store = None
        if gpu.half is not None:
            seconds = self._seconds(gpu) * train.gradient_accumulation_steps
            hours = self.steps * seconds / 3600
            store = self._store_flops / (gpu.single * self.given["utilisation"]) / 3600
        return {
            "label": gpu.label,
            "fits": free >= 0,
            "free_gib": free / GIB,
            "largest_batch": self._largest(gpu.memory),
            "seconds_a_step": seconds,
            "hours": hours,
            "store_hours": store,
        }

    def _models(self) -> dict[str, str]:
        model, layers = self.config.model_config, self.built.model.encoder_projector.num_layers
        eight = " in 8 bits" if self.config.train_config.quantization else ""
        shape = f"{layers} x {model.qformer_dim}, {model.query_len} queries"
        return {
            "encoder": model.encoder_path_hf,
            "projector": f"{model.encoder_projector}, {shape}",
            "llm": model.llm_path + eight,
        }

    def _frames(self, seconds: float, whole_window: bool) -> int:
        most = self.built.encoder.max_frames
        return most if whole_window else min(most, math.ceil(seconds * FRAMES_PER_SECOND))

    @cached_property
    def _step(self) -> TrainingStep:
        stored = self.config.dataset_config.feature_store is not None
        width = self.built.encoder.width if stored else 0
        return TrainingStep(self.built.model, features=width, autocast=self.built.autocast)

    @cached_property
    def _held(self) -> Held:
        return self._step.held(self.batch(MANY))

    @cached_property
    def _static(self) -> dict[str, float]:
        """Weights, gradients, optimizer; DeepSpeed's ZeRO shares some of them among the GPUs."""
        built, config = self.built, self.config
        weights = {f"weights: {part}": float(size) for part, size in built.weights().items()}
        trained = sum(built.parameters(trainable=True).values())
        gradients = sum(p.numel() * p.element_size() for p in built.trained().values())
        table = {"gradients": gradients, "AdamW": 2 * FLOAT * trained}
        if not config.train_config.enable_deepspeed:
            buckets = {"DDP's buckets": gradients} if self.gpus > 1 else {}
            return weights | table | buckets
        settings = deepspeed.read_settings(config.deepspeed_config)
        stage = (settings.get("zero_optimization") or {}).get("stage", 0)
        if gradients < FLOAT * trained:  # in 16 bits: float32 weights in the optimizer
            table["AdamW"] += FLOAT * trained
        shared = {name: stage >= 3 for name in weights}
        shared |= {"gradients": stage >= 2, "AdamW": stage >= 1}
        table = weights | table
        return {name: size / (self.gpus if shared[name] else 1) for name, size in table.items()}

    def _by_part(self) -> dict[str, dict[str, int]]:
        names = {**{part: part for part, _, _ in self.flops}, REST: "alignment"}
        return {
            name: {
                way: sum(n for (p, w, _), n in self.flops.items() if (p, w) == (part, way))
                for way in ("forward", "backward")
            }
            for part, name in names.items()
        }

    def _seconds(self, gpu: Gpu) -> float:
        """Of a micro-step: products at the peak of their precision, weights read twice at least."""
        half = sum(count for (_, _, size), count in self.flops.items() if size == HALF)
        compute = half / gpu.half + (self.flops.total() - half) / gpu.single
        reading = 2 * self.built.weights()["llm"] / gpu.bandwidth
        return max(compute / self.given["utilisation"], reading)

    @cached_property
    def _store_flops(self) -> int:
        """`slam-potsa features`: the encoder once over every recording."""
        encoder = self.built.encoder
        frames = self._frames(self.corpus.seconds.mean, encoder.window == "30s")
        return self.corpus.recordings * encoder_flops(encoder, frames)

    def _largest(self, memory: int) -> int:
        """The most items whose memory fits, by bisection: memory only grows with the batch."""
        low, high = 0, LARGEST_BATCH + 1
        while high - low > 1:
            middle = (low + high) // 2
            fits = sum(self.memory(middle).values()) <= memory
            low, high = (middle, high) if fits else (low, middle)
        return low
