"""Parallel pairs: which utterances meet in an item, as a function of (seed, epoch, index) alone.

For a sentence with R recordings in K languages (K >= 2), an epoch draws ceil(R / 2) pairs. Draw d
takes languages p[2d mod K] and p[(2d + 1) mod K] of a permutation p made new every epoch, so each
language is heard about once an epoch and never meets itself. With `pairing="anchor"` draw d is
(p[d mod (K - 1)] of the other languages, the anchor). The paper (POTSA, section 3) pairs two random
languages; how often a sentence is drawn in an epoch it does not say.

With `pairing="partner"` each recording is an item of its own, as with "none", and a recording of
its sentence in another language comes second, for alignment only: nothing is answered to it. A
batch then has as many different sentences as one of single utterances, where one of pairs has half.

A language that joins (`joining`) has no targets. Each of its recordings meets a translated one of
its sentence, which comes second, and is left out where there is none. With `pairing="joining"`
there are no other pairs.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np

from slam_potsa.data.order import bucketed, placed
from slam_potsa.data.rows import Rows, Sentences, Utterance, column, heard
from slam_potsa.data.tasks import NEEDS, TEXT, draw_task, fitting
from slam_potsa.errors import InputError, refuse

Item = tuple[Utterance, ...]  # a pair of one sentence in two languages, or one utterance


_epoch = 0  # of this process


def current_epoch() -> int:
    """The epoch that is running, from 0, where no trainer calls `set_epoch`.

    SLAM-LLM's loop passes no epoch anywhere, but it calls `model.train(True)` once an epoch, and
    its data-loader workers are forked after that: a number kept here by the main process is seen by
    that epoch's workers. Persistent workers live through several epochs and would not see it
    change, so do not use `persistent_workers=True` with it.
    """
    return _epoch


def set_epoch(epoch: int) -> None:
    """Jump to `epoch`, as a resumed run does."""
    global _epoch
    _epoch = epoch


class EpochCounter:
    """Tells epochs from a trainer's calls of `model.train()`: SLAM-LLM's makes one an epoch.

    Args:
        after_validation_trains: do not count a call that follows one with False, as in SLAM-LLM's
            DeepSpeed loop, which goes back to training after each validation.
    """

    def __init__(self, after_validation_trains: bool = False):
        self.after_validation_trains = after_validation_trains
        self._begun, self._last_mode = 0, True

    def mode_set(self, mode: bool) -> None:
        """To be called with what the trainer gave `train(mode)`."""
        if mode and (self._last_mode or not self.after_validation_trains):
            set_epoch(self._begun)
            self._begun += 1
        self._last_mode = mode


class ParallelSpeechDataset:
    """A map-style list of items; the same in every process and worker, shuffled anew each epoch.

    Args:
        utterances: of the manifest, in any order.
        pairing: "random": two random languages a pair; "anchor": any other language first, then
            `anchor_language`; "partner": each utterance, then a partner without an answer;
            "joining": only with a language that joins; "none": all alone.
        seed: of the pairs, of the order and of the tasks.
        shuffle: False keeps the manifest's order, as decoding and validation want it.
        tasks: names of `slam_potsa.data.tasks`; every item draws one, see `task`.
        shares: of an epoch's items, by task, up to a factor. A task takes the items that fit it in
            a random order, on from where it stopped in the epoch before; none goes by itself.
        joining: languages without targets.
        joining_share: of the items, pairs with these at least: their recordings take turns, over
            epochs too, once an epoch at least. Of any w items that a rank draws one after the
            other, floor(w * share) are such pairs, where torch's DistributedSampler draws (as in
            both hosts) and WORLD_SIZE says among how many; but for what it adds at the very end.
        bucket: items a batch whose lengths are to be alike, `order.bucketed`; 0: any.

    Raises InputError where a language that joins has no sentence in common with the translated,
    a task with a share has no row, a row no task, a row to be sorted by length no duration.

    An utterance without a partner is an item of its own, once an epoch. The epoch is the process's
    (`current_epoch`). `len()` is the same in every epoch.
    Shard it by rank with a sampler that does not shuffle by itself, or with one that does.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        *,
        pairing: str = "random",
        anchor_language: str = "en",
        seed: int = 0,
        shuffle: bool = True,
        tasks: Sequence[str] = ("s2tt",),
        joining: Sequence[str] = (),
        joining_share: float = 0.0,
        shares: Sequence[float] = (),
        bucket: int = 0,
    ):
        self.utterances = utterances if isinstance(utterances, Rows) else list(utterances)
        self.pairing, self.anchor_language = pairing, anchor_language
        self.seed, self.shuffle = seed, shuffle
        self.tasks, self.shares = tuple(tasks), tuple(shares)
        self.joining, self.joining_share = tuple(joining), joining_share
        self.bucket = bucket
        self._sentences = Sentences(self.utterances, self.joining)
        self._check()
        # A slot is a row and which draw of its sentence it is, or repetition of its meeting with a
        # partner; -1: the row alone. Slots are fixed for good. Those of what joins come after them,
        # `_num_joins` an epoch, `_taught` in turn.
        self._paired, self._rows, self._draws = self._plan()
        self._taught = self._with_partner()
        needed = self.joining_share / (1 - self.joining_share) * len(self._rows)
        self._num_joins = max(len(self._taught), math.ceil(needed - 1e-9)) if joining else 0
        self._fit = {task: fitting(task, self.utterances) for task in self.tasks if shares}
        self._pools = self._pool() if shares else {}
        self._born = 0  # see __getstate__
        self._items: tuple[Any, ...] | None = None  # an epoch, and what its items are

    @property
    def epoch(self) -> int:
        return max(current_epoch(), self._born)

    @property
    def num_pairs(self) -> int:
        """How many of the items are pairs."""
        return int((self._draws >= 0).sum()) + self._num_joins

    @property
    def num_half_answered(self) -> int:
        """How many of the pairs have one half that is only aligned, see `_meet`."""
        return int((self._draws[~self._paired[self._rows]] >= 0).sum()) + self._num_joins

    @property
    def left_out(self) -> int:
        """How many recordings of what joins have no translated partner."""
        return int(self._sentences.joins.sum()) - len(self._taught)

    def __len__(self) -> int:
        return len(self._rows) + self._num_joins

    def __getitem__(self, index: int) -> Item:
        row, draw, _ = self._slot(index)
        if draw < 0:
            return (self.utterances[row],)
        return (self._draw if self._paired[row] else self._meet)(row, draw, self.epoch)

    def task(self, index: int) -> str:
        """The task of item `index`, the same for both rows of a pair.

        A function of (seed, epoch, sentence and draw, or key); unshuffled, of all but the epoch, so
        that every validation asks the same.
        """
        row, draw, task = self._slot(index)
        if task or len(set(self.tasks)) == 1:
            return task or self.tasks[0]
        rows, name = [row], self.utterances[row].key
        if self._paired[row]:
            rows, name = self._recordings(row), self.utterances[row].sentence_id
        shares = zip(self.tasks, self.shares, strict=False)
        shares = {task: share for task, share in shares if self._fit[task][rows].all()}
        place = self.seed, self.epoch if self.shuffle else "", name, draw if draw >= 0 else None
        return draw_task([*shares] or self.tasks, *place, shares=[*shares.values()])

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    # A worker that is spawned, not forked, gets a pickled copy and a clock that stands at 0: the
    # copy brings the epoch of its origin along, and goes by whichever is later.

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_items": None, "_born": (os.getpid(), current_epoch())}

    def __setstate__(self, state: dict) -> None:
        process, epoch = state.pop("_born")
        self.__dict__.update(state, _born=0 if process == os.getpid() else epoch)

    def _check(self) -> None:
        if not self.utterances:
            raise InputError("no utterances: expected a manifest with at least one")
        languages = sorted(self._sentences.languages)
        if self.pairing == "anchor" and self.anchor_language not in languages:
            raise InputError(
                f"anchor_language {self.anchor_language!r} is not in the manifest, which has "
                f"{', '.join(languages)}: take one of these, or pairing=random"
            )
        if self.bucket and None in (lengths := heard(self.utterances, "duration")):
            raise InputError(
                f"{lengths.count(None)} rows have no duration, by which dataset_config.bucket "
                "sorts: add it, or set bucket to 0"
            )

    def _plan(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which rows [R] pairs are drawn of; rows and draws of the slots, as the manifest goes."""
        known, rows = self._sentences, np.arange(len(self.utterances))
        has_pairs = (known.spoken_in > 1) & (self.pairing in ("random", "anchor"))
        if self.pairing == "anchor":
            anchors = known.meets & (known.language == known.languages.index(self.anchor_language))
            has_pairs &= np.bincount(known.number, anchors) > 0
        paired = has_pairs[known.number] & known.meets
        # The first recording of a sentence stands for all of its draws.
        first = np.zeros(len(rows), bool)
        first[rows[paired][np.unique(known.number[paired], return_index=True)[1]]] = True
        counts = np.where(first, (known.recordings[known.number] + 1) // 2, ~known.joins & ~paired)
        own = np.repeat(rows, counts)
        draws = np.arange(len(own)) - np.repeat(np.cumsum(counts) - counts, counts)
        is_met = (self.pairing == "partner") & known.meets & (known.spoken_in[known.number] > 1)
        return paired, own, np.where((paired | is_met)[own], draws, -1)

    def _recordings(self, row: int) -> np.ndarray:
        """The rows of its sentence that may be partners."""
        return self._sentences.rows(self._sentences.number[row])

    def _pool(self) -> dict[str, list[tuple[int, int]]]:
        """By task, the slots that fit it; what is read and not heard is never paired."""
        known, pools = self._sentences, {}
        for task, fits in self._fit.items():
            # Of a sentence, all recordings must fit.
            whole = np.bincount(known.number, ~fits & known.meets) == 0
            fit = np.where(self._paired, whole[known.number], fits)[self._rows]
            slots = zip(self._rows[fit].tolist(), self._draws[fit].tolist(), strict=True)
            alone = ((row, -1) for row in np.flatnonzero(fits).tolist())
            pools[task] = list(alone if task in TEXT else slots)
        idle = np.flatnonzero(~np.any(list(self._fit.values()), 0))
        problems = [
            f"task {task!r} has a share, and no row has its {', '.join(NEEDS[task])}: add some, or "
            "take it out of dataset_config.tasks and task_shares"
            for task in self.tasks
            if not pools[task] and self.shuffle
        ]
        such_as = [self.utterances[row].key for row in idle[:1]]
        told = f"{len(idle)} rows have the fields of none of the tasks, such as {such_as}"
        refuse(problems + [told] * bool(len(idle)))
        return pools

    def _mixture(self, epoch: int) -> Iterable[Sequence[Any]]:
        """Rows, draws and tasks of the items of an epoch."""
        ends = [0, *accumulate(self.shares)]
        ends = [round(len(self) * end / ends[-1]) for end in ends]
        items = []
        for task, begin, end in zip(self.tasks, ends, ends[1:], strict=False):
            count = end - begin
            items += [(*slot, task) for slot in self._turn(task, epoch * count, count)]
        random.Random(f"order:{self.seed}:{epoch}").shuffle(items)
        return zip(*items, strict=True)

    def _turn(self, task: str, start: int, count: int) -> Iterator[tuple[int, int]]:
        """`count` of a task's slots from `start` on, in one random order after the other."""
        pool = self._pools[task]
        for lap in range(start // len(pool), (start + count - 1) // len(pool) + 1):
            order = pool.copy()
            random.Random(f"mix:{self.seed}:{task}:{lap}").shuffle(order)
            first = lap * len(pool)
            yield from order[max(0, start - first) : start + count - first]

    def _with_partner(self) -> np.ndarray:
        """The rows of what joins and has a partner."""
        known = self._sentences
        taught = known.joins & (known.recordings[known.number] > 0)
        met = {known.languages[number] for number in np.unique(known.language[taught])}
        refuse(
            f"joining language {language!r}: found no sentence_id that it shares with a translated "
            "recording, which is all that it learns from; give the same sentence_id to recordings "
            "of one meaning, or take it out of dataset_config.joining"
            for language in sorted(set(self.joining) - met)
        )
        return np.flatnonzero(taught)

    def _slot(self, index: int) -> tuple[int, int, str]:
        """(row, draw, task of the mixture, else "")"""
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        epoch = self.epoch
        if self._items is None or self._items[0] != epoch:
            make = self._mixture if self._pools and self.shuffle else self._listed
            self._items = (epoch, *make(epoch))
        _, rows, draws, *tasks = self._items
        return int(rows[index]), int(draws[index]), tasks[0][index] if tasks else ""

    def _listed(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and draws of the items of an epoch."""
        turns = epoch * self._num_joins + np.arange(self._num_joins)
        repetitions, places = np.divmod(turns, max(1, len(self._taught)))
        order = list(range(len(self)))
        if self.shuffle:
            random.Random(f"order:{self.seed}:{epoch}").shuffle(order)
            if self._num_joins:
                order = self._spread(order)
            elif self.bucket:
                rng = random.Random(f"buckets:{self.seed}:{epoch}")
                order = bucketed(order, self._lengths(), self.bucket, rng)
        rows = np.concatenate([self._rows, self._taught[places]])
        return rows[order], np.concatenate([self._draws, repetitions])[order]

    def _lengths(self) -> np.ndarray:
        """Seconds of a slot; of a sentence, whose recordings take turns, the mean of all."""
        known, seconds = self._sentences, np.array(column(self.utterances, "duration"), float)
        mean = np.bincount(known.number, np.where(known.meets, seconds, 0))
        mean /= np.maximum(1, known.recordings)
        return np.where(self._paired, mean[known.number], seconds)[self._rows]

    def _spread(self, order: list[int]) -> list[int]:
        """`order`, with what joins at even distances in what each rank draws."""
        joining = iter([place for place in order if place >= len(self._rows)])
        others = iter([place for place in order if place < len(self._rows)])
        due = np.diff(np.arange(len(order) + 1) * self._num_joins // len(order))
        return placed([next(joining if is_due else others) for is_due in due])

    def _draw(self, row: int, draw: int, epoch: int) -> Item:
        spoken = self._sentences.by_language(self._sentences.number[row])
        name = self.utterances[row].sentence_id
        rng = random.Random(f"pairs:{self.seed}:{epoch}:{name}")
        languages = sorted(spoken)
        if self.pairing == "anchor":
            languages.remove(self.anchor_language)
        rng.shuffle(languages)
        recordings = {lang: rng.sample(spoken[lang], len(spoken[lang])) for lang in sorted(spoken)}
        turns = self._turns(languages, draw)
        # A language that comes up again takes its next recording.
        rows = (recordings[lang][turn % len(recordings[lang])] for lang, turn in turns)
        return tuple(self.utterances[row] for row in rows)

    def _meet(self, row: int, repetition: int, epoch: int) -> Item:
        """A pair of which one half has an answer: not what joins, and not a mere partner."""
        utterance = self.utterances[row]
        spoken = self._sentences.by_language(self._sentences.number[row])
        joins = utterance.language in self.joining
        languages = sorted(spoken.keys() - {utterance.language})
        if self.pairing == "anchor" and self.anchor_language in spoken:
            languages = [self.anchor_language]
        place = "joins" if joins else "partner"
        rng = random.Random(f"{place}:{self.seed}:{epoch}:{utterance.key}:{repetition}")
        partner = self.utterances[rng.choice(spoken[rng.choice(languages)])]
        if joins:  # its prompt, which nothing is answered to, is its partner's
            return replace(utterance, target_language=partner.target_language), partner
        return utterance, replace(partner, transcript=None, target=None)

    def _turns(self, languages: list[str], draw: int) -> list[tuple[str, int]]:
        """The two languages of a draw, each with how often it came up before."""
        count = len(languages)
        if self.pairing == "anchor":
            return [(languages[draw % count], draw // count), (self.anchor_language, draw)]
        places = (2 * draw, 2 * draw + 1)
        return [(languages[place % count], place // count) for place in places]


def shuffled_partners(utterances: Iterable[Utterance], seed: int = 0) -> list[Utterance]:
    """The control of every claim: each sentence with the id of another one.

    The same recordings and targets, in pairs as many, whose halves mean different things wherever
    other utterances keep their ids. What still helps is not what the pairs mean. Raises InputError
    for one sentence alone, which has no other.
    """
    rows = list(utterances)
    other = another_sentence((row.sentence_id for row in rows), f"control:{seed}")
    return [replace(row, sentence_id=other[row.sentence_id]) for row in rows]


def another_sentence(names: Iterable[str], seed: str) -> dict[str, str]:
    """Each sentence -> the next in a random order. Raises InputError where there is one alone."""
    order = sorted(set(names))
    if len(order) < 2:
        raise InputError(f"expected two sentences or more, got {len(order)}: there is no other")
    random.Random(seed).shuffle(order)
    return dict(zip(order, order[1:] + order[:1], strict=True))
