"""What turns a speech LLM's cross-entropy into POTSA's objective, beside the model, not inside it.

The controller owns the taps, the objective, the layer schedule and the languages of the current
batch. It attaches to a model by hooks on its parts, so that the same object serves our `SpeechLLM`
and SLAM-LLM's `slam_model`. Of the trainer it needs nothing: a training forward is one with
gradients and labels, an optimizer step is seen by torch's own hook.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from slam_potsa.config.alignment import ANSWER, SPEECH, TEACHER
from slam_potsa.model.carried_state import CarriedState
from slam_potsa.model.metrics import mean_record, numbers, start_copy_to_host
from slam_potsa.model.taps import TapRecorder, Teacher
from slam_potsa.objective.layer_schedule import LayerSchedule
from slam_potsa.objective.terms import AlignmentLoss, AlignmentObjective

SCHEDULE_BYTES = 16384  # room for the JSON of the schedule's state; some 100 bytes a layer
CHOICE_BYTES = 512  # more for each choice beyond one a step
MAX_SKIPPED = 50  # skipped steps in a row; fp16's loss scale settles within some twenty
PENDING_STEPS = 2  # losses are read this many steps late: by then they are there, nothing waits
# What a step's record holds beside the terms.
COLUMNS = {"step", "ce", "lr", "layers", "choices", "outcomes", "seconds", "tokens", "shared"}
COLUMNS |= {"alignment", "aligned", "not_finite", "arrived", "bad", "keys"}
_warn_once = cache(logging.getLogger(__name__).warning)
NO_PAIRS = torch.empty(0, 2, dtype=torch.long)


class NonFiniteLoss(FloatingPointError):
    """A training loss became NaN or infinite; the message names the step and what to try."""


class AlignmentController:
    """Runs eq. 3-7 around the forward passes of a model.

        controller.begin(language_ids, pairs, training)    chooses the layers, opens the taps
        ... the model's own forward ...
        loss = controller.end(cross_entropy, targets)      the total loss of eq. 4

    A *step* is an optimizer step: the choice of layers holds through gradient accumulation, the
    reward is that step's mean cross-entropy over micro-steps and ranks, and nothing moves on a step
    that fp16's loss scaling skipped. Losses are read late, without waiting for the device.

    Args:
        model: has `encoder_projector` (with `layers` and `set_languages`) and `llm`.
        objective, schedule: eq. 3-4 and eq. 5-7; `schedule=None` where no term is scheduled.
        accumulation: micro-steps an optimizer step, to notice skipped steps.
        diagnose_interval: steps between measurements of matched and mismatched cost, and records
            of the schedule's rewards and probabilities; 0: never.
        reward: the loss whose fall rewards the step's layer: "cross_entropy" (eq. 5), or
            "alignment", the sum of the scheduled terms, unweighted, as the authors' tree has it.
        every: "optimizer_step", or "micro_step": layers are chosen at each training forward, each
            rewarded by its own loss. Both are the same on all ranks: the draws are the schedule's
            own, and a loss is the mean over ranks.

    Raises ValueError for a term over a tap that the model does not have, or of a name in COLUMNS.

    `listeners` are called with one dict of plain numbers a step, see `metrics`.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: AlignmentObjective,
        schedule: LayerSchedule | None,
        *,
        accumulation: int = 1,
        diagnose_interval: int = 10,
        reward: str = "cross_entropy",
        every: str = "optimizer_step",
    ):
        self.projector = model.encoder_projector
        self.objective, self.schedule, self.reward = objective, schedule, reward
        self.accumulation, self._each_micro = accumulation, every == "micro_step"
        self.diagnose_interval = diagnose_interval
        self.recorder = TapRecorder(model)
        taken = sorted(COLUMNS.intersection(term.name for term in objective.terms))
        if taken:
            raise ValueError(f"terms: {', '.join(taken)} stands for something else in the metrics")
        self._scheduled = {t.name for t in objective.terms if t.is_layered and t.layers is None}
        sides = [side for term in objective.terms for side in (term.first, term.second)]
        self.reads_llm = any(side.startswith(("llm.", f"{SPEECH}llm.", ANSWER)) for side in sides)
        self._teacher: Teacher | None = getattr(model, "teacher", None)
        choices = schedule.candidates if schedule else ()
        self.recorder.open(objective.tap_names(choices))  # all of them are there
        self.recorder.take()
        self.listeners: list[Callable[[dict[str, Any]], None]] = []
        self.step = self._skipped = 0
        self._choices: list[tuple[int, int]] = []  # of the step, one a loss
        self._micro: list[dict[str, Any]] = []
        self._unread: list[dict[str, Any]] = []
        self._keys: dict[int, list[Sequence[str]]] = {}  # of unread steps, one list a micro-step
        self._clock: float | None = None
        self._training, self._pairs, self._sentences = False, NO_PAIRS, None
        more = CHOICE_BYTES * (accumulation - 1) if self._each_micro else 0
        self.carried = CarriedState(SCHEDULE_BYTES + more)
        # A submodule: SLAM-LLM saves it with the projector.
        self.projector.schedule_state = self.carried
        self.carried.register_state_dict_pre_hook(lambda *_: self.save_to_carried())
        alive = weakref.ref(self)  # torch's hook is global, and must not keep a model alive
        self._step_hook = register_optimizer_step_post_hook(
            lambda optimizer, *_: alive() and alive().on_optimizer_step(optimizer)
        )

    # -- around a forward pass -----------------------------------------------------------------

    def begin(
        self,
        language_ids: Tensor | None = None,
        pairs: Tensor | None = None,
        training: bool = False,
        sentence_ids: Tensor | None = None,
        *text: Tensor | int | None,
    ) -> None:
        """Before the projector runs.

        `language_ids` [B]; `pairs` [P, 2] row numbers, or None; `sentence_ids` [B], equal where
        the meaning is: what is mismatched must differ in it; `text`: `modality_mask` [B, S],
        `transcript_ids` [B, M] and where answers start, see `TapRecorder.open`.
        """
        self.projector.set_languages(language_ids)
        self._training, self._sentences = training, sentence_ids
        self._pairs = NO_PAIRS if pairs is None else pairs
        if self._teacher is not None:
            self._teacher.rows = self._taught() if training else None
        if not training:
            self._clock = None
            return
        self._clock = self._clock or time.perf_counter()
        if len(self._micro) >= self.accumulation:  # fp16's loss scaling skipped the step
            self._skip()
        self.flush(keep=PENDING_STEPS - 1)
        if self.schedule and (self._each_micro or not self._choices):
            self._choices.append(self.schedule.choose())
        wanted = self.objective.tap_names(self.layers, paired=len(self._pairs) > 0)
        self.recorder.open(wanted, *text, pairs=self._pairs)

    def end(
        self,
        cross_entropy: Tensor,
        targets: Tensor,
        tokens: Tensor | int = 0,
        keys: Sequence[str] = (),
    ) -> Tensor:
        """The loss to back-propagate: eq. 4 in training, plain cross-entropy otherwise.

        `cross_entropy` [] is the mean over `targets` [] tokens (anything finite where they are 0),
        `tokens` the number of all that were processed, for tokens/s; `keys` are the utterances'.
        """
        if not self._training:
            return cross_entropy
        # Recording ends here: what the backward pass runs again is no tap of this forward.
        taps, rows = self.recorder.take(), self._pairs
        now = self.layers, self._sentences, self.step
        loss = self.objective(cross_entropy, taps, rows, *now)
        shared = self._shared(cross_entropy.detach(), targets, loss)
        bad = ~torch.isfinite(loss.total.detach())
        record = {"shared": shared, **loss.terms, "tokens": tokens, "bad": bad, "keys": keys}
        if taps and self._diagnoses(self.step):
            record |= self.objective.diagnose(taps, rows, self.layers, self._sentences)
        self._micro.append(record)
        return loss.total

    def _shared(self, cross_entropy: Tensor, targets: Tensor, loss: AlignmentLoss) -> Tensor:
        """What `mean_record` takes apart, summed over ranks.

        On every training forward, also without pairs or targets: collectives must never differ
        between ranks.
        """
        has_targets = (targets > 0).float()
        ce = cross_entropy.float() * has_targets
        found = [value.float() for name, value in loss.terms.items() if name in self._scheduled]
        alignment = sum(found, torch.zeros_like(ce))
        aligned = torch.full_like(has_targets, bool(found))  # filled there: nothing is copied
        not_finite = (~torch.isfinite(loss.total.detach())).float()
        shared = torch.stack([ce, has_targets, alignment, aligned, not_finite])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(shared)
        return shared

    def _taught(self) -> Tensor | None:
        """The rows [R] whose activations terms take from the teacher; None: all."""
        over = [term for term in self.objective.terms if TEACHER in term.first + term.second]
        if any(term.rows == "same" for term in over):
            return None
        both = any(term.first.startswith(TEACHER) for term in over)
        return self._pairs.flatten() if both else self._pairs[:, 1]

    @property
    def layers(self) -> tuple[int, ...]:
        """Those scheduled in the current step (or micro-step): one, or without a schedule none."""
        return tuple(layer for _, layer in self._choices[-1:])

    def _diagnoses(self, step: int) -> bool:
        return self.diagnose_interval > 0 and step % self.diagnose_interval == 0

    # -- optimizer steps -----------------------------------------------------------------------

    def on_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Called by torch after any optimizer's step; ours where a training forward preceded."""
        if not self._micro:
            return
        if self._teacher is not None:
            self._teacher.follow(self.projector, self._teacher.decay)
        now, self._skipped = time.perf_counter(), 0
        self._keys[self.step] = [micro.pop("keys") for micro in self._micro]
        bad = torch.stack([micro.pop("bad") for micro in self._micro])
        record = mean_record(self._micro)
        outcomes = [mean_record([micro]) for micro in self._micro] if self._each_micro else [record]
        of = ("ce", "alignment", "aligned")
        record |= {
            "step": self.step,
            "bad": bad,
            "choices": [choice for choice, _ in self._choices],
            "outcomes": torch.stack([torch.stack([found[n] for n in of]) for found in outcomes]),
            "layers": tuple(dict.fromkeys(layer for _, layer in self._choices)),
            "lr": float(optimizer.param_groups[0]["lr"]),
            "seconds": now - (self._clock or now),
        }
        self._clock = now
        self._unread.append(start_copy_to_host(record))
        self._forget()
        self.step += 1

    def _forget(self) -> None:
        self._micro.clear()
        self._choices.clear()

    def _skip(self) -> None:
        self._micro.clear()
        if self._each_micro:
            for choice, _ in self._choices:
                self.schedule.observe(choice, math.nan)  # as if it had never been made
            self._forget()
        self._skipped += 1
        if self._skipped >= MAX_SKIPPED:
            raise NonFiniteLoss(
                f"step {self.step}: gradients in fp16 were not finite {MAX_SKIPPED} times in a "
                "row. Use bf16, or lower alignment.terms.*.weight"
            )

    def flush(self, keep: int = 0) -> None:
        """Read what is still unread, all but the last `keep`: at the end of training everything."""
        while len(self._unread) > keep:
            self._read(self._unread.pop(0))

    def _read(self, record: dict[str, Any]) -> None:
        line = numbers(record)
        names = ("choices", "outcomes", "aligned", "not_finite")
        choices, outcomes, aligned, not_finite = map(line.pop, names)
        bad, keys = line.pop("bad"), self._keys.pop(line["step"], [])
        del line["alignment"]
        line["layers"] = line["layers"] if aligned else ()  # without pairs none was aligned
        if self.schedule is not None:
            for choice, (task, alignment, compared) in zip(choices, outcomes, strict=True):
                loss = task if self.reward == "cross_entropy" else alignment
                # Where no rank had rows to compare, the loss says nothing of the layer.
                self.schedule.observe(choice, loss if compared else math.nan)
            if self._diagnoses(line["step"]):
                facts = self.schedule.statistics()["layers"].items()
                line |= {f"schedule/{k}/{n}": v for k, of in facts for n, v in of.items()}
        for name in [name for name in line if name.endswith("/marginal_error")]:
            if line[name] == 0:  # within the tolerance
                del line[name]
            else:
                remedy = "raise max_iterations or epsilon"
                _warn_once(f"{name}: sweeps ended early, the gradient is inexact; {remedy}")
        for listener in self.listeners:
            listener(dict(line))
        if not_finite:
            raise _non_finite({**line, "bad": bad}, keys)

    # -- state ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """JSON-able. The unread losses stay unread: saving must not change what comes next."""
        self._unread = [numbers(record) for record in self._unread]
        for record in self._unread:
            if record["not_finite"]:  # before weights that are NaN replace a good checkpoint
                raise _non_finite(record, self._keys[record["step"]])
        schedule = self.schedule.state_dict() if self.schedule else None
        return {"step": self.step, "schedule": schedule, "unread": self._unread}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`. Raises ValueError, and changes nothing, where it does not fit."""
        records = state.get("unread")
        if type(state.get("step")) is not int or not isinstance(records, list):
            raise ValueError("the saved state: expected a step and the losses that are unread")
        if self.schedule is not None and state.get("schedule") is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.step, self._unread = state["step"], list(state["unread"])
        self._forget()

    def save_to_carried(self) -> None:
        self.carried.write(json.dumps(self.state_dict()).encode())

    def state_from_carried(self) -> dict[str, Any]:
        """What the checkpoint that was just loaded carried; {} where that is nothing or damaged."""
        with suppress(ValueError, RecursionError):
            found = json.loads(self.carried.read() or b"{}")
            return found if isinstance(found, dict) else {}
        return {}

    def detach(self) -> None:
        """Stop listening to optimizers."""
        self._step_hook.remove()


def _non_finite(record: dict[str, Any], keys: list[Sequence[str]]) -> NonFiniteLoss:
    rank = f"rank {os.environ['RANK']}, " if "RANK" in os.environ else ""
    bad = [f"{k}={v}" for k, v in record.items() if isinstance(v, float) and not math.isfinite(v)]
    own = [key for is_bad, of in zip(record["bad"], keys, strict=False) if is_bad for key in of]
    where = f"of {', '.join(map(repr, own))}" if any(record["bad"]) else "of another rank's"
    return NonFiniteLoss(
        f"{rank}step {record['step']}: {', '.join(bad) or 'a loss'} {where}. Lower "
        "train_config.lr or alignment.terms.*.weight, use bf16 rather than fp16, and check these "
        "recordings, or their stored features; the last checkpoint is still good"
    )
