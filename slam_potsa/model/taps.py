"""Named activations of one forward pass: {name: Tap(tensor [B, N, D], mask [B, N] or None)}.

    encoder             encoder output                                           [B, T, E]
    compensated         after bias compensation                                  [B, T, E]
    qformer.{l}         output of Q-Former layer l = 1..L                        [B, N, D]
    projector           the speech tokens that the LLM receives                  [B, N, W]
    llm.0               the LLM's embeddings, as its first block receives them   [B, S, W]
    llm.{k}             output of LLM block k = 1..K, before the final norm      [B, S, W]
    teacher.{tap}       the same of `model.teacher`, up to its projector, without gradient

The LLM's taps hold all S positions of its input, speech and text, with its attention mask. These
are transformers' `hidden_states`, except that its last one is after the final norm.

Only what is wanted is kept; `AlignmentObjective.tap_names` says what training wants.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from slam_potsa.config.alignment import TEACHER
from slam_potsa.model.llm import unwrapped
from slam_potsa.objective.terms import Tap


class TapRecorder:
    """Keeps the activations asked for, by forward hooks on a model's parts.

    Hooks are the way in, not a changed forward: SLAM-LLM's model calls the projector and the LLM
    itself. They are there between `open` and `take` only. What runs a part again later, as
    activation checkpointing does in the backward pass, records nothing.

    Args:
        model: has `encoder_projector` and `llm`, as ours and SLAM-LLM's have. The projector needs
            `layers` (its blocks); `compensate(x, atts)` is called for "compensated". The LLM may be
            wrapped by peft. `teacher`, where there is one, is a `teacher.Teacher`.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self._taps: dict[str, Tap] = {}
        self._hooks: list[RemovableHandle] = []
        self._llm_mask: Tensor | None = None

    @contextmanager
    def recording(self, wanted: Iterable[str]) -> Iterator[dict[str, Tap]]:
        """Within: the taps of the last forward. After: nothing is kept alive."""
        self.open(wanted)
        try:
            yield self._taps
        finally:
            self.take().clear()

    def open(self, wanted: Iterable[str]) -> None:
        """Record these in the forward that follows. Raises ValueError for one that is not there."""
        self.take()
        wanted = list(wanted)
        taught = [name.removeprefix(TEACHER) for name in wanted if name.startswith(TEACHER)]
        for name in wanted:
            if not name.startswith(TEACHER):
                self._hooks.append(self._hook(name))
        if taught:
            self._hooks.append(self._teacher_hook(taught))
        if any(name.startswith("llm.") for name in wanted):
            # On the outside: peft calls the forward of what it wraps past its hooks.
            llm = self._model.llm
            self._hooks.append(llm.register_forward_pre_hook(self._before_llm, with_kwargs=True))

    def take(self) -> dict[str, Tap]:
        """What was recorded; the recording ends, and nothing is kept here."""
        for hook in self._hooks:
            hook.remove()
        taps, self._taps, self._hooks, self._llm_mask = self._taps, {}, [], None
        return taps

    def _hook(self, name: str) -> RemovableHandle:
        projector, (part, _, number) = self._model.encoder_projector, name.partition(".")
        if name in ("encoder", "compensated", "projector"):
            return projector.register_forward_hook(partial(self._on_projector, name))
        if part not in ("qformer", "llm"):
            raise ValueError(
                f"tap {name!r}: expected encoder, compensated, qformer.<layer>, projector or "
                "llm.<layer>"
            )
        blocks = projector.layers if part == "qformer" else llm_blocks(self._model.llm)
        lowest = 1 if part == "qformer" else 0
        if not (number.isdecimal() and lowest <= int(number) <= len(blocks)):
            raise ValueError(
                f"tap {name!r}: this model has {part}.{lowest} to {part}.{len(blocks)}"
            )
        if name == "llm.0":
            return blocks[0].register_forward_pre_hook(self._before_first_block, with_kwargs=True)
        return blocks[int(number) - 1].register_forward_hook(partial(self._on_block, name))

    def _teacher_hook(self, names: list[str]) -> RemovableHandle:
        if getattr(self._model, "teacher", None) is None:
            raise ValueError(f"tap teacher.{names[0]}: this model has no teacher")
        with self._model.teacher.recorder.recording(names):
            pass  # all of them are there
        return self._model.encoder_projector.register_forward_hook(partial(self._on_taught, names))

    def _on_taught(self, names: list[str], projector: nn.Module, inputs, _output) -> None:
        taps = self._model.teacher.taps(names, projector.language_ids, *inputs)
        self._taps |= {TEACHER + name: tap for name, tap in taps.items()}

    def _on_projector(self, name: str, projector: nn.Module, inputs, output: Tensor) -> None:
        features, mask = inputs[0], inputs[1] if len(inputs) > 1 else None
        mask = None if mask is None else mask.bool()
        if name == "encoder":
            self._taps[name] = Tap(features, mask)
        elif name == "compensated":
            self._taps[name] = Tap(projector.compensate(features, mask), mask)
        else:
            self._taps[name] = Tap(output, None)

    def _on_block(self, name: str, _block: nn.Module, _inputs, output: Any) -> None:
        # transformers 4 returns tuples from a block, transformers 5 the tensor.
        tensor = output if isinstance(output, Tensor) else output[0]
        self._taps[name] = Tap(tensor, self._llm_mask if name.startswith("llm.") else None)

    def _before_first_block(self, _block: nn.Module, inputs, named: dict[str, Any]) -> None:
        self._taps["llm.0"] = Tap(inputs[0] if inputs else named["hidden_states"], self._llm_mask)

    def _before_llm(self, _llm: nn.Module, _inputs, named: dict[str, Any]) -> None:
        mask = named.get("attention_mask")
        self._llm_mask = None if mask is None else mask.bool()


def llm_blocks(llm: nn.Module) -> nn.ModuleList:
    """The K blocks of a transformers decoder, also inside peft's wrapper.

    The name of their list differs from model to model; its length is the configuration's.
    """
    count = unwrapped(llm).config.get_text_config().num_hidden_layers
    lists = (part for part in llm.modules() if isinstance(part, nn.ModuleList))
    blocks = next((blocks for blocks in lists if len(blocks) == count), None)
    if blocks is None:
        raise ValueError(f"taps of the LLM: {type(llm).__name__} has no list of its {count} blocks")
    return blocks
