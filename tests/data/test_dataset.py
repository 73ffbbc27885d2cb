import copy

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from slam_potsa.config import DatasetConfig
from slam_potsa.data.audio import load_audio, log_mel
from slam_potsa.data.dataset import IGNORED, SpeechTranslationDataset, exchanged_recordings
from slam_potsa.data.feature_store import add_features
from slam_potsa.data.languages import language_code
from slam_potsa.data.pairs import ParallelSpeechDataset, set_epoch
from slam_potsa.errors import InputError
from tests.support import refused
from tests.support.torchrun import in_a_process

QUERIES = 5
PROMPT = "Translate {language}:"


@pytest.fixture
def corpus(utterance, recording):
    """Three sentences in en and es, one in sle (a long code) without a target."""
    rows = []
    for index, text in enumerate(["Hello.", "Hello world.", "Translate the speech."]):
        for lang in ("en", "es"):
            said = {"target": text, "target_language": "ru", "transcript": f"{lang} {text}"}
            row = utterance(lang, f"s{index}", **said)
            recording(row.audio, 0.3 + 0.17 * index, seed=index)
            rows.append(row)
    rows.append(utterance("sle-alph", "alone", target=None, target_language="ru"))
    recording(rows[-1].audio, 1.1)
    return rows


@pytest.fixture
def dataset(tokenizer, tmp_path, corpus):
    def make(rows=corpus, tokenizer=tokenizer, base=tmp_path, tasks=("s2tt",), **options):
        given = {"fix_length_audio": QUERIES, "prompt": PROMPT, "mel_size": 80}
        given["encoder_window"] = "trimmed"
        items = ParallelSpeechDataset(rows, seed=2, tasks=tasks)
        data = DatasetConfig(**{**given, **options})
        return SpeechTranslationDataset(items, tokenizer, data, base)

    return make


def batch_of(dataset, *items):
    return dataset.collator([[dataset.example(row) for row in item] for item in items])


@pytest.mark.parametrize("pad", [None, "<s>"])
def test_layout_of_every_row(dataset, tokenizer, corpus, pad):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = pad
    made, rows = dataset(tokenizer=tokenizer), [*corpus[:2], corpus[6], *corpus[4:6]]
    batch = batch_of(made, corpus[:2], [corpus[6]], corpus[4:6])
    padding = tokenizer.pad_token_id if pad else made.eos_id
    start = batch["label_start"]
    for index, row in enumerate(rows):
        prompt = tokenizer.encode(f"Translate {row.language}:", add_special_tokens=False)
        answer = []
        if row.target is not None:
            answer = [*tokenizer.encode(row.target, add_special_tokens=False), made.eos_id]
        ids, mask = batch["input_ids"][index], batch["attention_mask"][index]
        left = start - len(prompt) - QUERIES
        expected = [-1] * QUERIES + prompt + answer
        assert ids[left : left + len(expected)].tolist() == expected
        assert mask.tolist() == [left <= c < left + len(expected) for c in range(len(ids))]
        assert (ids[~mask] == padding).all()
        slots = [left <= column < left + QUERIES for column in range(len(ids))]
        assert batch["modality_mask"][index].tolist() == slots
        labels = batch["labels"][index].tolist()
        after = [IGNORED] * (len(labels) - start - len(answer))
        assert labels == [IGNORED] * start + answer + after
    assert len({int(row.sum()) for row in batch["attention_mask"]}) > 2  # they really differ
    assert (batch["attention_mask"][2, :start].sum() == start).all()  # the longest prompt


def test_dtypes_and_pairs(dataset, corpus):
    batch = batch_of(dataset(), corpus[:2], [corpus[6]], corpus[4:6])
    for name in ("input_ids", "labels", "language_ids", "pairs"):
        assert batch[name].dtype == torch.int64
    assert batch["attention_mask"].dtype == batch["modality_mask"].dtype == torch.bool
    assert batch["pairs"].tolist() == [[0, 1], [3, 4]]
    assert batch["sentence_ids"].tolist() == [0, 0, 1, 2, 2]
    codes = [language_code(identifier) for identifier in batch["language_ids"].tolist()]
    assert codes == ["en", "es", "sle-alph", "en", "es"]
    alone = batch_of(dataset(), [corpus[6]], [corpus[6]])  # and without a target
    assert alone["pairs"].shape == (0, 2) and (alone["labels"] == IGNORED).all()
    assert alone["label_start"] == alone["input_ids"].shape[1]


