"""FLOPs and bytes of a training step, counted while the model that trains takes one without data.

The model is built at its true size on torch's meta device: every shape, no memory, no weights.
torch's `FakeTensorMode` runs every operation on shapes alone: encoder, projector, LLM, loss and the
way back are the code that trains, at its true size. FLOPs are counted by the formulas of torch's
`FlopCounterMode`: products and attention, nothing elementwise. Bytes are those of the storages that
are alive, so that a peak has whatever a step holds at that moment.

    attention    takes the CPU's kernel, which keeps no scores, as a GPU's does where there is a
                 mask, and computes them once more on the way back (2.5 times the forward); it
                 knows no dropout
    values       are not there to be asked whether Sinkhorn's sweeps may stop: none is counted, they
                 are small products

Shapes, here and in the whole package: B rows (a pair is two), T encoder frames (20 ms), M mel
bands, E encoder width, S positions of the LLM, A answer positions, P pairs.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
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

from slam_potsa.config import PotsaConfig
from slam_potsa.config.alignment import TEXT
from slam_potsa.engine import deepspeed
from slam_potsa.engine.prepare import check_mels
from slam_potsa.errors import InputError, collecting, refuse
from slam_potsa.model.encoder import SpeechEncoder, adapt_encoder
from slam_potsa.model.factory import (
    adapt_projector,
    build_controller,
    build_projector,
)
from slam_potsa.model.language_bias import LanguageBias
from slam_potsa.model.llm import adapt_llm, model_config
from slam_potsa.model.speech_llm import SpeechLLM
from slam_potsa.model.taps import Teacher

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


class Batch(NamedTuple):
    """A micro-step of one GPU, padded to its longest row."""

    rows: int  # B
    pairs: int  # P
    frames: int  # T
    positions: int  # S
    answer: int  # A
    answered: int  # rows with an answer to learn: the LLM reads no others, unless a term is over it


# -- the model -------------------------------------------------------------------------------------


class MetaModel(NamedTuple):
    """What would train, and the encoder of its features, loaded or not."""

    model: SpeechLLM
    encoder: SpeechEncoder
    autocast: bool  # whether products are in 16 bits whatever the weights are

    def total(self, of: Callable[[Tensor], int]) -> dict[str, int]:
        """By part, the sum over parameters and buffers, a shared one once."""
        parts = {name: getattr(self.model, attribute) for attribute, name in PARTS.items()}
        return {
            name: sum(map(of, [*part.parameters(), *part.buffers()])) if part is not None else 0
            for name, part in parts.items()
        }


def build_on_meta(config: PotsaConfig, languages: Iterable[str] = ("en",)) -> MetaModel:
    """What `model_factory` would build on a GPU, without a weight.

    Args:
        languages: those that biases would be estimated of.

    Raises InputError with everything that does not fit: unknown models, widths, mel bands, layers.
    """
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    model, train = config.model_config, config.train_config
    whisper, decoder = _sizes(config)
    table = {language: torch.zeros(whisper.d_model) for language in languages}
    trained = config.language_bias.trained
    bias = LanguageBias(table, trained=trained) if config.language_bias.enabled else None
    half = torch.bfloat16 if model.llm_dtype == "auto" else getattr(torch, model.llm_dtype)
    with torch.device("meta"):
        encoder = SpeechEncoder(WhisperEncoder(whisper), model.encoder_window)
        encoder = adapt_encoder(encoder, train.encoder_layers, half)
        llm = _llm(decoder, config, half if train.freeze_llm else torch.float32)
        widths = whisper.d_model, decoder.hidden_size
        projector = build_projector(model, *widths, language_bias=bias)
        adapt_projector(projector, train)
        teacher = Teacher(build_projector(model, *widths)) if config.alignment.teacher else None
    built = SpeechLLM(encoder if model.load_encoder else None, projector, llm, None)
    built.teacher = teacher
    # A diagnosis asks what the values are, and is no part of most steps.
    built.controller = build_controller(built, replace(config.alignment, diagnose_interval=0))
    built.controller.detach()
    autocast = config.native.bf16 or train.use_fp16
    if train.enable_deepspeed:
        settings = deepspeed.read_settings(config.deepspeed_config)
        if any(deepspeed.enabled(settings, name) for name in ("fp16", "bf16")):
            built, autocast = built.to(torch.bfloat16), False
    return MetaModel(built.train(), encoder, autocast)


def _sizes(config: PotsaConfig) -> tuple[Any, Any]:
    """transformers' configurations of encoder and LLM."""
    model, problems = config.model_config, []
    with collecting(problems):
        whisper = model_config(model.encoder_path_hf, "model_config.encoder_path_hf", "whisper")
        if whisper.model_type != "whisper":
            raise InputError(f"model_config.encoder_path_hf={model.encoder_path_hf!r}: no Whisper")
        check_mels(config, whisper.num_mel_bins)
    with collecting(problems):
        decoder = model_config(model.llm_path, "model_config.llm_path", "qwen2")
    refuse(problems)
    return whisper, decoder


