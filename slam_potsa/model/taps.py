"""Named activations of one forward pass: {name: Tap(tensor [B, N, D], mask [B, N] or None)}.

    encoder             encoder output                                           [B, T, E]
    compensated         after bias compensation                                  [B, T, E]
    qformer.{l}         output of Q-Former layer l = 1..L                        [B, N, D]
    projector           the speech tokens that the LLM receives                  [B, N, W]
    llm.0               the LLM's embeddings, as its first block receives them   [B, S, W]
    llm.{k}             output of LLM block k = 1..K, before the final norm      [B, S, W]
    speech.llm.{k}      the same, masked but for the audio slots                 [B, S, W]
    text.llm.{k}        the same of the transcript, without gradient             [B, M, W]
    text.ids            the transcript's tokens                                  [B, M, 1]
    ctc                 scores of vocabulary and blank of the speech tokens      [B, N, V + 1]
    answer              scores of each next token of the answer                  [B, A, V]
    teacher.{tap}       the same of `model.teacher`, up to its projector, without gradient
    teacher.answer      in the second row of a pair: the LLM's scores of the     [B, A, V]
                        first's answer after what the teacher makes of the second's speech

The LLM's taps hold all S positions of its input, speech and text, with its attention mask. These
are transformers' `hidden_states`, except that its last one is after the final norm.

`text.llm.{k}` is AI-STA's other side: the transcript stands where the speech stood, before the
same instruction. What follows is not seen by a causal LLM, so the pass leaves it out, and ends at
the deepest layer that is asked for. It is in evaluation mode: a target has no dropout (ours).

Only what is wanted is kept; `AlignmentObjective.tap_names` says what training wants.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from slam_potsa.config.alignment import ANSWER, SPEECH, TEACHER, TEXT
from slam_potsa.model.carried_state import CARRIED
from slam_potsa.model.llm import in_slots, unwrapped
from slam_potsa.objective.terms import Tap

WHOLE = ("encoder", "compensated", "projector", "ctc", "text.ids", ANSWER)  # without layers
LAYERED = re.compile(r"(?:(?:speech|text)\.(?=llm))?(qformer|llm)\.(\w*)")


class TapRecorder:
    """Keeps the activations asked for, by forward hooks on a model's parts.

    Hooks are the way in, not a changed forward: SLAM-LLM's model calls the projector and the LLM
    itself. They are there between `open` and `take` only. What runs a part again later, as
    activation checkpointing does in the backward pass, records nothing.

    Args:
        model: has `encoder_projector` and `llm`, as ours and SLAM-LLM's have. The projector needs
            `layers` (its blocks); `compensate(x, atts)` is called for "compensated". The LLM may be
            wrapped by peft. `teacher`, where there is one, is a `Teacher`.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self._taps: dict[str, Tap] = {}
        self._hooks: list[RemovableHandle] = []
        self._llm_mask: Tensor | None = None
        self._slots: Tensor | None = None
        self._pairs: Tensor | None = None
        self._answer_start = 0

    @contextmanager
    def recording(self, wanted: Iterable[str], *inputs: Tensor | None) -> Iterator[dict[str, Tap]]:
        """Within: the taps of the last forward. After: nothing is kept alive."""
        self.open(wanted, *inputs)
        try:
            yield self._taps
        finally:
            self.take().clear()

    def open(
        self,
        wanted: Iterable[str],
        modality_mask: Tensor | None = None,
        transcript_ids: Tensor | None = None,
        answer_start: int | None = None,
        pairs: Tensor | None = None,
    ) -> None:
        """Record these in the forward that follows.

        Args:
            modality_mask: [B, S] true at the audio slots; for `speech.*`.
            transcript_ids: [B, M] tokens, below 0 where there is none; for `text.*`.
            answer_start: the first column of answers; `pairs` [P, 2] rows; for `*answer`.

        Raises ValueError for a tap that is not there.
        """
        self.take()
        wanted, self._slots = list(wanted), modality_mask
        self._answer_start, self._pairs = answer_start or 0, pairs
        read = [name.removeprefix(TEXT) for name in wanted if name.startswith(TEXT)]
        if read:
            wanted = [name for name in wanted if not name.startswith(TEXT)]
            layers = [name for name in read if name != "ids"]
            found = self.read(layers, input_ids=transcript_ids) if layers else {}
            if "ids" in read and transcript_ids is not None:
                found["ids"] = Tap(transcript_ids[:, :, None], transcript_ids >= 0)
            self._taps |= {TEXT + name: tap for name, tap in found.items()}
        taught = [name.removeprefix(TEACHER) for name in wanted if name.startswith(TEACHER)]
        for name in wanted:
            if not name.startswith(TEACHER):
                self._hooks.append(self._hook(name))
        answers = ANSWER in taught
        if taught:
            names = dict.fromkeys("projector" if name == ANSWER else name for name in taught)
            self._hooks.append(self._teacher_hook([*names]))
        if answers:  # the last: it ends the recording
            hear = self._model.llm.register_forward_hook
            self._hooks.append(hear(self._on_taught_answer, with_kwargs=True))
        if any(name.startswith("llm.") for name in wanted):
            # On the outside: peft calls the forward of what it wraps past its hooks.
            llm = self._model.llm
            self._hooks.append(llm.register_forward_pre_hook(self._before_llm, with_kwargs=True))

    def take(self) -> dict[str, Tap]:
        """What was recorded; the recording ends, and nothing is kept here."""
        for hook in self._hooks:
            hook.remove()
        taps, self._taps, self._hooks = self._taps, {}, []
        self._llm_mask = self._slots = self._pairs = None
        return taps

    def _hook(self, name: str) -> RemovableHandle:
        projector, part = self._model.encoder_projector, name.removeprefix(SPEECH).partition(".")[0]
        if name == ANSWER:
            return self._model.llm.register_forward_hook(self._on_answer, with_kwargs=True)
        if name in WHOLE:
            return projector.register_forward_hook(partial(self._on_projector, name))
        blocks = llm_blocks(self._model.llm) if part == "llm" else projector.layers
        layer = layer_of(name, {part: len(blocks)})
        if layer == 0:
            before = partial(self._before_first_block, name)
            return blocks[0].register_forward_pre_hook(before, with_kwargs=True)
        return blocks[layer - 1].register_forward_hook(partial(self._on_block, name))

    @torch.no_grad()
    def read(
        self,
        names: list[str],
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> dict[str, Tap]:
        """Taps `llm.{k}` of tokens [B, M] (below 0: padding) or embeddings [B, M, W] alone.

        In evaluation mode. What is padded is so behind, and the LLM causal: it needs no mask.
        Nothing where neither is given. Raises ValueError for a tap that is not there.
        """
        llm, blocks = self._model.llm, llm_blocks(self._model.llm)
        deepest = max(layer_of(name, {"llm": len(blocks)}) for name in names)
        if input_ids is None and inputs_embeds is None:
            return {}
        options: dict[str, Any] = {"use_cache": False, "logits_to_keep": 1}
        options["inputs_embeds"] = inputs_embeds
        options["input_ids"] = None if input_ids is None else input_ids.clamp(min=0)
        own, mask = TapRecorder(self._model), None if input_ids is None else input_ids >= 0
        with own.recording(names) as taps, _evaluating(llm), _shortened(llm, blocks, deepest):
            llm(**options)
            return {name: Tap(tap.tensor, mask) for name, tap in taps.items()}

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
            a_token = getattr(projector, "frames_per_token", 0)  # where tokens follow the speech
            mask = mask[:, ::a_token] if a_token and mask is not None else None
            if name == "ctc":
                output = projector.ctc_head(output.to(projector.ctc_head.weight.dtype))
            self._taps[name] = Tap(output, mask)

    def _on_block(self, name: str, _block: nn.Module, _inputs, output: Any) -> None:
        # transformers 4 returns tuples from a block, transformers 5 the tensor.
        self._keep(name, output if isinstance(output, Tensor) else output[0])

    def _on_answer(self, _llm: nn.Module, _inputs, named: dict[str, Any], output: Any) -> None:
        self._taps[ANSWER] = self._answers(output.logits, named["attention_mask"])

    def _answers(self, logits: Tensor, mask: Tensor) -> Tap:
        """Scores made a column before what they are of; in no column but the last A + 1, if so."""
        mask = mask[:, self._answer_start :].bool()
        return Tap(logits[:, -1 - mask.shape[1] : -1], mask)

    @torch.no_grad()
    def _on_taught_answer(self, llm: nn.Module, _inputs, named: dict[str, Any], _output) -> None:
        """The first rows of pairs again, with the teacher's tokens of the second rows' speech."""
        for hook in self._hooks:  # this pass is no tap
            hook.remove()
        first, second = self._pairs.to(self._slots.device).unbind(1)
        taken = {k: _taken(v, first) if isinstance(v, Tensor) else v for k, v in named.items()}
        speech = self._taps[f"{TEACHER}projector"].tensor.index_select(0, second)
        slots = self._slots.index_select(0, first)
        taken["inputs_embeds"] = in_slots(taken["inputs_embeds"], speech, slots)
        found = self._answers(llm(**taken).logits, taken["attention_mask"])
        spread = (_spread(each, second, len(self._slots)) for each in found)
        self._taps[TEACHER + ANSWER] = Tap(*spread)

    def _before_first_block(self, name: str, _block: nn.Module, inputs, named: Any) -> None:
        self._keep(name, inputs[0] if inputs else named["hidden_states"])

    def _keep(self, name: str, tensor: Tensor) -> None:
        masks = {"llm": self._llm_mask, "speech": self._slots}
        self._taps[name] = Tap(tensor, masks.get(name.partition(".")[0]))

    def _before_llm(self, _llm: nn.Module, _inputs, named: dict[str, Any]) -> None:
        mask = named.get("attention_mask")
        self._llm_mask = None if mask is None else mask.bool()


def layer_of(name: str, layers: Mapping[str, int]) -> int:
    """The number in a tap's name, -1 for one without. Raises ValueError where there is no such tap.

    Args:
        layers: how many "qformer" and "llm" have, of those that are known.

    >>> layer_of("speech.llm.3", {"llm": 28}), layer_of("projector", {})
    (3, -1)
    """
    if name in WHOLE:
        return -1
    if not (found := LAYERED.fullmatch(name)):
        known = "qformer.<layer>, llm.<layer>, speech.llm.<layer> or text.llm.<layer>"
        raise ValueError(f"tap {name!r}: expected {', '.join(WHOLE)}, {known}")
    part, number = found.groups()
    lowest, highest = int(part == "qformer"), layers.get(part, 10**6)
    if not (number.isdecimal() and lowest <= int(number) <= highest):
        raise ValueError(f"tap {name!r}: this model has {part}.{lowest} to {part}.{highest}")
    return int(number)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Within: in evaluation mode. After: each part in the mode that it was in."""
    trained = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in trained:
            part.training = True


@contextmanager
def _shortened(llm: nn.Module, blocks: nn.ModuleList, count: int) -> Iterator[None]:
    """Within: the LLM has its first `count` blocks alone, one at least."""
    children = ((owner, name) for owner in llm.modules() for name in owner._modules)
    owner, name = next((o, n) for o, n in children if o._modules[n] is blocks)
    owner._modules[name] = blocks[: max(1, count)]
    try:
        yield
    finally:
        owner._modules[name] = blocks


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


class Teacher(nn.Module):
    """A projector that a training is compared with: `alignment.teacher`.

    On the speech of the same batch it gives the activations `teacher.compensated`,
    `teacher.qformer.{layer}` and `teacher.projector`, in evaluation mode and without gradients,
    whatever the trainer says. It is no part of `model.pt`. A finished one stays as it is: a
    training that is continued reads it from its own checkpoint again. An average follows the
    projector that trains, after every optimizer step by

        theta' <- d theta' + (1 - d) theta

    Source of the average: Tarvainen and Valpola, "Mean teachers are better role models" (2017).

    Args:
        decay: d of the average; None: it stays as it is.

    `rows` [R], where it is set, are those that the next forwards compute; the activations of the
    others are zero. Up to rounding, a row's own do not depend on it.
    """

    def __init__(self, projector: nn.Module, decay: float | None = None):
        super().__init__()
        self.encoder_projector = projector.requires_grad_(False)
        self.recorder, self.decay = TapRecorder(self), decay
        self.rows: Tensor | None = None
        self.train()

    def train(self, mode: bool = True) -> nn.Module:
        return super().train(False)

    @torch.no_grad()
    def follow(self, projector: nn.Module, decay: float | None) -> None:
        """Take (1 - decay) of the weights of `projector`, the same on every rank; None: nothing."""
        theirs = {} if decay is None else dict(projector.named_parameters())
        for name, own in self.encoder_projector.named_parameters():
            if name in theirs and not name.endswith(CARRIED):  # bytes, no weights
                own.lerp_(theirs[name], 1 - decay)

    @torch.no_grad()
    def taps(
        self, names: Iterable[str], language_ids: Tensor | None, *inputs: Tensor
    ) -> dict[str, Tap]:
        """The activations `names` of encoder output [B, T, E] and mask [B, T]."""
        count, rows = len(inputs[0]), self.rows
        if rows is not None:
            language_ids, *inputs = (_taken(each, rows) for each in (language_ids, *inputs))
        self.encoder_projector.set_languages(language_ids)
        self.recorder.open(names)
        self.encoder_projector(*inputs)
        taps = self.recorder.take()
        if rows is None:
            return taps
        return {name: Tap(*(_spread(each, rows, count) for each in taps[name])) for name in taps}


def _taken(each: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if each is None else each.index_select(0, rows.to(each.device))


def _spread(each: Tensor | None, rows: Tensor, count: int) -> Tensor | None:
    """[R, ...] at their places among `count` rows."""
    if each is None:
        return None
    return each.new_zeros(count, *each.shape[1:]).index_copy_(0, rows.to(each.device), each)
