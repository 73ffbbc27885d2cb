import pytest

from slam_potsa.data import epoch


@pytest.mark.parametrize(("restores", "expected"), [(False, [0, 0, 1, 2]), (True, [0, 0, 0, 1])])
def test_epochs_are_told_from_the_trainers_calls(restores, expected):
    """An epoch with a validation, after which some loops call train(True), and one or two more."""
    counter, seen = epoch.EpochCounter(after_validation_trains=restores), []
    for mode in (True, False, True, True):
        counter.mode_set(mode)
        seen.append(epoch.current())
    assert seen == expected


def test_the_clock_can_be_set_and_never_back_before_the_start():
    assert epoch.current() == 0
    epoch.set(7)
    assert epoch.current() == 7
    with pytest.raises(ValueError, match="-1"):
        epoch.set(-1)
