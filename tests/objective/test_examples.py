"""The examples in the docstrings do what they say."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["transport", "distances", "layer_schedule", "terms"])
def test_docstring_examples(name):
    module = importlib.import_module(f"slam_potsa.objective.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0
