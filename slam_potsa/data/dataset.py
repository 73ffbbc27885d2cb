"""The dataset of a configuration: a manifest's utterances as items, its items as batches.

manifest.read_manifest -> pairs.ParallelSpeechDataset -> batch.SpeechBatcher -> the model
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from slam_potsa.config import DatasetConfig, defaults
from slam_potsa.data.batch import SpeechBatcher
from slam_potsa.data.manifest import Utterance, read_manifest
from slam_potsa.data.pairs import ParallelSpeechDataset
from slam_potsa.data.tasks import needed_fields, require, task_to_decode
from slam_potsa.errors import InputError, refuse

PATHS = {"train": "train_data_path", "val": "val_data_path", "test": "test_data_path"}  # by split


class SpeechTranslationDataset(Dataset):
    """Pairs and batcher together: what a data loader takes, `collate_fn=dataset.collator`.

    `dataset[i]` is an item: the examples of a pair, or of one utterance, all of one task. Raises
    InputError with every utterance that lacks what the prompt of a task asks for.
    `recordings` may name another utterance to be heard in place of one, by its key
    (`exchanged_recordings`).
    """

    def __init__(self, items: ParallelSpeechDataset, batcher: SpeechBatcher):
        self.items, self.batcher = items, batcher
        self.recordings: dict[str, Utterance] = {}
        self.collator = batcher.collate
        require(batcher.data, items.tasks, items.utterances)
        if batcher.features is not None:
            batcher.features.require(utterance.key for utterance in items.utterances)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        task = self.items.task(index)
        return [self.batcher.example(u, task, self.heard(u)) for u in self.items[index]]

    def heard(self, utterance: Utterance) -> Utterance:
        """The utterance whose recording stands for this one: itself, or that of `recordings`."""
        return self.recordings.get(utterance.key, utterance)


def get_speech_dataset(dataset_config: Any, tokenizer: Any, split: str) -> SpeechTranslationDataset:
    """SLAM-LLM's dataset function; `split` is "train", "val" or "test".

    Training items are parallel pairs by `dataset_config.pairing`; validation and test items single
    utterances. Raises InputError with every bad line of the manifest, of which one that lacks what
    a task needs is one.
    """
    if split not in PATHS:
        raise InputError(f"split {split!r}: expected one of {', '.join(PATHS)}")
    data = defaults(DatasetConfig, dataset_config)
    # SLAM-LLM's decoding recipes name their test set val_data_path.
    path = getattr(data, PATHS[split]) or (data.val_data_path if split == "test" else "")
    if not path:
        raise InputError(f"dataset_config.{PATHS[split]} is not set: give it a manifest")
    utterances = read_manifest(path, needs=() if data.inference_mode else needed_fields(data.tasks))
    return build_dataset(data, utterances, tokenizer, split == "train", Path(path).parent)


def build_dataset(
    data: DatasetConfig,
    utterances: Sequence[Utterance],
    tokenizer: Any,
    training: bool = False,
    base: Path | None = None,
) -> SpeechTranslationDataset:
    """Items and batches of `utterances`; `base` is the folder that audio paths are relative to."""
    items = _items(data, utterances, training)
    return SpeechTranslationDataset(items, SpeechBatcher(tokenizer, data, base))


def training_items(data: DatasetConfig) -> ParallelSpeechDataset:
    """The items of the training manifest: parallel pairs and single utterances.

    Raises InputError with every bad line, of which one that lacks what a task needs is one.
    """
    utterances = read_manifest(data.train_data_path, needs=needed_fields(data.tasks))
    return _items(data, utterances, training=True)


def _items(
    data: DatasetConfig, utterances: Sequence[Utterance], training: bool
) -> ParallelSpeechDataset:
    return ParallelSpeechDataset(
        utterances,
        pairing=data.pairing if training else "none",
        anchor_language=data.anchor_language,
        seed=data.seed,
        shuffle=training,
        tasks=[task_to_decode(data.tasks, data.test_task)] if data.inference_mode else data.tasks,
    )


def exchanged_recordings(utterances: Iterable[Utterance], seed: int = 0) -> dict[str, Utterance]:
    """The blind control: key -> the utterance heard instead, of its language, not of its sentence.

    What a model then still gets right it did not hear: it guessed it from the LLM's prior, the
    prompt and the language. A permutation within each language, the same for the same `seed`. With
    n recordings, m of them of the most recorded sentence, each takes the one m places further in
    an order that keeps a sentence's recordings together: never its own sentence's, if 2m <= n.

    Raises:
        InputError: with every language where 2m > n, so that no exchange is possible.
    """
    spoken: dict[str, dict[str, list[Utterance]]] = defaultdict(lambda: defaultdict(list))
    for utterance in utterances:
        spoken[utterance.language][utterance.sentence_id].append(utterance)
    exchanged: dict[str, Utterance] = {}
    problems = []
    for language, sentences in sorted(spoken.items()):
        order = sorted(sentences)
        random.Random(f"blind:{seed}:{language}").shuffle(order)
        ordered = [row for sentence in order for row in sentences[sentence]]
        most = max(map(len, sentences.values()))
        if 2 * most > len(ordered):
            problems.append(
                f"language {language!r}: {most} of {len(ordered)} recordings are of one sentence, "
                "expected at most half: there is no other sentence's recording for each"
            )
        others = ordered[most:] + ordered[:most]
        exchanged |= {u.key: other for u, other in zip(ordered, others, strict=True)}
    refuse(problems)
    return exchanged
