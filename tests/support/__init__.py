"""What several tests share."""

import resource
from contextlib import contextmanager

import pytest

from slam_potsa.errors import InputError


def refusal(call, *given, **options) -> InputError:
    """The error with which `call` refuses what it is given."""
    with pytest.raises(InputError) as caught:
        call(*given, **options)
    return caught.value


def refused(message: str, call, *given, **options) -> InputError:
    """The same, where the error matches `message`."""
    with pytest.raises(InputError, match=message) as caught:
        call(*given, **options)
    return caught.value


@contextmanager
def little_space(room: int):
    """Files end at `room` bytes, as on a full disk; Python ignores the signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
