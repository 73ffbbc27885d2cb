"""The examples in the docstrings do what they say."""

import doctest
import importlib

import pytest

OBJECTIVE = ("transport", "distances", "layer_schedule", "terms")


EVALUATION = ("compare", "paper")


@pytest.mark.parametrize(
    "name",
    [
        "text",
        "provenance",
        *(f"objective.{n}" for n in OBJECTIVE),
        *(f"evaluation.{n}" for n in EVALUATION),
    ],
)
def test_docstring_examples(name):
    module = importlib.import_module(f"slam_potsa.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0
