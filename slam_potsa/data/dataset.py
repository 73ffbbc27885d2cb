"""The dataset of a configuration: utterances to examples, examples to SLAM-LLM's batches.

manifest.read_manifest -> pairs.ParallelSpeechDataset -> SpeechTranslationDataset -> the model

Shapes: B rows, S token columns, F mel frames, T encoder frames, E encoder width, P pairs.

One row, audio slots (filled by the projector's output) before the prompt, as in `st_covost2`:

    [pad] [audio slots] [prompt] | [answer] [eos] [pad]
          left-padded            |   right-padded
                                 ^ label_start, the same column in every row
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from slam_potsa.config import DatasetConfig, defaults
from slam_potsa.config.check import check
from slam_potsa.data import tasks
from slam_potsa.data.audio import HOP_LENGTH, encoder_frames, load_audio, log_mel
from slam_potsa.data.feature_store import FeatureStore
from slam_potsa.data.languages import language_id
from slam_potsa.data.manifest import Utterance, read_manifest
from slam_potsa.data.pairs import ParallelSpeechDataset, another_sentence
from slam_potsa.data.rows import Rows, heard
from slam_potsa.errors import InputError, collecting, placed, refuse

AUDIO_SLOT = -1  # in input_ids
IGNORED = -100  # in labels


class SpeechTranslationDataset(Dataset):
    """What a data loader takes, with `collate_fn=dataset.collator`.

    `dataset[i]` is an item: the examples of a pair, or of one utterance, all of one task.
    `recordings` may name another utterance to be heard in place of one, by its key
    (`exchanged_recordings`).

    Args:
        items: pairs and utterances.
        tokenizer: a Hugging Face tokenizer; without a pad token it pads with eos, as SLAM-LLM does.
        data: with `inference_mode` there are no answers in the rows and no labels, but the targets
            as text; with `feature_store` encoder outputs take the place of the log-mel frames.
        base: the folder that audio paths are relative to, the manifest's.

    Raises InputError for a tokenizer without eos, and what rows lack: fields that prompts ask for,
    stored features.
    """

    def __init__(
        self,
        items: ParallelSpeechDataset,
        tokenizer: Any,
        data: DatasetConfig,
        base: str | Path | None = None,
    ):
        if tokenizer.eos_token_id is None:
            told = "the tokenizer has no eos token, with which every answer ends: set one"
            raise InputError(told)
        tasks.require(data, items.tasks, items.utterances)
        self.items, self.tokenizer, self.data, self.base = items, tokenizer, data, base
        self.recordings: dict[str, Utterance] = {}
        self.features = FeatureStore.open(data.feature_store) if data.feature_store else None
        if self.features is not None:
            self.features.require(heard(items.utterances, "key"))
        self.eos_id: int = tokenizer.eos_token_id
        pad_id = tokenizer.pad_token_id
        self.pad_id: int = self.eos_id if pad_id is None else pad_id

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        task = self.items.task(index)
        return [self.example(utterance, task) for utterance in self.items[index]]

    def heard(self, utterance: Utterance) -> Utterance:
        """The utterance whose recording stands for this one: itself, or that of `recordings`."""
        return self.recordings.get(utterance.key, utterance)

    def example(self, utterance: Utterance, task: str = "s2tt") -> dict[str, Any]:
        """One row's parts: speech, prompt and answer ids. Raises InputError naming the key."""
        with placed(f"utterance {utterance.key!r}"):
            return {
                "key": utterance.key,
                "sentence_id": utterance.sentence_id,
                "language_id": language_id(utterance.language),
                "target": tasks.reference(task, utterance),
                "prompt_ids": self._encode(tasks.question(self.data, task, utterance)),
                "answer_ids": self._answer_ids(task, utterance),
                "taught": self._is_taught(utterance),
                "transcript_ids": self._encode(utterance.transcript or ""),
                **(self._silence() if task in tasks.TEXT else self._speech(self.heard(utterance))),
            }

    def _answer_ids(self, task: str, utterance: Utterance) -> list[int]:
        """The true answer's tokens and eos; empty where there is none."""
        text = tasks.answer(self.data, task, utterance)
        return [] if text is None else [*self._encode(text), self.eos_id]

    def _is_taught(self, utterance: Utterance) -> bool:
        """Whether its answer is a model's, which a term of alignment reads and none learns by."""
        return utterance.language in self.data.joining and utterance.synthetic == "target"

    def _encode(self, text: str) -> list[int]:
        # Prompt and answer apart, so that the border between them never depends on either.
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _silence(self) -> dict[str, Any]:
        """In a row of text alone: no audio slots, and the least that encoder and projector take.

        They run all the same, so that a batch of text alone leaves no weight out of the graph.
        """
        stored = self.features is not None
        shape = (1, self.features.width) if stored else (2, self.data.mel_size)
        speech = torch.zeros(shape, dtype=torch.float16 if stored else torch.float32)
        return {"speech": speech, "frames": 0}

    def _speech(self, utterance: Utterance) -> dict[str, Any]:
        """{"speech": [F, n_mels] or [T, E], "frames": valid encoder frames}."""
        if self.features is not None:
            stored = torch.from_numpy(self.features[utterance.key])
            return {"speech": stored, "frames": len(stored)}
        audio = load_audio(utterance.audio, self.base, duration=utterance.duration)
        mel = log_mel(audio, self.data.mel_size, self.data.encoder_window)
        # SLAM-LLM's recipes take the silence that pads the 30 s window for speech too.
        valid = len(mel) * HOP_LENGTH if self.data.attend_padding else len(audio)
        return {"speech": mel, "frames": encoder_frames(valid)}

    def collator(self, items: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
        """Items of one or two examples to one batch; a pair's rows follow each other.

        input_ids [B, S] int64 (-1 at audio slots), attention_mask [B, S] bool, modality_mask [B, S]
        bool (the audio slots), labels [B, S] int64 (-100 ignored); audio_mel [B, F, n_mels] float32
        and audio_mel_post_mask [B, (F + 1) // 2] float32, or encoder_features [B, T, E] float16 and
        audio_mel_post_mask [B, T], 1 = an encoder frame that holds speech; language_ids [B] int64;
        sentence_ids [B] int64 (equal = one sentence); pairs [P, 2] int64, the rows of each pair,
        the anchor second; label_start, the first column that may have a label (S: there is none);
        where some rows have no answer to learn, as those that join, answered [R] int64, the others;
        where some have a transcript, transcript_ids [B, M] int64 (-100 behind their end).
        Inference: no labels and no label_start, but keys and targets, lists of B strings, and
        answer_ids, the tokens of each true answer.
        """
        rows = [example for item in items for example in item]
        sentences = list(dict.fromkeys(row["sentence_id"] for row in rows))
        batch = {
            **self._tokens(rows),
            **self._speech_batch(rows),
            "pairs": _pairs(items),
            "language_ids": torch.tensor([row["language_id"] for row in rows]),
            "sentence_ids": torch.tensor([sentences.index(row["sentence_id"]) for row in rows]),
            "keys": [row["key"] for row in rows],
        }
        heard = [i for i, row in enumerate(rows) if row["frames"]]
        if 0 < len(heard) < len(rows):
            batch["heard"] = torch.tensor(heard)
        if self.data.inference_mode:
            batch["targets"] = [row["target"] or "" for row in rows]
            batch["answer_ids"] = [row["answer_ids"] for row in rows]
            return batch
        answered = [i for i, row in enumerate(rows) if row["answer_ids"] and not row["taught"]]
        if 0 < len(answered) < len(rows):
            batch["answered"] = torch.tensor(answered)
        if any(row["transcript_ids"] for row in rows):
            ids = [torch.tensor(row["transcript_ids"], dtype=torch.long) for row in rows]
            batch["transcript_ids"] = pad_sequence(ids, batch_first=True, padding_value=IGNORED)
        return batch

    def _slots(self, frames: int) -> int:
        """Audio slots of a row; none of text alone."""
        a_token, most = self.data.frames_per_token, self.data.fix_length_audio
        return min(most, -(-frames // a_token)) if a_token else most * bool(frames)

    def _tokens(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        slots = [self._slots(row["frames"]) for row in rows]
        start = max(n + len(row["prompt_ids"]) for n, row in zip(slots, rows, strict=True))
        answers = [[] if self.data.inference_mode else row["answer_ids"] for row in rows]
        columns = start + max(map(len, answers))
        shape = (len(rows), columns)
        input_ids, labels = torch.full(shape, self.pad_id), torch.full(shape, IGNORED)
        attention_mask = torch.zeros(shape, dtype=torch.bool)
        for index, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            ids = [AUDIO_SLOT] * slots[index] + row["prompt_ids"] + answer
            end = start + len(answer)
            input_ids[index, end - len(ids) : end] = torch.tensor(ids)
            attention_mask[index, end - len(ids) : end] = True
            if not row["taught"]:
                labels[index, start:end] = input_ids[index, start:end]
        tokens = {"input_ids": input_ids, "attention_mask": attention_mask}
        tokens["modality_mask"] = input_ids == AUDIO_SLOT
        if not self.data.inference_mode:
            tokens |= {"labels": labels, "label_start": start}
        return tokens

    def _speech_batch(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        speech = pad_sequence([row["speech"] for row in rows], batch_first=True)
        stored = self.features is not None
        frames = speech.shape[1] if stored else (speech.shape[1] + 1) // 2
        valid = torch.tensor([row["frames"] for row in rows])
        return {
            "encoder_features" if stored else "audio_mel": speech,
            "audio_mel_post_mask": (torch.arange(frames) < valid[:, None]).float(),
        }


def get_speech_dataset(dataset_config: Any, tokenizer: Any, split: str) -> SpeechTranslationDataset:
    """SLAM-LLM's dataset function; `split` is "train", "val" or "test".

    Training items are parallel pairs by `dataset_config.pairing`; validation and test items single
    utterances. Raises InputError for bad options, and with every bad line of the manifest, of which
    one that lacks what a task needs is one.
    """
    data = defaults(DatasetConfig, dataset_config)
    check(data)
    # SLAM-LLM's decoding recipes name their test set val_data_path.
    path = getattr(data, f"{split}_data_path") or (data.val_data_path if split == "test" else "")
    if not path:
        raise InputError(f"dataset_config.{split}_data_path is not set: give it a manifest")
    base = Path(path).parent
    if split == "train":
        return SpeechTranslationDataset(training_items(data), tokenizer, data, base)
    if data.inference_mode:
        asked = tasks.NEEDS[tasks.task_to_decode(data.tasks, data.test_task)][:1]
        return build_dataset(data, read_manifest(path, needs=asked), tokenizer, base)
    return build_dataset(data, read_rows(data, path), tokenizer, base)


def build_dataset(
    data: DatasetConfig, utterances: Sequence[Utterance], tokenizer: Any, base: Path | None = None
) -> SpeechTranslationDataset:
    """Each of `utterances` by itself, in order; `base`: what audio paths are relative to."""
    asked = [tasks.task_to_decode(data.tasks, data.test_task)]
    items = ParallelSpeechDataset(
        utterances,
        pairing="none",
        seed=data.seed,
        shuffle=False,
        tasks=asked if data.inference_mode else data.tasks,
        shares=() if data.inference_mode else data.task_shares,
    )
    return SpeechTranslationDataset(items, tokenizer, data, base)


def training_items(data: DatasetConfig) -> ParallelSpeechDataset:
    """The items of the training manifest: parallel pairs and single utterances.

    Raises InputError with every bad line, of which one that lacks what a task needs is one.
    """
    return ParallelSpeechDataset(
        read_rows(data, data.train_data_path, data.joining),
        pairing=data.pairing,
        anchor_language=data.anchor_language,
        seed=data.seed,
        tasks=data.tasks,
        joining=data.joining,
        joining_share=data.joining_share,
        shares=data.task_shares,
        bucket=data.bucket,
    )


def read_rows(
    data: DatasetConfig, path: str, joining: Sequence[str] = (), needs: Sequence[str] = ()
) -> Rows:
    """A manifest whose rows have `needs` and what the tasks need, but for languages that join.

    Where tasks have shares, a row serves those that it fits; whether there is one, the items tell.
    """
    fields = () if data.task_shares else tasks.needed_fields(data.tasks)
    return read_manifest(path, needs=[*fields, *needs], joining=joining)


def exchanged_recordings(utterances: Iterable[Utterance], seed: int = 0) -> dict[str, Utterance]:
    """The blind control: key -> the utterance heard instead, of its language, not of its sentence.

    What a model then still gets right it did not hear: it guessed it from the LLM's prior, the
    prompt and the language. The same for the same `seed`; recordings of a sentence take turns.

    Raises:
        InputError: with every language that has one sentence alone.
    """
    spoken: dict[str, dict[str, list[Utterance]]] = defaultdict(lambda: defaultdict(list))
    for utterance in utterances:
        spoken[utterance.language][utterance.sentence_id].append(utterance)
    exchanged, problems = {}, []
    for language, sentences in sorted(spoken.items()):
        with collecting(problems, f"language {language!r}"):
            for name, other in another_sentence(sentences, f"blind:{seed}:{language}").items():
                turns = cycle(sentences[other])
                exchanged |= {own.key: next(turns) for own in sentences[name]}
    refuse(problems)
    return exchanged


def _pairs(items: Iterable[Sequence[dict[str, Any]]]) -> torch.Tensor:
    pairs, row = [], 0
    for item in items:
        if len(item) == 2:
            pairs.append((row, row + 1))
        row += len(item)
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
