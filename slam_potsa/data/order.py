"""In which order items are drawn: by both hosts, through torch's DistributedSampler, the same.

The dataset permutes its items anew every epoch and the sampler permutes places, once and for all.
Where something is to hold of what a rank draws, of its batches, a permutation undoes the sampler's.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

import numpy as np

WINDOW = 64  # batches of all ranks whose items are sorted together


def ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def placed(items: Sequence[int]) -> list[int]:
    """The order of which the hosts' sampler makes `items`: all that rank 0 draws, rank 1, …"""
    from torch.utils.data import DistributedSampler

    found, order = list(items), list(DistributedSampler(items, num_replicas=1, rank=0))
    drawn = (index for rank in range(ranks()) for index in order[rank :: ranks()])
    for index, item in zip(drawn, items, strict=True):
        found[index] = item
    return found


def bucketed(order: Sequence[int], lengths: np.ndarray, size: int, rng: random.Random) -> list[int]:
    """`order`, rearranged so that the batches that the ranks draw at once are about as long.

    Every WINDOW of them is sorted by `lengths` and cut into new ones, in random order: each rank
    still draws as many. Items that fill no batch of all ranks come last.

    Args:
        lengths: of each item.
        size: items a batch and rank.
    """
    at_once, steps = size * ranks(), []
    for start in range(0, len(order), WINDOW * at_once):
        window = np.array(order[start : start + WINDOW * at_once])
        window = window[np.argsort(lengths[window], kind="stable")]
        # What is left over is of any length, not the longest.
        rest = sorted(rng.sample(range(len(window)), len(window) % at_once))
        left = window[rest].tolist()
        window = np.delete(window, rest)
        steps += window.reshape(-1, at_once).tolist()
    rng.shuffle(steps)
    own = [[item for step in steps for item in step[rank :: ranks()]] for rank in range(ranks())]
    for place, item in enumerate(left):
        own[place % ranks()].append(item)
    return placed([item for rank in own for item in rank])
