"""FLOPs and bytes of a training step, counted while the model that trains takes one without data.

torch's `FakeTensorMode` runs every operation on shapes alone: encoder, projector, LLM, loss and the
way back are the code that trains, at its true size. FLOPs are counted by the formulas of torch's
`FlopCounterMode`: products and attention, nothing elementwise. Bytes are those of the storages that
are alive, so that a peak has whatever a step holds at that moment.

    attention    takes the CPU's kernel, which keeps no scores, as a GPU's does where there is a
                 mask, and computes them once more on the way back (2.5 times the forward); it
                 knows no dropout
    values       are not there to be asked whether Sinkhorn's sweeps may stop: none is counted, they
                 are small products
    layers       of the encoder and of the LLM are alike, so the last and the last two are run, and
                 the second says what each further one adds; where the first layers are frozen and
                 the last train, a third run has one of each

Shapes, here and in the whole package: B rows (a pair is two), T encoder frames (20 ms), M mel
bands, E encoder width, S positions of the LLM, A answer positions, P pairs.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker

from slam_potsa.config.alignment import TEXT

MELS_PER_FRAME = 2  # mel frames of 10 ms an encoder frame
BATCH, LOSS, BACKWARD = "batch", "loss", "backward pass"
# By attribute of the model. The last to go back first: torch does not see that the LLM is left.
PARTS = {"encoder": "encoder", "encoder_projector": "projector", "llm": "llm"}
aten = torch.ops.aten
FORMULAS = {
    **flop_registry,
    aten.baddbmm_: flop_registry[aten.baddbmm],
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[
        aten._scaled_dot_product_flash_attention
    ],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
}
attend = F.scaled_dot_product_attention

Flops = Counter[tuple[str, str, int]]  # (part or LOSS, "forward" or "backward", bytes of a number)
Held = Counter[str]  # bytes, by what holds them: a part, BATCH, LOSS or BACKWARD
Stack = tuple[nn.Module, str, nn.ModuleList]  # owner, attribute, layers


class Batch(NamedTuple):
    """A micro-step of one GPU, padded to its longest row."""

    rows: int  # B
    pairs: int  # P
    frames: int  # T
    positions: int  # S
    answer: int  # A


def count_step(
    model: nn.Module, batch: Batch, features: int = 0, autocast: bool = False
) -> tuple[Flops, Held]:
    """FLOPs of a `SpeechLLM`'s forward and backward pass, and its bytes when there are most.

    Args:
        features: E where the encoder's output comes from a feature store; 0: from the encoder.
        autocast: products in 16 bits whatever the weights are.
    """
    stacks = _stacks(model)

    def run(first: int, last: int) -> Meter:
        with _shortened(stacks, first, last), _without_data(model) as (weights, meter):
            inputs = _inputs(model, batch, features)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                output, _accuracy = functional_call(model, weights, kwargs=inputs)
            output.loss.backward()  # with the logits still there, as SLAM-LLM's loop has them
        return meter

    def deep(part: str, *found: int) -> int:
        one, two, mixed = found
        still = idle.get(part, 0)
        further = len(stacks[part][2]) - 1 - still if part in stacks else 0
        return one + further * (two - one) + still * (mixed - one)

    idle = {part: _idle(stack) for part, (_, _, stack) in stacks.items()}
    one, two = run(0, 1), run(0, 2)
    mixed = run(1, 1) if any(idle.values()) else two
    runs = one, two, mixed
    flops = Counter({key: deep(key[0], *(r.flops[key] for r in runs)) for key in one.flops})
    moments = [
        Counter({name: deep(name, *(r.peaks[at][name] for r in runs)) for name in held})
        for at, held in one.peaks.items()
    ]
    return flops, max(moments, key=Counter.total)


def encoder_flops(encoder: nn.Module, frames: int) -> int:
    """Of one row through a `SpeechEncoder` on the meta device."""
    with _without_data(encoder) as (weights, meter), torch.no_grad():
        mel = torch.empty(1, MELS_PER_FRAME * frames, encoder.n_mels)
        functional_call(encoder, weights, mel)
    return meter.flops.total()


class Meter(TorchDispatchMode):
    """Counts what a model computes and holds within, by its parts.

    Args:
        model: the name of its class.
        weights: not counted, nor are their gradients, though operations return views of them.
        modules: says which of them is running.

    Attributes:
        peaks: of each part and direction, what is held when there is most.
    """

    def __init__(self, model: str, weights: Iterable[Tensor], modules: ModuleTracker):
        super().__init__()
        self.flops: Flops = Counter()
        self.peaks: dict[tuple[str, str], Held] = {}
        self._alive: Held = Counter()
        self._root, self._modules = model, modules
        known = [t for w in weights for t in (w, w.grad) if t is not None]
        self._known = {id(t.untyped_storage()): t.untyped_storage() for t in known}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.prim.device.default:  # asked more often than anything is computed
            return torch.device("cpu")
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        part, way = moment = self._moment()
        formula = FORMULAS.get(func.overloadpacket)
        if formula is not None:
            work = formula(*args, **kwargs, out_val=out)
            self.flops[part, way, made[0].element_size()] += work
        for tensor in made:
            self._hold(tensor, BACKWARD if self._modules.is_bw else part)
        if self._alive.total() > self.peaks.get(moment, Counter()).total():
            self.peaks[moment] = self._alive.copy()
        return out

    def _moment(self) -> tuple[str, str]:
        running, back = self._modules.parents, self._modules.is_bw
        found = (name for attr, name in PARTS.items() if f"{self._root}.{attr}" in running)
        part = next(found, LOSS if self._root in running or back else BATCH)
        return part, "backward" if back else "forward"

    def _hold(self, tensor: Tensor, holder: str) -> None:
        """Count the tensor's memory for as long as it is there, if it is new."""
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._known or not size:
            return
        self._alive[holder] += size

        def free(_reference: weakref.ref) -> None:
            del self._known[key]
            self._alive[holder] -= size

        self._known[key] = weakref.ref(storage, free)


