"""Speech encoder + projector + LLM, with SLAM-LLM's module names, inputs and outputs.

Shapes: B rows, S positions of the LLM, A answer positions, N query tokens, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from slam_potsa.config import DecodeConfig
from slam_potsa.data.pairs import EpochCounter
from slam_potsa.errors import InputError
from slam_potsa.model.carried_state import CARRIED
from slam_potsa.model.controller import AlignmentController
from slam_potsa.model.llm import in_slots, unwrapped

IGNORE_INDEX = -100
GENERATE_OPTIONS = {spec.name for spec in fields(DecodeConfig)} - {"cross_entropy"}
GENERATE_OPTIONS |= {"min_length", "return_dict_in_generate", "output_scores", "streamer"}
CHUNK = 2**25  # logits in float32 at once, 128 MiB
WIDTH = 64  # columns of the LLM's input, in decoding in half precision: a multiple of it


class Aligned:
    """What our model shares with SLAM-LLM's: a controller, by `factory.attach`, and its modes."""

    controller: AlignmentController
    epochs: EpochCounter | None = None  # where the trainer tells no epochs

    def train(self, mode: bool = True) -> nn.Module:
        """As torch's; where `epochs` counts, the trainer's call tells that an epoch begins."""
        if self.epochs is not None:
            self.epochs.mode_set(mode)
        return self._set_mode(mode)

    def _set_mode(self, mode: bool) -> nn.Module:
        return super().train(mode)

    def _is_training_step(self, labels: Tensor | None) -> bool:
        """Gradients and labels; `training` says nothing after a validation of SLAM-LLM's."""
        is_step = torch.is_grad_enabled() and labels is not None
        if is_step and not self.encoder_projector.training:
            self._set_mode(True)  # it leaves the model in evaluation mode
        return is_step


