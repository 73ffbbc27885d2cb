import random
from collections import Counter
from functools import partial
from itertools import chain

import pytest
from torch.utils.data import DistributedSampler

from slam_potsa.data.pairs import (
    EpochCounter,
    ParallelSpeechDataset,
    current_epoch,
    set_epoch,
)
from slam_potsa.errors import InputError


@pytest.fixture
def corpus(utterance):
    """Five sentences in en, es, ru; one in en and es; one only in fr; one with two takes in en."""
    rows = [utterance(lang, f"s{i}") for i in range(5) for lang in ("en", "es", "ru")]
    rows += [utterance("en", "two"), utterance("es", "two"), utterance("fr", "alone")]
    rows += [utterance("en", "takes", take) for take in (0, 1)]
    return [*rows, utterance("ru", "takes")]


def keys(dataset):
    return [tuple(utterance.key for utterance in item) for item in dataset]


def tasks(dataset):
    return [dataset.task(index) for index in range(len(dataset))]


def epochs(count):
    for number in range(count):
        set_epoch(number)
        yield number


@pytest.mark.parametrize(("restores", "expected"), [(False, [0, 0, 1, 2]), (True, [0, 0, 0, 1])])
def test_epochs_are_told_from_the_trainers_calls(restores, expected):
    """An epoch with a validation, after which some loops call train(True), and one or two more."""
    counter, seen = EpochCounter(after_validation_trains=restores), []
    for mode in (True, False, True, True):
        counter.mode_set(mode)
        seen.append(current_epoch())
    assert seen == expected


def test_a_pair_is_one_sentence_in_two_languages(corpus):
    dataset, seen = ParallelSpeechDataset(corpus, seed=3), set()
    for _ in epochs(20):
        assert len(list(dataset)) == len(dataset) == 5 * 2 + 1 + 1 + 2  # half the recordings
        for item in dataset:
            assert len(item) == (1 if item[0].sentence_id == "alone" else 2)
            assert len({utterance.sentence_id for utterance in item}) == 1
            assert len({utterance.language for utterance in item}) == len(item)
            seen.add(tuple(u.language for u in item if u.sentence_id == "s0"))
    assert len(seen - {()}) == 6  # all orders of three languages


def test_each_language_is_heard_about_once_an_epoch(corpus, utterance):
    dataset, heard = ParallelSpeechDataset(corpus), Counter()
    for _ in epochs(300):
        now = Counter(u.language for item in dataset for u in item if u.sentence_id == "s0")
        assert set(now) == {"en", "es", "ru"} and sorted(now.values()) == [1, 1, 2]
        heard += now
    assert max(heard.values()) - min(heard.values()) < 60  # 400 each
    rows = [utterance(lang, "s", take) for lang in ("en", "es") for take in range(3)]
    dataset = ParallelSpeechDataset(rows)
    for _ in epochs(5):  # a language that comes up twice takes its other recording
        assert len(dataset) == 3 and len({u.key for item in dataset for u in item}) == 6


def test_a_partner_is_aligned_and_nothing_is_answered_to_it(corpus):
    dataset, partners = ParallelSpeechDataset(corpus, pairing="partner"), Counter()
    for _ in epochs(20):
        items = list(dataset)
        assert {item[0].key for item in items} == {u.key for u in corpus}
        for own, *others in items:
            assert own.target and len(others) == (own.sentence_id != "alone")
            for partner in others:
                assert partner.sentence_id == own.sentence_id and partner.language != own.language
                assert partner.target is None and partner.transcript is None
                partners[own.language, partner.language] += 1
    assert len(partners) == 6


def test_anchor_is_second_and_sentences_without_it_are_alone(corpus, utterance):
    rows = [*corpus, utterance("es", "no-en"), utterance("ru", "no-en")]
    dataset = ParallelSpeechDataset(rows, pairing="anchor", anchor_language="en")
    others = Counter()
    for _ in epochs(10):
        for item in dataset:
            assert (len(item) == 1) == (item[0].sentence_id in ("alone", "no-en"))
            if len(item) == 2:
                assert item[1].language == "en" and item[0].language != "en"
                others[item[0].language] += item[0].sentence_id == "s1"
    assert others == {"es": 10, "ru": 10}  # two draws an epoch, two other languages


def test_no_pairing_gives_every_utterance_once_and_validation_asks_the_same(corpus):
    dataset = ParallelSpeechDataset(corpus, pairing="none")
    assert sorted(keys(dataset)) == sorted((utterance.key,) for utterance in corpus)
    options = {"pairing": "none", "shuffle": False, "tasks": ["asr", "s2tt"]}
    in_order = ParallelSpeechDataset(corpus, **options)
    assert keys(in_order) == [(utterance.key,) for utterance in corpus]
    first, *others = [tasks(in_order) for _ in epochs(3)]
    assert others == [first, first] and set(first) == {"asr", "s2tt"}


