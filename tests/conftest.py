import os

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


# Files with long tests start first: a file is one worker's, and the last would be waited for.
LONG = ("test_kills", "test_decode", "test_native", "test_demo", "test_dataset")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(n) if (n := item.path.stem) in LONG else len(LONG))


@pytest.fixture(autouse=True)
def _first_epoch():
    """The epoch clock is process-wide: each test starts at epoch 0."""
    from slam_potsa.data.pairs import set_epoch

    set_epoch(0)
    yield
    set_epoch(0)
