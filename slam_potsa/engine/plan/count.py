"""FLOPs and bytes of a training step, counted while the model that trains takes one without data.

torch's `FakeTensorMode` runs every operation on shapes alone: encoder, projector, LLM, loss and the
way back are the code that trains, at its true size. FLOPs are counted by the formulas of torch's
`FlopCounterMode`: products and attention, nothing elementwise. Bytes are those of the storages that
are alive, so that a peak has whatever a step holds at that moment.

    attention    takes the memory-efficient kernel, as on a GPU where there is a mask: it keeps no
                 scores, and computes them once more on the way back (2.5 times the forward)
    values       are not there to be asked whether Sinkhorn's sweeps may stop: they go on to their
                 cap, as on a GPU
    layers       of the encoder and of the LLM are alike, so one and two are run, and the second
                 says what each further one adds

Shapes, here and in the whole package: B rows (a pair is two), T encoder frames (20 ms), M mel
bands, E encoder width, S positions of the LLM, A answer positions, P pairs.
"""

from __future__ import annotations

import weakref
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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

MELS_PER_FRAME = 2  # mel frames of 10 ms an encoder frame
MANY = 10_007  # items of the batch whose bytes are followed: a prime, so that it shows in a size
BATCH, LOSS, BACKWARD = "batch", "loss", "backward pass"
# By attribute of the model. The last to go back first: torch does not see that the LLM is left.
PARTS = {"encoder": "encoder", "encoder_projector": "projector", "llm": "llm"}
ROWS = (BATCH, *PARTS.values(), LOSS, BACKWARD)
FORMULAS = {**flop_registry, torch.ops.aten.baddbmm_: flop_registry[torch.ops.aten.baddbmm]}

Flops = Counter[tuple[str, str, int]]  # (part or LOSS, "forward" or "backward", bytes of a number)


@dataclass(frozen=True)
class Batch:
    """A micro-step of one GPU, padded to its longest row."""

    rows: int  # B
    pairs: int  # P
    frames: int  # T
    positions: int  # S
    answer: int  # A


@dataclass(frozen=True)
class Held:
    """Bytes alive in a step, as they grow with the items of its batch and with the layers.

    Attributes:
        traces: of one layer and of two; {(part, direction): [moments, ROWS, 3]}, in the last
            dimension what does not grow, what grows with the items, and with their square.
        depth: [ROWS], layers.
    """

    traces: Sequence[dict[tuple[str, str], Tensor]]
    depth: Tensor

    def peak(self, items: int) -> dict[str, int]:
        """Bytes by what holds them, at the moment when there are most."""
        powers = torch.tensor([1.0, items, items**2], dtype=torch.float64)
        one, two = ({k: _most(t @ powers) for k, t in trace.items()} for trace in self.traces)
        moments = [one[key] + (self.depth - 1) * (two[key] - one[key]) for key in one]
        most = max(moments, key=lambda sizes: sizes.sum().item())
        return {name: round(size) for name, size in zip(ROWS, most.tolist(), strict=True)}


