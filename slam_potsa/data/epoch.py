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
    """Jump to `epoch`, as a resumed run does. Raises ValueError when it is negative."""
    global _epoch
    if epoch < 0:
        raise ValueError(f"epoch must be 0 or more, got {epoch}")
    _epoch = int(epoch)


class EpochCounter:
    """Tells epochs from the calls of a model's `train()`, where a trainer never calls `set_epoch`.

    SLAM-LLM calls `train()` once an epoch; its DeepSpeed loop after each validation too.

    Args:
        after_validation_trains: do not count a call that follows one with False.
    """

    def __init__(self, after_validation_trains: bool = False):
        self.after_validation_trains = after_validation_trains
        self._begun, self._last_mode = 0, True

    def mode_set(self, mode: bool) -> None:
        """To be called with what the trainer gave `train(mode)`."""
        restored = self.after_validation_trains and not self._last_mode
        if mode and not restored:
            set(self._begun)
            self._begun += 1
        self._last_mode = mode
