"""Utterances to examples, examples to batches with SLAM-LLM's keys and shapes.

Shapes: B rows, S token columns, F mel frames, T encoder frames, E encoder width, P pairs.

One row, audio slots (filled by the projector's output) before the prompt, as in `st_covost2`:

    [pad] [audio slots] [prompt] | [answer] [eos] [pad]
          left-padded            |   right-padded
                                 ^ label_start, the same column in every row
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slam_potsa.config import DatasetConfig
from slam_potsa.config.templates import template_problems
from slam_potsa.data.audio import HOP_LENGTH, encoder_frames, load_audio, log_mel
from slam_potsa.data.feature_store import FeatureStore
from slam_potsa.data.languages import language_id
from slam_potsa.data.manifest import Utterance
from slam_potsa.data.tasks import answer, question, reference
from slam_potsa.errors import InputError, refuse

AUDIO_SLOT = -1  # in input_ids
IGNORED = -100  # in labels


class SpeechBatcher:
    """Makes examples of utterances, and batches of items of examples.

    Args:
        tokenizer: a Hugging Face tokenizer; without a pad token it pads with eos, as SLAM-LLM does.
        data: `fix_length_audio` audio slots a row; `encoder_window` and `mel_size` of `log_mel`;
            `attend_padding`; the tasks' prompts; `inference_mode`: no answers in the rows and no
            labels, but the targets as text; `feature_store`: its encoder outputs take the place of
            the log-mel frames.
        base: the folder that audio paths are relative to, the manifest's.

    Raises InputError for bad prompts, no such store, and a tokenizer without eos.
    """

    def __init__(self, tokenizer: Any, data: DatasetConfig, base: str | Path | None = None):
        problems = list(template_problems(vars(data), "dataset_config."))
        if tokenizer.eos_token_id is None:
            problems.append("the tokenizer has no eos token, with which every answer ends: set one")
        refuse(problems)
        self.tokenizer, self.data, self.base = tokenizer, data, base
        self.features = FeatureStore.open(data.feature_store) if data.feature_store else None
        self.eos_id: int = tokenizer.eos_token_id
        pad_id = tokenizer.pad_token_id
        self.pad_id: int = self.eos_id if pad_id is None else pad_id

    def example(
        self, utterance: Utterance, task: str = "s2tt", recording: Utterance | None = None
    ) -> dict[str, Any]:
        """One row's parts: speech, prompt and answer ids. Raises InputError naming the key.

        `recording`: the utterance whose speech is heard; None: its own.
        """
        try:
            return {
                "key": utterance.key,
                "sentence_id": utterance.sentence_id,
                "language_id": language_id(utterance.language),
                "target": reference(task, utterance),
                "prompt_ids": self._encode(question(self.data, task, utterance)),
                "answer_ids": self._answer_ids(task, utterance),
                **self._speech(recording or utterance),
            }
        except InputError as error:
            raise InputError(
                f"utterance {utterance.key!r}: {text}" for text in error.problems
            ) from None

    def _answer_ids(self, task: str, utterance: Utterance) -> list[int]:
        """The answer's tokens and eos; empty where there is none, or none is to be shown."""
        text = None if self.data.inference_mode else answer(self.data, task, utterance)
        return [] if text is None else [*self._encode(text), self.eos_id]

    def _encode(self, text: str) -> list[int]:
        # Prompt and answer apart, so that the border between them never depends on either.
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _speech(self, utterance: Utterance) -> dict[str, Any]:
        """{"speech": [F, n_mels] or [T, E], "frames": valid encoder frames}."""
        if self.features is not None:
            stored = torch.from_numpy(self.features[utterance.key])
            return {"speech": stored, "frames": len(stored)}
        audio = load_audio(utterance.audio, self.base)
        mel = log_mel(audio, self.data.mel_size, self.data.encoder_window)
        # SLAM-LLM's recipes take the silence that pads the 30 s window for speech too.
        valid = len(mel) * HOP_LENGTH if self.data.attend_padding else len(audio)
        return {"speech": mel, "frames": encoder_frames(valid)}

    def collate(self, items: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
        """Items of one or two examples to one batch; a pair's rows follow each other.

        input_ids [B, S] int64 (-1 at audio slots), attention_mask [B, S] bool, modality_mask [B, S]
        bool (the audio slots), labels [B, S] int64 (-100 ignored); audio_mel [B, F, n_mels] float32
        and audio_mel_post_mask [B, (F + 1) // 2] float32, or encoder_features [B, T, E] float16 and
        audio_mel_post_mask [B, T], 1 = an encoder frame that holds speech; language_ids [B] int64;
        sentence_ids [B] int64 (equal = one sentence); pairs [P, 2] int64, the rows of each pair,
        the anchor second; label_start, the first column that may have a label (S: there is none).
        Inference: no labels and no label_start, but keys and targets, lists of B strings.
        """
        rows = [example for item in items for example in item]
        batch = {
            **self._tokens(rows),
            **self._speech_batch(rows),
            "pairs": _pairs(items),
            "language_ids": torch.tensor([row["language_id"] for row in rows]),
            "sentence_ids": _numbered([row["sentence_id"] for row in rows]),
        }
        if self.data.inference_mode:
            batch["keys"] = [row["key"] for row in rows]
            batch["targets"] = [row["target"] or "" for row in rows]
        return batch

    def _tokens(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        start = self.data.fix_length_audio + max(len(row["prompt_ids"]) for row in rows)
        columns = start + max(len(row["answer_ids"]) for row in rows)
        shape = (len(rows), columns)
        input_ids = torch.full(shape, self.pad_id)
        labels = torch.full(shape, IGNORED)
        attention_mask = torch.zeros(shape, dtype=torch.bool)
        modality_mask = torch.zeros(shape, dtype=torch.bool)
        for index, row in enumerate(rows):
            prompt = start - len(row["prompt_ids"])  # where the prompt begins
            audio, end = prompt - self.data.fix_length_audio, start + len(row["answer_ids"])
            input_ids[index, audio:prompt] = AUDIO_SLOT
            input_ids[index, prompt:start] = _ids(row["prompt_ids"])
            input_ids[index, start:end] = labels[index, start:end] = _ids(row["answer_ids"])
            modality_mask[index, audio:prompt] = True
            attention_mask[index, audio:end] = True
        tokens = {"input_ids": input_ids, "attention_mask": attention_mask}
        tokens["modality_mask"] = modality_mask
        if not self.data.inference_mode:
            tokens |= {"labels": labels, "label_start": start}
        return tokens

    def _speech_batch(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        speech = torch.nn.utils.rnn.pad_sequence([row["speech"] for row in rows], batch_first=True)
        stored = self.features is not None
        frames = speech.shape[1] if stored else (speech.shape[1] + 1) // 2
        valid = torch.tensor([row["frames"] for row in rows])
        return {
            "encoder_features" if stored else "audio_mel": speech,
            "audio_mel_post_mask": (torch.arange(frames) < valid[:, None]).float(),
        }


def _pairs(items: Iterable[Sequence[dict[str, Any]]]) -> torch.Tensor:
    pairs, row = [], 0
    for item in items:
        if len(item) == 2:
            pairs.append((row, row + 1))
        row += len(item)
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)


def _numbered(names: Sequence[str]) -> torch.Tensor:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names])


def _ids(token_ids: list[int]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(token_ids, dtype=np.int64))