def test_items_are_a_function_of_seed_epoch_and_index(corpus, utterance):
    rows = [utterance(lang, f"s{i}") for i in range(2) for lang in ("en", "es", "ru")]
    drawn = [" ".join(pair) for pair in keys(ParallelSpeechDataset(rows, seed=5))]
    # Pinned, so that a resumed run meets the pairs that it would have met.
    assert drawn == ["ru-s0-0 en-s0-0", "es-s1-0 ru-s1-0", "en-s0-0 es-s0-0", "en-s1-0 es-s1-0"]
    set_epoch(4)
    first, second = ParallelSpeechDataset(corpus, seed=1), ParallelSpeechDataset(corpus, seed=1)
    at_four = keys(first)
    assert list(first) == [second[index] for index in reversed(range(len(second)))][::-1]
    assert keys(ParallelSpeechDataset(corpus)) != at_four
    set_epoch(5)
    assert keys(first) != at_four
    set_epoch(4)
    assert keys(first) == at_four


def test_tasks_are_drawn_anew_every_epoch_and_stay_with_their_sentence(corpus, utterance):
    mixed = {"tasks": ["asr", "s2tt", "s2tt"], "seed": 1}
    dataset, again = (ParallelSpeechDataset(corpus, **mixed) for _ in range(2))
    seen = Counter()
    for _ in epochs(60):
        drawn = tasks(dataset)
        assert drawn == [again.task(index) for index in reversed(range(len(again)))][::-1]
        seen.update(drawn)
    assert abs(seen["s2tt"] / seen.total() - 2 / 3) < 0.05 and set(seen) == {"asr", "s2tt"}
    plain = ParallelSpeechDataset(corpus, seed=1)
    assert keys(plain) == keys(dataset) == keys(again)  # the pairs do not depend on the tasks
    assert set(tasks(plain)) == {"s2tt"}
    rows = [utterance(lang, f"s{i}") for i in range(30) for lang in ("en", "es")]
    some, every = (
        {item[0].sentence_id: task for item, task in zip(part, tasks(part), strict=True)}
        for part in (ParallelSpeechDataset(r, tasks=["asr", "cot"]) for r in (rows[:20], rows))
    )
    assert some == {sentence: every[sentence] for sentence in some}
    assert set(some.values()) == {"asr", "cot"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairing": "anchor", "anchor_language": "de"}, "which has en, es, fr, ru"),
        ({"utterances": []}, "no utterances"),
    ],
)
def test_bad_arguments(corpus, options, message):
    with pytest.raises(InputError, match=message):
        ParallelSpeechDataset(**{"utterances": corpus} | options)
    with pytest.raises(IndexError):
        ParallelSpeechDataset(corpus)[len(corpus)]


@pytest.mark.parametrize("pairing", ["random", "none"])
def test_batches_of_a_length_have_less_padding_and_as_many_steps(monkeypatch, utterance, pairing):
    """For two ranks, as the hosts draw: every item once an epoch, whatever the epoch."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    lengths, size = random.Random(0), 4
    rows = [
        utterance(language, str(n), duration=seconds + 0.1 * place)
        for n, seconds in enumerate(lengths.uniform(1, 25) for _ in range(150))
        for place, language in enumerate(("en", "fr"))
    ]
    make = partial(ParallelSpeechDataset, pairing=pairing)

    def batches(data):
        """Of each rank, the seconds of the rows of every batch."""
        for rank in range(2):
            drawn = [data[i] for i in DistributedSampler(data, num_replicas=2, rank=rank)]
            starts = range(0, len(drawn) - size + 1, size)
            yield [[u.duration for item in drawn[i : i + size] for u in item] for i in starts]

    def padded(found):
        return sum(max(batch) * len(batch) - sum(batch) for rank in found for batch in rank)

    data = make(rows, bucket=size)
    found, any_length = list(batches(data)), list(batches(make(rows)))
    assert len(found[0]) == len(found[1]) == len(any_length[0])
    assert padded(found) < padded(any_length) / 5
    apart = [abs(max(one) - max(other)) for one, other in zip(*found, strict=True)]
    assert sum(apart) / len(apart) < 0.5  # ranks wait for each other's longest row
    longest = [max(batch) for batch in found[0]]
    assert max(longest[: len(longest) // 2]) > min(longest[len(longest) // 2 :])  # in any order
    drawn = keys(data)
    assert sorted(chain(*drawn)) == sorted(u.key for u in rows)
    assert drawn == keys(make(rows, bucket=size))
    set_epoch(1)
    assert sorted(chain(*keys(data))) == sorted(chain(*drawn)) and keys(data) != drawn
    set_epoch(0)
    with pytest.raises(InputError, match="1 rows have no duration"):
        make([*rows, utterance("fr", "none")], bucket=size)
