"""Tasks in proportion: shares of an epoch, and rows of text alone in a batch."""

import pickle
from collections import Counter
from dataclasses import replace

import pytest
import torch

from slam_potsa.config.check import check
from slam_potsa.data.dataset import get_speech_dataset
from slam_potsa.data.manifest import Utterance, read_manifest, write_manifest
from slam_potsa.data.pairs import ParallelSpeechDataset, set_epoch
from slam_potsa.model.factory import model_factory
from tests.support import refusal, refused, tiny

TASKS, SHARES = ("asr", "s2tt", "mt", "instruct"), (4, 3, 2, 1)


def row(key, language="en", **fields):
    return Utterance(
        **{"key": key, "audio": None, "language": language, "sentence_id": key} | fields
    )


ROWS = [row(f"asr{i}", audio="a", transcript="t") for i in range(12)]
ROWS += [row(f"st{i}", "fr", audio="a", target="t") for i in range(5)]
ROWS += [row(f"text{i}", transcript="t", target="t") for i in range(3)]


def items(rows=ROWS, **options):
    options = {"pairing": "none", "tasks": TASKS, "shares": SHARES} | options
    return ParallelSpeechDataset(rows, **options)


def epoch_of(data, epoch):
    set_epoch(epoch)
    try:
        return [(data[i][0].key, data.task(i)) for i in range(len(data))]
    finally:
        set_epoch(0)


def test_an_epoch_has_the_shares_and_a_task_goes_through_its_rows_in_turn():
    data = items()
    epochs = [epoch_of(data, epoch) for epoch in range(6)]
    for found in epochs:
        assert Counter(task for _, task in found) == {"asr": 8, "s2tt": 6, "mt": 4, "instruct": 2}
    heard = [key for found in epochs[:3] for key, task in found if task == "asr"]
    assert Counter(heard) == {f"asr{i}": 2 for i in range(12)}  # 3 x 8 are twice the 12
    instructed = [key for found in epochs[:3] for key, task in found if task == "instruct"]
    assert Counter(instructed) == {f"text{i}": 2 for i in range(3)}
    assert epochs[0] != epochs[1]
    assert {key[:4] for found in epochs for key, task in found if task in ("mt", "instruct")} == {
        "text"
    }
    # A function of seed and epoch alone: what resumes, and other ranks and workers, see the same.
    assert epoch_of(items(), 4) == epochs[4]
    assert epoch_of(pickle.loads(pickle.dumps(data)), 5) == epochs[5]
    assert epoch_of(items(seed=1), 4) != epochs[4]


def test_pairs_keep_their_partners_and_text_alone_has_none():
    texts = {"transcript": "t", "target": "t"}
    spoken = [(code, i) for i in range(4) for code in ("en", "fr")]
    rows = [row(f"{c}{i}", c, audio="a", sentence_id=str(i), **texts) for c, i in spoken]
    rows += [row(f"text{i}", sentence_id=str(i), **texts) for i in range(2)]
    data = items(rows, pairing="random", tasks=("s2tt", "mt"), shares=(1, 1))
    for index in range(len(data)):
        translates = data.task(index) == "s2tt"
        assert len(data[index]) == 1 + translates
        assert not translates or {u.audio for u in data[index]} == {"a"}


def test_validation_asks_each_row_once_what_it_fits():
    data = items(shuffle=False)
    assert [data[i][0].key for i in range(len(data))] == [u.key for u in ROWS]
    assert {data.task(i) for i in range(12)} == {"asr"}
    assert {data.task(i) for i in range(17, 20)} <= {"mt", "instruct"}


def test_absent_tasks_idle_rows_and_shares_of_nothing_are_refused(tmp_path):
    said = str(refusal(items, [*ROWS[:12], row("idle", audio="a")]))
    assert "task 's2tt' has a share, and no row has its audio, target" in said
    assert "1 rows have the fields of none of the tasks, such as ['idle']" in said
    config = tiny.PotsaConfig()
    for shares, said in (([0, 0], "above 0"), ([1], "one share for each of"), ([-1, 2], "above 0")):
        config.dataset_config.tasks, config.dataset_config.task_shares = ["asr", "s2tt"], shares
        refused(said, check, config)
    write_manifest(tmp_path / "m.jsonl", ROWS)
    refused("field 'audio': found nothing, expected a path", read_manifest, tmp_path / "m.jsonl")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model whose encoder, projector and LLM train, and its data with rows of text alone."""
    config = tiny.world(tmp_path_factory.mktemp("mixed"), sentences=3)
    data = config.dataset_config
    spoken = read_manifest(data.train_data_path)
    text = [replace(u, key=f"text-{u.key}", audio=None, duration=None) for u in spoken[:5]]
    write_manifest(data.train_data_path, [*spoken, *text])
    data.tasks, data.task_shares, data.pairing = ["asr", "mt"], [1, 1], "none"
    data.mt_prompt = "USER {transcript} :"
    config.language_bias.enabled, config.alignment.terms = False, {}
    config.train_config.train_parts = ["projector", "encoder", "llm"]
    sections = {"language_bias": config.language_bias, "alignment": config.alignment}
    model, tokenizer = model_factory(config.train_config, config.model_config, **sections)
    return config, model, get_speech_dataset(data, tokenizer, "train")


def examples(dataset, task):
    return [
        [dataset.example(u, task)]
        for u in dataset.items.utterances
        if (u.audio is None) == (task == "mt")
    ]


def test_rows_of_text_alone_are_read_as_such_beside_speech(world):
    _, model, dataset = world
    text, spoken = examples(dataset, "mt")[:2], examples(dataset, "asr")[:2]
    model.eval()
    alone, mixed = dataset.collator(text), dataset.collator([*spoken, *text])
    assert not alone["modality_mask"].any() and "heard" not in alone
    assert mixed["heard"].tolist() == [0, 1] and not mixed["modality_mask"][2:].any()
    row = alone["attention_mask"][0]
    decoded = dataset.tokenizer.decode(alone["input_ids"][0][row])
    assert decoded.startswith(f"USER {dataset.items.utterances[9].transcript} :")

    def losses(batch, rows):
        logits = model(**batch)[0].logits
        labels = batch["labels"][:, batch["label_start"] :]
        return [torch.nn.functional.cross_entropy(logits[r], labels[r]).item() for r in rows]

    with torch.no_grad():
        assert losses(mixed, [2, 3]) == pytest.approx(losses(alone, [0, 1]), rel=1e-4)
        heard = losses(dataset.collator(spoken), [0, 1])
        assert losses(mixed, [0, 1]) == pytest.approx(heard, rel=1e-4)


@pytest.mark.parametrize("tasks", [("mt",), ("mt", "asr")])
def test_no_trained_weight_is_left_out_of_the_graph(world, tasks):
    _, model, dataset = world
    model.train().zero_grad(set_to_none=True)
    batch = dataset.collator([example for task in tasks for example in examples(dataset, task)[:2]])
    model(**batch)[0].loss.backward()
    lacking = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert all(name.endswith("as_parameter") for name in lacking)
    speech = [
        p.grad
        for n, p in model.named_parameters()
        if n.startswith("encoder") and p.grad is not None
    ]
    assert all(torch.isfinite(gradient).all() for gradient in speech)
    assert any(gradient.any() for gradient in speech) == ("asr" in tasks)
