"""One stage's figures: what it holds, computes and takes on each GPU.

Weights, gradients and AdamW's two moments are what the model's tensors say; what comes and goes is
the peak of a step over the longest rows there are. Hours are those of steps over average rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import nn

from slam_potsa.config import DatasetConfig, PotsaConfig
from slam_potsa.data.dataset import training_items
from slam_potsa.data.tasks import USES
from slam_potsa.engine import deepspeed
from slam_potsa.engine.native import max_steps
from slam_potsa.engine.plan.assumptions import CORPORA, GIB, Gpu
from slam_potsa.engine.plan.count import (
    LOSS,
    PARTS,
    Batch,
    Flops,
    Held,
    MetaModel,
    count_step,
    encoder_flops,
)
from slam_potsa.errors import InputError

FRAMES_PER_SECOND = 50  # encoder frames of 20 ms
FLOAT, HALF = 4, 2  # bytes
SINGLE = ("none", "partner", "joining")  # pairings in which each answer is an item of its own


# -- how much there is to train on -----------------------------------------------------------------


@dataclass(frozen=True)
class Corpus:
    """What a stage trains on. Answers and prompt are in LLM tokens, answers with eos."""

    source: str  # where the numbers are from
    languages: tuple[str, ...]
    recordings: int
    hours: float
    items: int  # of an epoch
    pairs: int  # of the items; a pair is two rows
    half_answered: int  # of the pairs, those of which one half is only aligned
    mean_seconds: float
    longest_seconds: float
    mean_answer: float
    longest_answer: float
    prompt: int  # the longest


def corpus_of(config: PotsaConfig, given: Mapping[str, float]) -> Corpus:
    """The training data of a stage.

    Args:
        given: the assumptions, by name.

    Raises InputError with every bad line of a manifest that is here, or without durations.
    """
    data = config.dataset_config
    counted = Path(data.train_data_path or "").is_file()
    speech = _counted(data) if counted else _assumed(data)
    seconds = 3600 * speech["hours"] / speech["recordings"]
    written = {"asr": ("transcript",), "cot": ("transcript", "target")}
    answers = [
        1 + seconds * sum(given[f"{field}_tokens"] for field in written.get(task, ("target",)))
        for task in data.tasks
    ]
    shares = data.task_shares or [1] * len(answers)
    letters = max(len(getattr(data, USES[task][0])) for task in data.tasks)
    return Corpus(
        **speech,
        mean_seconds=seconds,
        mean_answer=fmean(answers, shares),
        longest_answer=given["longest_answer"] * max(answers),
        prompt=math.ceil(letters * given["tokens_per_letter"]),
    )


def _counted(data: DatasetConfig) -> dict[str, Any]:
    items = training_items(data)
    seconds = [utterance.duration for utterance in items.utterances if utterance.audio]
    if None in seconds:
        raise InputError(
            f"{data.train_data_path}: {seconds.count(None)} recordings have no `duration`, which a "
            "plan needs; write them with `slam-potsa prepare`"
        )
    return {
        "source": data.train_data_path,
        "languages": tuple(sorted({utterance.language for utterance in items.utterances})),
        "recordings": len(seconds),
        "hours": sum(seconds) / 3600,
        "items": len(items),
        "pairs": items.num_pairs,
        "half_answered": items.num_half_answered,
        "longest_seconds": max(seconds),
    }


def _assumed(data: DatasetConfig) -> dict[str, Any]:
    corpus = CORPORA["covost2" if "covost" in data.train_data_path.lower() else "fleurs"]
    heard = [language for language in corpus["languages"] if language not in data.joining]
    translated, own = (len(names) * corpus["recordings"] for names in (heard, data.joining))
    single = data.pairing in SINGLE or len(heard) < 2
    items = translated if single else translated // 2
    pairs = 0 if data.pairing in ("none", "joining") or len(heard) < 2 else items
    joins = max(own, round(items * data.joining_share / (1 - data.joining_share))) if own else 0
    path = data.train_data_path or "train_data_path"
    return {
        "source": f"{path} is not here; assumed {corpus['label']}",
        "languages": (*heard, *data.joining),
        "recordings": translated + own,
        "hours": (len(heard) + len(data.joining)) * corpus["hours"],
        "items": items + joins,
        "pairs": pairs + joins,
        "half_answered": pairs * single + joins,
        "longest_seconds": 30.0,  # Whisper's window
    }


# -- what that takes -------------------------------------------------------------------------------


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
        layers, mean = len(built.model.encoder_projector.layers), self.mean_batch
        micro_steps = train.gradient_accumulation_steps * self.gpus
        read = mean.rows if built.model.controller.reads_llm else mean.answered
        return {
            "models": {
                "encoder": model.encoder_path_hf,
                "projector": f"{model.encoder_projector}, {layers} x {model.qformer_dim}, "
                f"{model.query_len} queries",
                "llm": model.llm_path + (" in 8 bits" if train.quantization else ""),
            },
            "data": asdict(self.corpus),
            "trainable_parameters": built.total(lambda t: t.numel() * t.requires_grad),
            "frozen_parameters": built.total(
                lambda t: t.numel() * (isinstance(t, nn.Parameter) and not t.requires_grad)
            ),
            "memory_bytes": {name: round(size) for name, size in self.memory.items()},
            "peak_bytes": round(sum(self.memory.values())),
            "mean_batch": mean._asdict(),
            "worst_batch": self.worst_batch._asdict(),
            "micro_step_flops": {
                part: {
                    way: sum(n for key, n in self.flops.items() if key[:2] == (part, way))
                    for way in ("forward", "backward")
                }
                for part in (*PARTS.values(), LOSS)
            },
            "step_flops": self.flops.total() * micro_steps,
            "step_tokens": read * mean.positions * micro_steps,
            "accumulation": train.gradient_accumulation_steps,
            "steps": self.steps,
            "gpus": self.gpus,
            "feature_store_bytes": round(
                self.corpus.hours * 3600 * FRAMES_PER_SECOND * built.encoder.width * HALF
            ),
            "on": {name: self.on(gpu) for name, gpu in cards.items()},
        }

    @property
    def worst_batch(self) -> Batch:
        """A micro-step with the longest recording and the longest answer there are."""
        corpus, items = self.corpus, self.config.train_config.batch_size_training
        pairs = items if corpus.pairs else 0
        aligned_only = pairs if corpus.pairs == corpus.half_answered else 0
        batch = items + pairs, pairs, aligned_only
        return self._batch(*batch, corpus.longest_seconds, corpus.longest_answer)

    @property
    def mean_batch(self) -> Batch:
        """What a micro-step holds on average, its rows padded to the longest among them; where
        that is no whole number of pairs, one more."""
        return self._mean(math.ceil(self._pairs))

    @property
    def _pairs(self) -> float:
        """Those of a micro-step, on average."""
        corpus = self.corpus
        return self.config.train_config.batch_size_training * corpus.pairs / corpus.items

    def _mean(self, pairs: int) -> Batch:
        corpus, items = self.corpus, self.config.train_config.batch_size_training
        spread = self.given["batch_spread"] if items + pairs > 1 else 1
        return self._batch(
            items + pairs,
            pairs,
            round(pairs * corpus.half_answered / max(1, corpus.pairs)),
            min(corpus.longest_seconds, spread * corpus.mean_seconds),
            min(corpus.longest_answer, spread * corpus.mean_answer),
        )

    @cached_property
    def flops(self) -> Flops:
        """Of a micro-step, on average: between those with the whole numbers of pairs around."""
        fewer, more = math.floor(self._pairs), math.ceil(self._pairs)
        found = self._count(self._mean(more))[0]
        if fewer == more:
            return found
        share, other = self._pairs - fewer, self._count(self._mean(fewer))[0]
        return Counter({k: round(share * found[k] + (1 - share) * other[k]) for k in found | other})

    @cached_property
    def memory(self) -> dict[str, float]:
        """Bytes by what holds them, at the peak of a micro-step; their sum is the peak."""
        held = self._count(self.worst_batch)[1]
        table = self._resident() | {
            f"activations: {name}" if name in PARTS.values() else name: size
            for name, size in held.items()
        }
        table["allocator's fragments"] = self.given["reserve"] * held.total()
        table["CUDA context"] = self.given["context_gib"] * GIB
        return {name: size for name, size in table.items() if size}

    @property
    def steps(self) -> int:
        """Optimizer steps, as the native host counts them: incomplete batches are dropped."""
        train, items = self.config.train_config, self.corpus.items
        if items < train.batch_size_training * self.gpus:
            return 0
        batches = -(-items // self.gpus) // train.batch_size_training
        return max_steps(self.config, batches)

    def on(self, gpu: Gpu) -> dict[str, Any]:
        """What the stage is on one kind of GPU.

        Products run at the peak of their precision, and weights are read twice a micro-step at
        least. store_hours: `slam-potsa features`, the encoder once over every recording.
        """
        free = gpu.memory - sum(self.memory.values())
        half = sum(n for (_, _, size), n in self.flops.items() if size == HALF)
        compute = half / gpu.half + (self.flops.total() - half) / gpu.single
        reading = 2 * self._weights["llm"] / gpu.bandwidth
        seconds = max(compute / self.given["utilisation"], reading)
        seconds *= self.config.train_config.gradient_accumulation_steps
        store = self._store_flops / (gpu.single * self.given["utilisation"])
        return {
            "label": gpu.label,
            "fits": free >= 0,
            "free_gib": free / GIB,
            "seconds_a_step": seconds,
            "hours": self.steps * seconds / 3600,
            "store_hours": store / 3600,
        }

    def _batch(
        self, rows: int, pairs: int, aligned_only: int, seconds: float, answer: float
    ) -> Batch:
        whole_window = self.built.encoder.window == "30s" and not self._stored_width
        model = self.config.model_config
        a_token = model.frames_per_token or 1e-9  # none: all of query_len
        speech = math.ceil(min(model.query_len, seconds * FRAMES_PER_SECOND / a_token))
        positions = speech + self.corpus.prompt + math.ceil(answer)
        return Batch(
            rows=rows,
            pairs=pairs,
            frames=self._frames(seconds, whole_window),
            positions=positions,
            answer=math.ceil(answer),
            answered=rows - aligned_only,
        )

    def _frames(self, seconds: float, whole_window: bool) -> int:
        most = self.built.encoder.max_frames
        return most if whole_window else min(most, math.ceil(seconds * FRAMES_PER_SECOND))

    @property
    def _stored_width(self) -> int:
        """Of features that are read from a store; 0: the encoder runs."""
        return self.built.encoder.width if self.config.dataset_config.feature_store else 0

    def _count(self, batch: Batch) -> tuple[Flops, Held]:
        return count_step(self.built.model, batch, self._stored_width, self.built.autocast)

    @cached_property
    def _weights(self) -> dict[str, int]:
        return self.built.total(lambda t: t.numel() * t.element_size())

    def _resident(self) -> dict[str, float]:
        """Weights, gradients, optimizer; DeepSpeed's ZeRO shares some of them among the GPUs."""
        trained = [p for p in self.built.model.parameters() if p.requires_grad]
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

    @cached_property
    def _store_flops(self) -> int:
        encoder = self.built.encoder
        frames = self._frames(self.corpus.mean_seconds, encoder.window == "30s")
        return self.corpus.recordings * encoder_flops(encoder, frames)