def _llm(decoder: Any, config: PotsaConfig, dtype: torch.dtype) -> nn.Module:
    from transformers import AutoModelForCausalLM

    llm = AutoModelForCausalLM.from_config(decoder, dtype=dtype)
    if config.train_config.quantization:
        head = llm.get_output_embeddings()
        for owner in list(llm.modules()):
            for name, linear in owner.named_children():
                if isinstance(linear, nn.Linear) and linear is not head:
                    setattr(owner, name, _EightBit(linear))
    return adapt_llm(llm, config.train_config)


class _EightBit(nn.Linear):
    """LLM.int8 as bitsandbytes has it: a byte a weight, a float32 scale an output row."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear.in_features, linear.out_features, bias=False)
        weight = torch.empty_like(linear.weight, dtype=torch.int8)
        self.weight, self.bias = nn.Parameter(weight, requires_grad=False), linear.bias
        self.register_buffer("scale", torch.empty(linear.out_features))

    def forward(self, x: Tensor) -> Tensor:
        product = _EightBitProduct.apply(x, self.weight)
        return product if self.bias is None else product + self.bias


class _EightBitProduct(torch.autograd.Function):
    """Keeps its input although no weight trains."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight.to(x.dtype))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        _x, weight = ctx.saved_tensors
        return gradient @ weight.to(gradient.dtype), None


# -- a step of it ----------------------------------------------------------------------------------


def count_step(
    model: nn.Module, batch: Batch, features: int = 0, autocast: bool = False
) -> tuple[Flops, Held]:
    """FLOPs of a `SpeechLLM`'s forward and backward pass, and its bytes when there are most.

    Args:
        features: E where the encoder's output comes from a feature store; 0: from the encoder.
        autocast: products in 16 bits whatever the weights are.
    """
    with _without_data(model) as (weights, meter):
        inputs = _inputs(model, batch, features)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output, _accuracy = functional_call(model, weights, kwargs=inputs)
        output.loss.backward()  # with the logits still there, as SLAM-LLM's loop has them
    return meter.flops, meter.peak


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
        peak: what is held when there is most.
    """

    def __init__(self, model: str, weights: Iterable[Tensor], modules: ModuleTracker):
        super().__init__()
        self.flops: Flops = Counter()
        self.peak: Held = Counter()
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
        part, way = self._moment()
        formula = FORMULAS.get(func.overloadpacket)
        if formula is not None:
            work = formula(*args, **kwargs, out_val=out)
            self.flops[part, way, made[0].element_size()] += work
        for tensor in made:
            self._hold(tensor, BACKWARD if self._modules.is_bw else part)
        if self._alive.total() > self.peak.total():
            self.peak = self._alive.copy()
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


def _inputs(model: nn.Module, batch: Batch, features: int) -> dict[str, Tensor | int]:
    """As the dataset makes them."""
    text, speech = (batch.rows, batch.positions), (batch.rows, batch.frames)
    inputs = {name: torch.empty(text, dtype=torch.long) for name in ("input_ids", "labels")}
    controller = model.controller
    layers = controller.schedule.candidates if controller.schedule else ()
    if any(tap.startswith(TEXT) for tap in controller.objective.tap_names(layers)):
        # As long as the answer; else a trifle.
        inputs["transcript_ids"] = torch.empty(batch.rows, batch.answer, dtype=torch.long)
    for name in ("attention_mask", "modality_mask"):
        inputs[name] = torch.empty(text, dtype=torch.bool)
    for name in ("language_ids", "sentence_ids"):
        inputs[name] = torch.empty(batch.rows, dtype=torch.long)
    if batch.answered < batch.rows:
        inputs["answered"] = torch.empty(batch.answered, dtype=torch.long)
    inputs["pairs"] = torch.empty(batch.pairs, 2, dtype=torch.long)
    inputs["audio_mel_post_mask"] = torch.empty(speech)
    if features:
        inputs["encoder_features"] = torch.empty(*speech, features, dtype=torch.float16)
    else:
        frames, bands = MELS_PER_FRAME * batch.frames, model.encoder.n_mels
        inputs["audio_mel"] = torch.empty(batch.rows, frames, bands)
    return {**inputs, "label_start": batch.positions - batch.answer}
