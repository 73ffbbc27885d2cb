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
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from slam_potsa.data.manifest import Utterance
from slam_potsa.data.tasks import NEEDS, TEXT, check_tasks, draw_task, fits
from slam_potsa.errors import InputError, refuse

PAIRINGS = ("random", "anchor", "partner", "joining", "none")
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

    Raises InputError where a language that joins has no sentence in common with the translated,
    a task with a share has no row, a row no task.

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
    ):
        self.utterances = list(utterances)
        self.pairing, self.anchor_language = pairing, anchor_language
        self.seed, self.shuffle = seed, shuffle
        self.tasks, self.shares = check_tasks(tasks), tuple(shares)
        self.joining, self.joining_share = tuple(joining), joining_share
        self._check()
        self._sentences = self._group()
        # A slot is (sentence, draw), (utterance index, None), or (index of an utterance that meets
        # a partner, number of its repetition); the slots are fixed for good. Those of what joins
        # come after them, `_num_joins` an epoch, `_taught` in turn.
        self._slots = self._plan()
        self._taught = self._with_partner()
        needed = self.joining_share / (1 - self.joining_share) * len(self._slots)
        self._num_joins = max(len(self._taught), math.ceil(needed - 1e-9)) if joining else 0
        self._pools = self._pool() if shares else {}
        self._born = 0  # see __getstate__
        self._order: tuple[int, list[Any]] | None = None

    @property
    def epoch(self) -> int:
        return max(current_epoch(), self._born)

    @property
    def num_pairs(self) -> int:
        """How many of the items are pairs."""
        return sum(draw is not None for _, draw in self._slots) + self._num_joins

    def __len__(self) -> int:
        return len(self._slots) + self._num_joins

    def __getitem__(self, index: int) -> Item:
        epoch = self.epoch
        key, draw = self._slot(index, epoch)
        if draw is None:
            return (self.utterances[key],)
        if isinstance(key, int):
            return self._meet(self.utterances[key], draw, epoch)
        return self._draw(key, draw, epoch)

    def task(self, index: int) -> str:
        """The task of item `index`, the same for both rows of a pair.

        A function of (seed, epoch, sentence and draw, or key); unshuffled, of all but the epoch, so
        that every validation asks the same.
        """
        epoch = self.epoch
        if self._pools and self.shuffle:
            return self._mixture(epoch)[index][1]
        key, draw = self._slot(index, epoch)
        name = self.utterances[key].key if isinstance(key, int) else key
        shares = {t: s for t, s in zip(self.tasks, self.shares, strict=False) if self._fits(t, key)}
        place = self.seed, epoch if self.shuffle else "", name, draw
        return draw_task([*shares] or self.tasks, *place, shares=[*shares.values()])

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    # A worker that is spawned, not forked, gets a pickled copy and a clock that stands at 0: the
    # copy brings the epoch of its origin along, and goes by whichever is later.

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_order": None, "_born": (os.getpid(), current_epoch())}

    def __setstate__(self, state: dict) -> None:
        process, epoch = state.pop("_born")
        self.__dict__.update(state, _born=0 if process == os.getpid() else epoch)

    def _check(self) -> None:
        if self.pairing not in PAIRINGS:
            raise InputError(f"pairing {self.pairing!r}: expected one of {', '.join(PAIRINGS)}")
        if not self.utterances:
            raise InputError("no utterances: expected a manifest with at least one")
        languages = sorted({utterance.language for utterance in self.utterances})
        if self.pairing == "anchor" and self.anchor_language not in languages:
            raise InputError(
                f"anchor_language {self.anchor_language!r} is not in the manifest, which has "
                f"{', '.join(languages)}: take one of these, or pairing=random"
            )

    def _group(self) -> dict[str, dict[str, list[Utterance]]]:
        """sentence_id -> language -> recordings."""
        sentences: dict[str, dict[str, list[Utterance]]] = defaultdict(lambda: defaultdict(list))
        for utterance in self.utterances:
            if utterance.language not in self.joining and utterance.audio:
                sentences[utterance.sentence_id][utterance.language].append(utterance)
        return {sentence: dict(spoken) for sentence, spoken in sentences.items()}

    def _has_pairs(self, sentence: str) -> bool:
        spoken = self._sentences.get(sentence, {})
        anchored = self.pairing != "anchor" or self.anchor_language in spoken
        return self.pairing in ("random", "anchor") and len(spoken) > 1 and anchored

    def _plan(self) -> list[tuple[str, int] | tuple[int, None]]:
        slots, planned = [], set()
        for index, utterance in enumerate(self.utterances):
            sentence = utterance.sentence_id
            if utterance.language in self.joining:
                continue
            if not self._has_pairs(sentence) or not utterance.audio:
                partners = self._sentences[sentence] if utterance.audio else ()
                has_partner = self.pairing == "partner" and len(partners) > 1
                slots.append((index, 0 if has_partner else None))
            elif sentence not in planned:
                planned.add(sentence)
                recordings = sum(map(len, self._sentences[sentence].values()))
                slots += [(sentence, draw) for draw in range((recordings + 1) // 2)]
        return slots

    def _fits(self, task: str, key: str | int) -> bool:
        """Whether all recordings of a slot have what the task needs."""
        one = [[self.utterances[key]]] if isinstance(key, int) else self._sentences[key].values()
        return all(fits(task, utterance) for own in one for utterance in own)

    def _pool(self) -> dict[str, list[tuple[Any, int | None]]]:
        """By task, the slots that fit it; what is read and not heard is never paired."""
        alone = [(index, None) for index in range(len(self.utterances))]
        slots = {task: alone if task in TEXT else self._slots for task in self.tasks}
        pools = {task: [s for s in own if self._fits(task, s[0])] for task, own in slots.items()}
        idle = [u.key for u in self.utterances if not any(fits(task, u) for task in self.tasks)]
        problems = [
            f"task {task!r} has a share, and no row has its {', '.join(NEEDS[task])}: add some, or "
            "take it out of dataset_config.tasks and task_shares"
            for task in self.tasks
            if not pools[task] and self.shuffle
        ]
        told = f"{len(idle)} rows have the fields of none of the tasks, such as {idle[:1]}"
        refuse(problems + [told] * bool(idle))
        return pools

    def _mixture(self, epoch: int) -> list[tuple[tuple[Any, int | None], str]]:
        """(Slot, task) by item of an epoch."""
        if self._order is None or self._order[0] != epoch:
            ends = [0, *accumulate(self.shares)]
            ends = [round(len(self) * end / ends[-1]) for end in ends]
            placed = []
            for task, begin, end in zip(self.tasks, ends, ends[1:], strict=False):
                count = end - begin
                placed += [(slot, task) for slot in self._turn(task, epoch * count, count)]
            random.Random(f"order:{self.seed}:{epoch}").shuffle(placed)
            self._order = (epoch, placed)
        return self._order[1]

    def _turn(self, task: str, start: int, count: int) -> Iterator[tuple[Any, int | None]]:
        """`count` of a task's slots from `start` on, in one random order after the other."""
        pool = self._pools[task]
        for lap in range(start // len(pool), (start + count - 1) // len(pool) + 1):
            order = pool.copy()
            random.Random(f"mix:{self.seed}:{task}:{lap}").shuffle(order)
            first = lap * len(pool)
            yield from order[max(0, start - first) : start + count - first]

    def _with_partner(self) -> list[int]:
        """The indices of what joins and has a partner."""
        rows = [(index, u) for index, u in enumerate(self.utterances) if u.language in self.joining]
        taught = [(index, u) for index, u in rows if u.sentence_id in self._sentences]
        refuse(
            f"joining language {language!r}: found no sentence_id that it shares with a translated "
            "recording, which is all that it learns from; give the same sentence_id to recordings "
            "of one meaning, or take it out of dataset_config.joining"
            for language in sorted(set(self.joining) - {u.language for _, u in taught})
        )
        return [index for index, _ in taught]

    def _slot(self, index: int, epoch: int) -> tuple[str, int] | tuple[int, None]:
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        if self._pools and self.shuffle:
            return self._mixture(epoch)[index][0]
        place = self._permutation(epoch)[index] if self.shuffle else index
        if place < len(self._slots):
            return self._slots[place]
        turn = place - len(self._slots) + epoch * self._num_joins
        return self._taught[turn % len(self._taught)], turn // len(self._taught)

    def _permutation(self, epoch: int) -> list[int]:
        if self._order is None or self._order[0] != epoch:
            order = list(range(len(self)))
            random.Random(f"order:{self.seed}:{epoch}").shuffle(order)
            self._order = (epoch, self._spread(order) if self._num_joins else order)
        return self._order[1]

    def _spread(self, order: list[int]) -> list[int]:
        """`order`, with what joins at even distances in what each rank draws."""
        joining = iter([place for place in order if place >= len(self._slots)])
        others = iter([place for place in order if place < len(self._slots)])
        spread, joins = order.copy(), self._num_joins
        for turn, index in enumerate(_drawn(len(order))):
            is_due = (turn + 1) * joins // len(order) > turn * joins // len(order)
            spread[index] = next(joining if is_due else others)
        return spread

    def _draw(self, sentence: str, draw: int, epoch: int) -> Item:
        spoken = self._sentences[sentence]
        rng = random.Random(f"pairs:{self.seed}:{epoch}:{sentence}")
        languages = sorted(spoken)
        if self.pairing == "anchor":
            languages.remove(self.anchor_language)
        rng.shuffle(languages)
        recordings = {lang: rng.sample(spoken[lang], len(spoken[lang])) for lang in sorted(spoken)}
        turns = self._turns(languages, draw)
        # A language that comes up again takes its next recording.
        return tuple(recordings[lang][turn % len(recordings[lang])] for lang, turn in turns)

    def _meet(self, utterance: Utterance, repetition: int, epoch: int) -> Item:
        """A pair of which one half has an answer: not what joins, and not a mere partner."""
        spoken = self._sentences[utterance.sentence_id]
        joins = utterance.language in self.joining
        languages = sorted(spoken.keys() - {utterance.language})
        if self.pairing == "anchor" and self.anchor_language in spoken:
            languages = [self.anchor_language]
        place = "joins" if joins else "partner"
        rng = random.Random(f"{place}:{self.seed}:{epoch}:{utterance.key}:{repetition}")
        partner = rng.choice(spoken[rng.choice(languages)])
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


def _drawn(count: int) -> list[int]:
    """The indices of `count` items in the order in which the hosts' sampler draws them.

    First all of rank 0, then all of rank 1, and so on.
    """
    from torch.utils.data import DistributedSampler

    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    order = list(DistributedSampler(range(count), num_replicas=1, rank=0))
    return [index for rank in range(ranks) for index in order[rank::ranks]]


def shuffled_partners(utterances: Iterable[Utterance], seed: int = 0) -> list[Utterance]:
    """The control of every claim: each sentence with the id of another one.

    The same recordings and targets, in pairs as many, whose halves mean different things wherever
    other utterances keep their ids. What still helps is not what the pairs mean. Raises InputError
    for one sentence alone, which has no other.
    """
    rows = list(utterances)
    order = sorted({utterance.sentence_id for utterance in rows})
    if len(order) < 2:
        raise InputError(f"shuffled partners: expected two sentences or more, got {len(order)}")
    random.Random(f"control:{seed}").shuffle(order)
    other = dict(zip(order, order[1:] + order[:1], strict=True))
    return [replace(utterance, sentence_id=other[utterance.sentence_id]) for utterance in rows]