def test_mels_are_those_of_each_utterance_alone(dataset, corpus, tmp_path):
    made = dataset()
    batch = batch_of(made, corpus[:2], [corpus[6]])
    mel, mask = batch["audio_mel"], batch["audio_mel_post_mask"]
    assert mel.shape == (3, 110, 80) and mask.shape == (3, 55)
    assert mel.dtype == mask.dtype == torch.float32
    for index, row in enumerate([corpus[0], corpus[1], corpus[6]]):
        alone = log_mel(load_audio(row.audio, tmp_path), 80, "trimmed")
        assert torch.equal(mel[index, : len(alone)], alone)
        assert (mel[index, len(alone) :] == 0).all()
        assert mask[index].tolist() == [1.0] * (len(alone) // 2) + [0.0] * (55 - len(alone) // 2)
    made.recordings = {corpus[0].key: corpus[6]}  # the blind control hears another
    assert torch.equal(batch_of(made, [corpus[0]])["audio_mel"][0], mel[2])
    assert made.heard(corpus[1]) == corpus[1]


@pytest.mark.parametrize(("attend_padding", "valid"), [(False, 15), (True, 1500)])
def test_30s_window_marks_only_speech_as_valid_unless_asked(dataset, corpus, attend_padding, valid):
    options = {"encoder_window": "30s", "mel_size": 128, "attend_padding": attend_padding}
    batch = batch_of(dataset(**options), corpus[:2])
    assert batch["audio_mel"].shape == (2, 3000, 128)
    assert batch["audio_mel_post_mask"].shape == (2, 1500)
    assert batch["audio_mel_post_mask"].sum(1).tolist() == [valid, valid]  # 0.3 s


def test_inference_has_targets_as_text_and_no_labels(dataset, tokenizer, corpus):
    made = dataset(inference_mode=True)
    batch = batch_of(made, [corpus[2]], [corpus[6]])
    assert "labels" not in batch and "label_start" not in batch
    assert batch["keys"] == [corpus[2].key, corpus[6].key]
    assert batch["targets"] == ["Hello world.", ""]
    assert made.collator([[made.example(corpus[2], "asr")]])["targets"] == ["en Hello world."]
    prompt = tokenizer.encode("Translate en:", add_special_tokens=False)
    assert batch["input_ids"][0, -len(prompt) :].tolist() == prompt  # ready to generate
    assert batch["attention_mask"][:, -1].all()


def test_stored_features_take_the_place_of_mels(dataset, corpus, tmp_path):
    found = ((row.key, np.full((3 + i, 4), i + 1.0)) for i, row in enumerate(corpus[:2]))
    add_features(tmp_path / "store", "f", 4, found)
    options = {"feature_store": str(tmp_path / "store"), "base": tmp_path / "no recordings"}
    batch = batch_of(dataset(corpus[:2], **options), corpus[:2])
    assert "audio_mel" not in batch
    assert batch["encoder_features"][:, :, 0].tolist() == [[1, 1, 1, 0], [2, 2, 2, 2]]
    assert batch["audio_mel_post_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    refused("5 utterances have no features", dataset, **options)


def test_both_rows_of_a_pair_have_the_items_task(dataset, tokenizer, corpus):
    made, asked = dataset(corpus[:6], tasks=["asr", "s2tt", "cot"], prompt="{language}:"), set()
    for number in range(5):
        set_epoch(number)
        for index, item in enumerate(made.items):
            batch, task = made.collator([made[index]]), made.items.task(index)
            for row, ids in zip(item, batch["input_ids"], strict=True):
                expected = {
                    "asr": f"<|{row.language}|>{row.transcript}",
                    "s2tt": f"{row.language}:{row.target}",
                    "cot": f"<|ru|>{row.transcript}<|ru|>{row.target}",
                }
                text = tokenizer.decode(ids[ids >= 0], skip_special_tokens=True)
                assert text == expected[task]
            asked.add(task)
    assert len(asked) == 3


def _follow_the_clock(made, method):
    workers, seen = {"num_workers": 2 if method else 0, "multiprocessing_context": method}, []
    loader = DataLoader(made, batch_size=2, collate_fn=made.collator, **workers)
    for number in range(2):
        set_epoch(number)
        keys = [key for batch in loader for key in batch["keys"]]
        assert keys == [utterance.key for item in made.items for utterance in item]
        seen.append(keys)
    assert seen[0] != seen[1]


@pytest.mark.parametrize("method", [None, "fork", "forkserver"])
def test_data_loader_follows_the_clock(dataset, method):
    made = dataset(inference_mode=True)
    if method == "fork":
        in_a_process(_follow_the_clock, made, method)
    else:
        _follow_the_clock(made, method)


def test_what_cannot_make_batches_is_refused_with_its_place(
    tokenizer, dataset, corpus, utterance, tmp_path
):
    without_eos = copy.deepcopy(tokenizer)
    without_eos.eos_token = None
    refused("the tokenizer has no eos token", dataset, tokenizer=without_eos)
    with pytest.raises(InputError, match="'en-s-0': the prompt asks for {target_language}"):
        dataset([utterance("en", "s")], prompt="To {target_language}:")
    (tmp_path / corpus[6].audio).write_bytes(b"")
    made = dataset()
    workers = {"num_workers": 1, "multiprocessing_context": "forkserver"}
    loader = DataLoader(made, batch_size=4, collate_fn=made.collator, **workers)
    refused(f"utterance '{corpus[6].key}'.*the file is empty", list, loader)


@pytest.mark.parametrize("takes", [(1,) * 7, (3, 1, 2), (2, 2), (1, 1), (4, 1, 1, 2)])
def test_every_recording_is_heard_once_and_never_for_its_own_sentence(utterance, takes):
    rows = [
        utterance(language, f"s{sentence}", take)
        for language in ("en", "es")
        for sentence, count in enumerate(takes)
        for take in range(count)
    ]
    exchanged = exchanged_recordings(rows)
    for row in rows:
        heard = exchanged[row.key]
        assert heard.language == row.language and heard.sentence_id != row.sentence_id
    assert exchanged_recordings(rows) == exchanged
    if len(takes) > 2:
        assert any(exchanged_recordings(rows, seed) != exchanged for seed in range(1, 9))


def test_a_language_of_one_sentence_alone_is_refused(utterance):
    rows = [utterance("en", "s0"), utterance("en", "s1"), utterance("es", "s0")]
    rows += [utterance("fr", "s0", take) for take in range(3)]
    told = str(refused("2 problems", exchanged_recordings, rows))
    assert "language 'es': expected two sentences or more, got 1" in told