class TrainingStep:
    """Forward and backward pass of a `SpeechLLM` on the meta device.

    Args:
        features: E where the encoder's output comes from a feature store; 0: from the encoder.
        autocast: products in 16 bits whatever the weights are.
    """

    def __init__(self, model: nn.Module, features: int, autocast: bool):
        self.model, self.features, self.autocast = model, features, autocast
        parts = {"encoder": model.encoder, "llm": model.llm}
        taps = model.controller.objective.tap_names(
            range(1, model.encoder_projector.num_layers + 1)
        )
        if any(tap.startswith("llm.") for tap in taps):
            del parts["llm"]  # a term compares its layers, which must all be there
        self._stacks = {name: _stack(part) for name, part in parts.items() if part is not None}

    def flops(self, batch: Batch) -> Flops:
        """By part, direction and precision."""
        one, two = (self._run(batch, layers, sweeps=layers == 1).flops for layers in (1, 2))
        deep = [key for key in one if key[0] in self._stacks]  # Sinkhorn swept in the first alone
        return one + Counter({k: (self._depth(k[0]) - 1) * (two[k] - one[k]) for k in deep})

    def held(self, batch: Batch) -> Held:
        """`batch` has MANY items."""
        depth = torch.tensor([float(self._depth(name)) for name in ROWS])
        return Held([self._run(batch, n, sweeps=False).trace() for n in (1, 2)], depth)

    def _depth(self, part: str) -> int:
        return len(self._stacks[part][2]) if part in self._stacks else 1

    def _run(self, batch: Batch, layers: int, *, sweeps: bool) -> Meter:
        shortened = _shortened(list(self._stacks.values()), layers)
        with shortened, _without_data(self.model, sweeps) as (weights, meter):
            inputs = _inputs(self.model, batch, self.features)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
                output, _accuracy = functional_call(self.model, weights, kwargs=inputs)
            output.loss.backward()  # with the logits still there, as SLAM-LLM's loop has them
        return meter


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
    """

    def __init__(self, model: str, weights: Iterable[Tensor]):
        super().__init__()
        self.flops: Flops = Counter()
        self._root, self._modules = model, ModuleTracker()
        known = [t for w in weights for t in (w, w.grad) if t is not None]
        self._known = {id(t.untyped_storage()): t.untyped_storage() for t in known}
        self._alive: Counter[tuple[str, int]] = Counter()  # (row, degree of growth)
        self._moments = defaultdict(list)  # by part and direction

    def __enter__(self) -> Meter:
        self._modules.__enter__()
        return super().__enter__()

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self._modules.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.prim.device.default:  # asked more often than anything is computed
            return torch.device("cpu")
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        part, way = self._part(), "backward" if self._modules.is_bw else "forward"
        formula = FORMULAS.get(func.overloadpacket)
        if formula is not None:
            work = formula(*args, **kwargs, out_val=out)
            self.flops[part, way, made[0].element_size()] += work
        row = BACKWARD if self._modules.is_bw else part
        if any([self._hold(tensor, row) for tensor in made]):
            self._moments[part, way].append(dict(self._alive))
        return out

    def trace(self) -> dict[tuple[str, str], Tensor]:
        """As `Held` has it, of a batch of MANY items."""
        traces = {
            key: [
                [[alive.get((row, n), 0) / MANY**n for n in range(3)] for row in ROWS]
                for alive in moments
            ]
            for key, moments in self._moments.items()
        }
        return {key: torch.tensor(trace, dtype=torch.float64) for key, trace in traces.items()}

    def _part(self) -> str:
        running = self._modules.parents
        found = (name for attr, name in PARTS.items() if f"{self._root}.{attr}" in running)
        return next(found, LOSS if self._root in running or self._modules.is_bw else BATCH)

    def _hold(self, tensor: Tensor, row: str) -> bool:
        """Whether the tensor's memory is new."""
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._known or not size:
            return False
        kind = row, (size % MANY == 0) + (size % MANY**2 == 0)
        self._alive[kind] += size

        def free(_reference: weakref.ref) -> None:
            del self._known[key]
            self._alive[kind] -= size

        self._known[key] = weakref.ref(storage, free)
        return True


@contextmanager
def _without_data(
    model: nn.Module, sweeps: bool = False
) -> Iterator[tuple[dict[str, Tensor], Meter]]:
    """Parameters and buffers, with the gradients of the micro-step before, and what counts.

    Args:
        sweeps: the answer to Sinkhorn's question whether it is unfinished, the only one of values.
    """
    attention = patch.object(F, "scaled_dot_product_attention", _attention)
    unfinished = patch.object(Tensor, "__bool__", lambda _value: sweeps)
    with FakeTensorMode(allow_non_fake_inputs=True), attention, unfinished:
        weights = {}
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            weight = weights[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
            if tensor.requires_grad:
                weight.requires_grad_().grad = torch.empty_like(weight)
        with Meter(type(model).__name__, weights.values()) as meter:
            yield weights, meter


def _most(sizes: Tensor) -> Tensor:
    """[ROWS] at the moment, of [moments, ROWS], when most is held."""
    return sizes[sizes.sum(1).argmax()]


Stack = tuple[nn.Module, str, nn.ModuleList]  # owner, attribute, layers


def _stack(part: nn.Module) -> Stack:
    """The layers of a part, the longest list in it."""
    found = ((owner, *child) for owner in part.modules() for child in owner.named_children())
    return max((s for s in found if isinstance(s[2], nn.ModuleList)), key=lambda s: len(s[2]))


@contextmanager
def _shortened(stacks: Sequence[Stack], layers: int) -> Iterator[None]:
    for owner, name, stack in stacks:
        setattr(owner, name, stack[:layers])
    try:
        yield
    finally:
        for owner, name, stack in stacks:
            setattr(owner, name, stack)


def _inputs(model: nn.Module, batch: Batch, features: int) -> dict[str, Tensor | int]:
    """As the dataset makes them."""
    text, speech = (batch.rows, batch.positions), (batch.rows, batch.frames)
    inputs = {name: torch.empty(text, dtype=torch.long) for name in ("input_ids", "labels")}
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


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_options: bool,
) -> Tensor:
    """As a GPU with a mask does it: the mask becomes numbers to add, in rows of a multiple of 8."""
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (t.to(torch.get_autocast_dtype("cpu")) for t in (query, key, value))
    bias = None
    if attn_mask is not None:
        columns = key.shape[-2]
        bias = query.new_zeros(*attn_mask.shape[:-1], -(-columns // 8) * 8)[..., :columns]
        bias = bias.expand(*query.shape[:-1], columns)
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    return kernel(query, key, value, bias, True, dropout_p, is_causal, scale=scale)[0]
