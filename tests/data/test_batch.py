import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from slam_potsa.config import DatasetConfig
from slam_potsa.data import epoch
from slam_potsa.data.audio import load_audio, log_mel
from slam_potsa.data.batch import IGNORED, SpeechBatcher
from slam_potsa.data.dataset import SpeechTranslationDataset
from slam_potsa.data.feature_store import FeatureStoreWriter
from slam_potsa.data.languages import language_code
from slam_potsa.data.manifest import Utterance
from slam_potsa.data.pairs import ParallelSpeechDataset
from slam_potsa.errors import InputError

QUERIES = 5
PROMPT = "Translate {language}:"


@pytest.fixture
def corpus(utterance, recording):
    """Three sentences in en and es, one in sle (a long code) without a target."""
    rows = []
    for index, text in enumerate(["Hello.", "Hello world.", "Translate the speech."]):
        for lang in ("en", "es"):
            row = utterance(lang, f"s{index}", target=text)
            recording(row.audio, 0.3 + 0.17 * index, seed=index)
            rows.append(row)
    rows.append(utterance("sle-alpha"[:8], "alone", target=None))
    recording(rows[-1].audio, 1.1)
    return rows


@pytest.fixture
def batcher(tokenizer, tmp_path):
    def make(tokenizer=tokenizer, base=tmp_path, **options):
        given = {"fix_length_audio": QUERIES, "prompt": PROMPT, "mel_size": 80}
        given["encoder_window"] = "trimmed"
        return SpeechBatcher(tokenizer, DatasetConfig(**{**given, **options}), base)

    return make


def batch_of(batcher, *items):
    return batcher.collate([[batcher.example(row) for row in item] for item in items])


def test_layout_of_every_row(batcher, tokenizer, corpus):
    make = batcher()
    batch = batch_of(make, corpus[:2], [corpus[6]], corpus[4:6])
    rows = [*corpus[:2], corpus[6], *corpus[4:6]]
    start = batch["label_start"]
    for index, row in enumerate(rows):
        prompt = tokenizer.encode(f"Translate {row.language}:", add_special_tokens=False)
        answer = []
        if row.target is not None:
            answer = [*tokenizer.encode(row.target, add_special_tokens=False), make.eos_id]
        ids, mask = batch["input_ids"][index], batch["attention_mask"][index]
        left = start - len(prompt) - QUERIES
        expected = [-1] * QUERIES + prompt + answer
        assert ids[left : left + len(expected)].tolist() == expected
        assert mask.tolist() == [left <= c < left + len(expected) for c in range(len(ids))]
        assert (ids[~mask] == make.eos_id).all()  # no pad token: eos
        slots = [left <= column < left + QUERIES for column in range(len(ids))]
        assert batch["modality_mask"][index].tolist() == slots
        labels = batch["labels"][index]
        assert labels[start : start + len(answer)].tolist() == answer
        assert (labels[:start] == IGNORED).all() and (
            labels[start + len(answer) :] == IGNORED
        ).all()
    lengths = {int(row.sum()) for row in batch["attention_mask"]}
    assert len(lengths) > 2  # the prompts and answers really differ
    assert (batch["attention_mask"][2, :start].sum() == start).all()  # the longest prompt


def test_dtypes_shapes_and_pairs(batcher, corpus):
    batch = batch_of(batcher(), corpus[:2], [corpus[6]], corpus[4:6])
    for name in ("input_ids", "labels", "language_ids", "pairs"):
        assert batch[name].dtype == torch.int64
    for name in ("attention_mask", "modality_mask"):
        assert batch[name].dtype == torch.bool
    assert batch["input_ids"].shape == batch["labels"].shape == batch["modality_mask"].shape
    assert batch["pairs"].tolist() == [[0, 1], [3, 4]]
    codes = [language_code(identifier) for identifier in batch["language_ids"].tolist()]
    assert codes == ["en", "es", "sle-alph", "en", "es"]
    assert not {"zh", "en", "text", "visual", "keys", "targets"} & set(batch)


def test_a_batch_without_pairs_or_targets(batcher, corpus):
    batch = batch_of(batcher(), [corpus[6]], [corpus[6]])
    assert batch["pairs"].shape == (0, 2)
    assert (batch["labels"] == IGNORED).all()
    assert batch["label_start"] == batch["input_ids"].shape[1]