class SpeechLLM(Aligned, nn.Module):
    """A speech LLM whose loss is eq. 4 in training and plain cross-entropy otherwise.

    Modules `encoder`, `encoder_projector`, `llm` and attribute `tokenizer` are named as SLAM-LLM's.
    What is frozen stays in evaluation mode whatever the trainer says.

    Args:
        encoder: [B, F, M] mel, [B, T] mask -> [B, T, E]; may be None when every batch brings
            `encoder_features`.
        encoder_projector: [B, T, E], [B, T] -> [B, N, W].
        llm: any transformers causal LM that takes `inputs_embeds` (also wrapped by peft).
        decode: default arguments of `generate`.
    """

    # Hugging Face's Trainer: do not pass num_items_in_batch, divide by the accumulation steps.
    accepts_loss_kwargs = False

    def __init__(
        self,
        encoder: nn.Module | None,
        encoder_projector: nn.Module,
        llm: nn.Module,
        tokenizer: Any,
        decode: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.encoder, self.encoder_projector, self.llm = encoder, encoder_projector, llm
        self.tokenizer, self.decode = tokenizer, dict(decode or {})
        self.teacher: nn.Module | None = None  # see `teacher`; set by the factory
        accepted = inspect.signature(unwrapped(llm).forward).parameters
        self._takes_positions = "position_ids" in accepted  # BLOOM has none

    def _set_mode(self, mode: bool) -> nn.Module:
        super()._set_mode(mode)
        for part in (self.encoder, self.encoder_projector, self.llm):
            if part is not None and not _trained(part):
                part.eval()
        return self

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        modality_mask: Tensor | None = None,
        labels: Tensor | None = None,
        audio_mel: Tensor | None = None,
        audio_mel_post_mask: Tensor | None = None,
        encoder_features: Tensor | None = None,
        language_ids: Tensor | None = None,
        pairs: Tensor | None = None,
        sentence_ids: Tensor | None = None,
        label_start: int | None = None,
        answered: Tensor | None = None,
        transcript_ids: Tensor | None = None,
        heard: Tensor | None = None,
        keys: Sequence[str] = (),
        **_unused: Any,
    ) -> tuple[Any, Tensor]:
        """`(ModelOutput(loss, logits), accuracy)`, as SLAM-LLM's trainers unpack it.

        Args:
            input_ids, attention_mask, modality_mask, labels: [B, S]; `modality_mask` marks the one
                run of audio slots of a row, `labels` are -100 where there is nothing to learn.
            audio_mel [B, F, M] or encoder_features [B, T, E]; audio_mel_post_mask [B, T].
            language_ids: [B]; pairs: [P, 2] rows with the same meaning; sentence_ids: [B].
            label_start: first column with a label; without it, it is looked up on the device.
            answered: [R] the rows that have labels; None: all. The LLM reads no others, unless a
                term of alignment compares what it makes of them.
            heard: [R] the rows whose speech is encoded; None: all. The others are text alone.
            transcript_ids: [B, M] tokens of what is said, below 0 behind them; for `text.*` taps.

        Logits exist at label positions only, [B, A, V], or [R, A, V].
        """
        from transformers.modeling_outputs import CausalLMOutput

        training = self._is_training_step(labels)
        labels = torch.full_like(input_ids, IGNORE_INDEX) if labels is None else labels
        start = _first_label(labels) if label_start is None else label_start
        text = modality_mask, transcript_ids, start
        self.controller.begin(language_ids, pairs, training, sentence_ids, *text)
        speech = audio_mel, audio_mel_post_mask, encoder_features
        embeds = self._embed(input_ids, modality_mask, *speech, heard)
        if answered is not None and not self.controller.reads_llm:
            embeds, attention_mask, labels = (
                rows.index_select(0, answered) for rows in (embeds, attention_mask, labels)
            )
        logits = self._logits(embeds, attention_mask, start)
        answer = labels[:, start:]
        cross_entropy, targets = _cross_entropy(logits, answer)
        loss = self.controller.end(cross_entropy, targets, attention_mask.sum(), keys)
        return CausalLMOutput(loss=loss, logits=logits), _accuracy(logits, answer, targets)

    @torch.no_grad()
    def sentence_losses(
        self,
        answer_ids: Sequence[Sequence[int]],
        input_ids: Tensor,
        attention_mask: Tensor,
        modality_mask: Tensor,
        **speech: Any,
    ) -> Tensor:
        """Mean cross-entropy of each row's true answer [B], in nats a token; NaN without one.

        Args:
            answer_ids: of each row, B lists; the others are those of `generate`.
        """
        ids = [torch.tensor(row, dtype=torch.long) for row in answer_ids]
        answers = pad_sequence(ids, batch_first=True, padding_value=IGNORE_INDEX)
        answers = answers.to(input_ids.device)
        start, there = input_ids.shape[1], answers != IGNORE_INDEX
        output, _ = self(
            torch.cat([input_ids, answers], 1),
            torch.cat([attention_mask, there], 1),
            F.pad(modality_mask, (0, answers.shape[1])),
            F.pad(answers, (start, 0), value=IGNORE_INDEX),
            label_start=start,
            **speech,
        )
        classes = output.logits.float().transpose(1, 2)
        losses = F.cross_entropy(classes, answers, ignore_index=IGNORE_INDEX, reduction="none")
        return losses.sum(1) / there.sum(1)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        modality_mask: Tensor | None = None,
        audio_mel: Tensor | None = None,
        audio_mel_post_mask: Tensor | None = None,
        encoder_features: Tensor | None = None,
        language_ids: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """New tokens only, [B, n]. Those of GENERATE_OPTIONS that are given override `decode`.

        What else comes is a key of the batch. With `num_return_sequences=k` [B k, n], the answers
        of a row best first; with `return_dict_in_generate` transformers' output object. A row's
        answer does not depend on the others up to rounding: left padding is not counted.
        """
        from slam_potsa.model.beam_cache import of_beams

        self.controller.begin(language_ids)
        speech = audio_mel, audio_mel_post_mask, encoder_features
        embeds = self._embed(input_ids, modality_mask, *speech)
        embeds, attention_mask = self._widened(embeds, attention_mask)
        known = {**self.decode, **{k: v for k, v in options.items() if k in GENERATE_OPTIONS}}
        if known.get("num_beams", 1) == 1:
            known.pop("length_penalty", None)  # beam scores only: transformers warns
        elif self._takes_positions:
            # Transformers reads all of it once a beam, and it is longer than most answers.
            read = self._read(embeds[:, :-1], attention_mask[:, :-1], 1, use_cache=True)
            known["past_key_values"] = of_beams(read.past_key_values, known["num_beams"])
        return self.llm.generate(
            inputs_embeds=embeds,
            attention_mask=attention_mask.long(),
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
            do_sample=False,
            **known,
        )

    def project(
        self,
        audio_mel: Tensor | None = None,
        audio_mel_post_mask: Tensor | None = None,
        encoder_features: Tensor | None = None,
        language_ids: Tensor | None = None,
        heard: Tensor | None = None,
    ) -> Tensor:
        """Speech tokens [B, N, W] as the LLM receives them, of mel or of stored features."""
        if language_ids is not None:
            self.encoder_projector.set_languages(language_ids)
        if encoder_features is not None:
            features = encoder_features.to(next(self.encoder_projector.parameters()).dtype)
        elif self.encoder is None:
            raise InputError(
                "the model was built without its encoder, but the batch has no encoder_features: "
                "set dataset_config.feature_store"
            )
        else:
            with torch.set_grad_enabled(torch.is_grad_enabled() and bool(_trained(self.encoder))):
                features = self._encode(audio_mel, audio_mel_post_mask, heard)
        return self.encoder_projector(features, audio_mel_post_mask)

    def _encode(self, mel: Tensor, mask: Tensor, heard: Tensor | None) -> Tensor:
        if heard is None:
            return self.encoder(mel, mask)
        found = self.encoder(mel[heard], mask[heard])  # zero in the others, which are text alone
        return found.new_zeros(len(mel), *found.shape[1:]).index_copy(0, heard, found)

    def _embed(self, input_ids, modality_mask, mel, post_mask, features, heard=None) -> Tensor:
        """LLM inputs [B, S, W]: text embeddings, with the speech tokens in the audio slots."""
        # Clamped: the caller's ids are -1 at audio slots, and stay as they are.
        text = unwrapped(self.llm).get_input_embeddings()(input_ids.clamp(min=0))
        if mel is None and features is None:
            return text
        speech = self.project(mel, post_mask, features, heard=heard)
        return in_slots(text, speech, modality_mask)

    def _widened(self, embeds: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S', W] and [B, S']: one more pad column on the left at least.

        A row alone is then computed as in a batch: with a mask (transformers drops one of ones, and
        attention takes another kernel). In half precision S' is a multiple of WIDTH too: mostly the
        same columns, so that sums are rounded alike, which decides between tokens that are equally
        probable.
        """
        if not self._takes_positions:
            return embeds, attention_mask
        width = 1 if embeds.dtype == torch.float32 else WIDTH
        pad = width - embeds.shape[1] % width
        return F.pad(embeds, (0, 0, pad, 0)), F.pad(attention_mask, (pad, 0))

    def _logits(self, embeds: Tensor, attention_mask: Tensor, start: int) -> Tensor:
        """[B, A, V]: the predictions of columns start..S-1, made at start-1..S-2."""
        wanted = embeds.shape[1] - start + 1
        return self._read(embeds, attention_mask, wanted).logits[:, -wanted:-1]

    def _read(
        self, embeds: Tensor, attention_mask: Tensor, wanted: int, use_cache: bool = False
    ) -> Any:
        """The LLM's output; of logits the last `wanted` columns."""
        extra: dict[str, Any] = {"logits_to_keep": wanted, "use_cache": use_cache}
        if self._takes_positions:
            # As generate() counts them: left padding must not shift a row's positions.
            extra["position_ids"] = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
        mask = attention_mask.long()
        return self.llm(inputs_embeds=embeds, attention_mask=mask, **extra)


