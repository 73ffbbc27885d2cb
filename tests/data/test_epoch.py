import pytest

from slam_potsa.data import epoch


def test_clock_counts_from_zero_and_can_be_set():
    assert epoch.current() == 0
    epoch.set(7)
    assert epoch.current() == 7


def test_epochs_are_told_from_the_trainers_calls():
    counter, seen = epoch.EpochCounter(), []
    for mode in (True, False, True, True):  # an epoch with a validation, and two more
        counter.mode_set(mode)
        seen.append(epoch.current())
    assert seen == [0, 0, 1, 2]


def test_a_call_that_only_ends_a_validation_is_no_epoch():
    counter, seen = epoch.EpochCounter(after_validation_trains=True), []
    for mode in (True, False, True, True):
        counter.mode_set(mode)
        seen.append(epoch.current())
    assert seen == [0, 0, 0, 1]


def test_negative_epoch_is_refused():
    with pytest.raises(ValueError, match="0 or more, got -1"):
        epoch.set(-1)
