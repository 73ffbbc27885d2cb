import os

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _first_epoch():
    """The epoch clock is process-wide: each test starts at epoch 0."""
    from slam_potsa.data.pairs import set_epoch

    set_epoch(0)
    yield
    set_epoch(0)