@contextmanager
def _without_data(model: nn.Module) -> Iterator[tuple[dict[str, Tensor], Meter]]:
    """Parameters and buffers, with the gradients of the micro-step before, and what counts."""
    finished = patch.object(Tensor, "__bool__", lambda _value: False)  # asked by Sinkhorn alone
    attention = patch.object(F, "scaled_dot_product_attention", _attention)
    # Its sweeps are no products, and its shapes hang on lengths that are not there.
    ctc = patch.object(F, "ctc_loss", lambda scores, *_ids, **_how: scores.sum((0, 2)))
    with FakeTensorMode(allow_non_fake_inputs=True), attention, finished, ctc:
        weights = {}
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            weight = weights[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
            if tensor.requires_grad:
                weight.requires_grad_().grad = torch.empty_like(weight)
        name = type(model).__name__
        with ModuleTracker() as modules, Meter(name, weights.values(), modules) as meter:
            yield weights, meter


def _attention(*tensors: Tensor, dropout_p: float = 0.0, **options: Any) -> Tensor:
    return attend(*tensors, **options)


def _stacks(model: nn.Module) -> dict[str, Stack]:
    """Of encoder and LLM, the longest list of layers in it."""
    parts = {"encoder": model.encoder, "llm": model.llm}
    if any("llm." in tap for tap in _taps(model)):
        del parts["llm"]  # a term compares its layers, which must all be there
    return {name: _stack(part) for name, part in parts.items() if part is not None}


def _taps(model: nn.Module) -> set[str]:
    """What terms compare, whatever is scheduled."""
    schedule = model.controller.schedule
    return model.controller.objective.tap_names(schedule.candidates if schedule else ())


def _stack(part: nn.Module) -> Stack:
    found = ((owner, *child) for owner in part.modules() for child in owner.named_children())
    return max((s for s in found if isinstance(s[2], nn.ModuleList)), key=lambda s: len(s[2]))


def _idle(stack: nn.ModuleList) -> int:
    """How many layers are frozen of those of which others train."""
    trains = [any(p.requires_grad for p in layer.parameters()) for layer in stack]
    return trains.count(False) if any(trains) else 0


@contextmanager
def _shortened(stacks: dict[str, Stack], first: int, last: int) -> Iterator[None]:
    """Within: the first and the last layers alone."""
    with ExitStack() as restored:
        for owner, name, stack in stacks.values():
            kept = nn.ModuleList([*stack[:first], *stack[len(stack) - last :]])
            restored.enter_context(patch.dict(owner._modules, {name: kept}))
        yield


def _inputs(model: nn.Module, batch: Batch, features: int) -> dict[str, Tensor | int]:
    """As the dataset makes them."""
    text, speech = (batch.rows, batch.positions), (batch.rows, batch.frames)
    inputs = {name: torch.empty(text, dtype=torch.long) for name in ("input_ids", "labels")}
    if any(tap.startswith(TEXT) for tap in _taps(model)):  # as long as the answer; else a trifle
        inputs["transcript_ids"] = torch.empty(batch.rows, batch.answer, dtype=torch.long)
    for name in ("attention_mask", "modality_mask"):
        inputs[name] = torch.empty(text, dtype=torch.bool)
    for name in ("language_ids", "sentence_ids"):
        inputs[name] = torch.empty(batch.rows, dtype=torch.long)
    inputs["pairs"] = torch.empty(batch.pairs, 2, dtype=torch.long)
    inputs["audio_mel_post_mask"] = torch.empty(speech)
    if features:
        inputs["encoder_features"] = torch.empty(*speech, features, dtype=torch.float16)
    else:
        frames, bands = MELS_PER_FRAME * batch.frames, model.encoder.n_mels
        inputs["audio_mel"] = torch.empty(batch.rows, frames, bands)
    return {**inputs, "label_start": batch.positions - batch.answer}