def test_mels_are_those_of_each_utterance_alone(batcher, corpus, tmp_path):
    batch = batch_of(batcher(), corpus[:2], [corpus[6]])
    mel, mask = batch["audio_mel"], batch["audio_mel_post_mask"]
    assert mel.shape == (3, 110, 80) and mask.shape == (3, 55)
    assert mel.dtype == mask.dtype == torch.float32
    for index, row in enumerate([corpus[0], corpus[1], corpus[6]]):
        alone = log_mel(load_audio(row.audio, tmp_path), 80, "trimmed")
        assert torch.equal(mel[index, : len(alone)], alone)
        assert (mel[index, len(alone) :] == 0).all()
        assert mask[index].tolist() == [1.0] * (len(alone) // 2) + [0.0] * (55 - len(alone) // 2)


def test_30s_window_marks_only_speech_as_valid(batcher, corpus):
    batch = batch_of(batcher(encoder_window="30s", mel_size=128), corpus[:2])
    assert batch["audio_mel"].shape == (2, 3000, 128)
    assert batch["audio_mel_post_mask"].shape == (2, 1500)
    assert batch["audio_mel_post_mask"].sum(1).tolist() == [15, 15]  # 0.3 s


def test_inference_has_targets_as_text_and_no_labels(batcher, tokenizer, corpus):
    make = batcher(inference_mode=True)
    batch = batch_of(make, [corpus[2]], [corpus[6]])
    assert "labels" not in batch and "label_start" not in batch
    assert batch["keys"] == [corpus[2].key, corpus[6].key]
    assert batch["targets"] == ["Hello world.", ""]
    said = replace(corpus[2], transcript="Said.")
    assert make.collate([[make.example(said, "asr")]])["targets"] == ["Said."]
    prompt = tokenizer.encode("Translate en:", add_special_tokens=False)
    assert batch["input_ids"][0, -len(prompt) :].tolist() == prompt  # ready to generate
    assert batch["attention_mask"][:, -1].all()


def test_stored_features_take_the_place_of_mels(batcher, corpus, tmp_path):
    with FeatureStoreWriter(tmp_path / "store", "f", 4) as writer:
        for index, row in enumerate(corpus[:2]):
            writer.add(row.key, np.full((3 + index, 4), index + 1.0))
    # Recordings are not read.
    make = batcher(feature_store=str(tmp_path / "store"), base=tmp_path / "nowhere")
    batch = batch_of(make, corpus[:2])
    assert "audio_mel" not in batch
    assert batch["encoder_features"].shape == (2, 4, 4)
    assert batch["encoder_features"][:, :, 0].tolist() == [[1, 1, 1, 0], [2, 2, 2, 2]]
    assert batch["audio_mel_post_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    with pytest.raises(InputError, match="5 utterances have no features"):
        SpeechTranslationDataset(ParallelSpeechDataset(corpus), make)


def test_a_pad_token_is_used_where_there_is_one(tokenizer, corpus, batcher):
    padded = copy.deepcopy(tokenizer)
    padded.pad_token = "<s>"
    batch = batch_of(batcher(padded), [corpus[0]], [corpus[4]])
    assert (batch["input_ids"][~batch["attention_mask"]] == padded.pad_token_id).all()
    assert padded.pad_token_id != padded.eos_token_id


def test_bad_arguments(tokenizer, batcher):
    without_eos = copy.deepcopy(tokenizer)
    without_eos.eos_token = None
    with pytest.raises(InputError) as caught:
        batcher(without_eos, prompt="{to}", cot_answer="{transcript}")
    assert len(caught.value.problems) == 3


def test_errors_name_the_utterance(batcher, corpus, tmp_path):
    (tmp_path / corpus[0].audio).unlink()
    with pytest.raises(InputError, match="utterance 'en-s0-0': .*en-s0-0.wav: no such file"):
        batcher().example(corpus[0])
    with pytest.raises(InputError, match="'es-s0-0': the prompt asks for {target_language}"):
        batcher(prompt="To {target_language}:").example(corpus[1])


def test_both_rows_of_a_pair_have_the_items_task(batcher, tokenizer, utterance, recording):
    rows = []
    for index, text in enumerate(["Hello.", "Hello world.", "Translate.", "The speech."]):
        for lang in ("en", "es"):
            row = utterance(lang, f"s{index}", transcript=f"{lang} {text}", target=text)
            recording(row.audio, 0.3)
            rows.append(Utterance(**vars(row) | {"target_language": "ru"}))
    items = ParallelSpeechDataset(rows, tasks=["asr", "s2tt", "cot"], seed=1)
    dataset = SpeechTranslationDataset(items, batcher(prompt="{language}:"))
    asked = set()
    for index in range(len(items)):
        batch = dataset.collator([dataset[index]])
        for row, ids in zip(items[index], batch["input_ids"], strict=True):
            text = tokenizer.decode(ids[ids >= 0], skip_special_tokens=True)
            expected = {
                "asr": f"<|{row.language}|>{row.transcript}",
                "s2tt": f"{row.language}:{row.target}",
                "cot": f"<|ru|>{row.transcript}<|ru|>{row.target}",
            }
            assert text == expected[items.task(index)]
        asked.add(items.task(index))
    assert len(asked) > 1


@pytest.mark.parametrize("workers", [0, 2])
def test_data_loader_follows_the_clock(batcher, corpus, workers):
    items = ParallelSpeechDataset(corpus, seed=2)
    dataset = SpeechTranslationDataset(items, batcher(inference_mode=True))
    loader = DataLoader(
        dataset, batch_size=2, collate_fn=dataset.collator, num_workers=workers, drop_last=False
    )
    seen = []
    for number in range(2):
        epoch.set(number)
        keys = [key for batch in loader for key in batch["keys"]]
        assert keys == [utterance.key for item in items for utterance in item]
        seen.append(keys)
    assert seen[0] != seen[1]


def test_worker_errors_reach_the_user_with_their_place(batcher, corpus, tmp_path):
    (tmp_path / corpus[6].audio).write_bytes(b"")
    dataset = SpeechTranslationDataset(ParallelSpeechDataset(corpus), batcher())
    loader = DataLoader(dataset, batch_size=4, collate_fn=dataset.collator, num_workers=1)
    with pytest.raises(InputError, match=f"'{corpus[6].key}'.*the file is empty"):
        list(loader)
