"""What several tests share."""

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
