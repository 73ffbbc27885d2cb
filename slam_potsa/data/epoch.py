"""The epoch number of this process, for datasets whose trainer never calls `set_epoch`.

SLAM-LLM's loop passes no epoch anywhere, but it calls `model.train(True)` once an epoch, and its
data-loader workers are forked after that: a number kept here by the main process is seen by that
epoch's workers. Persistent workers live through several epochs and would not see it change, so do
not use `persistent_workers=True` with it.
"""

from __future__ import annotations

_epoch = 0


def current() -> int:
    """The epoch that is running, from 0."""
    return _epoch


def set(epoch: int) -> None:  # noqa: A001 - read as `epoch.set(3)`
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
            set(self._begun)
            self._begun += 1
        self._last_mode = mode