def _trained(part: nn.Module) -> list[nn.Parameter]:
    """The parameters that train; the carried state never does."""
    return [p for n, p in part.named_parameters() if p.requires_grad and not n.endswith(CARRIED)]


def _first_label(labels: Tensor) -> int:
    columns = (labels != IGNORE_INDEX).any(0)
    return int(columns.int().argmax()) if bool(columns.any()) else labels.shape[1] - 1


def _cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over target tokens, in float32; 0 (still differentiable) where there is none.

    [B A, V] in float32 is the largest tensor of a step with an LLM of 152,000 words: beyond CHUNK
    it is made a part at a time, and again for each part's gradient.
    """
    targets = (labels != IGNORE_INDEX).sum()
    size = max(1, CHUNK // logits.shape[-1])
    parts = list(zip(logits.flatten(0, 1).split(size), labels.flatten().split(size), strict=True))
    if len(parts) == 1:
        total = _summed(*parts[0])
    else:
        again = {"use_reentrant": False, "preserve_rng_state": False}
        total = sum(checkpoint(_summed, *part, **again) for part in parts)
    return total / targets.clamp(min=1), targets


def _summed(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels, ignore_index=IGNORE_INDEX, reduction="sum")


@torch.no_grad()
def _accuracy(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Share of target tokens that are the most probable one; 0 without targets."""
    hits = (logits.argmax(-1) == labels) & (labels != IGNORE_INDEX)
    return hits.sum() / targets.clamp(min=1)
