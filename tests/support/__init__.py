"""What several tests share."""

import pytest

from slam_potsa.errors import InputError


def refused(message: str, call, *given, **options) -> None:
    """`call` refuses what it is given, with a message that matches."""
    with pytest.raises(InputError, match=message):
        call(*given, **options)
