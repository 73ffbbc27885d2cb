import pytest

from slam_potsa.data import epoch


def test_clock_counts_from_zero_and_can_be_set():
    assert epoch.current() == 0
    assert epoch.advance() == 1 == epoch.current()
    epoch.set(7)
    assert epoch.advance() == 8


def test_negative_epoch_is_refused():
    with pytest.raises(ValueError, match="0 or more, got -1"):
        epoch.set(-1)
