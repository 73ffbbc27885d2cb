"""A recipe that has been trained, once for all tests of the engine; they work on copies."""

from __future__ import annotations

import pytest

from slam_potsa.engine.recipe import load_recipe
from tests.support import tiny_recipe


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    recipe = load_recipe(str(tiny_recipe.write(folder)))
    tiny_recipe.train(recipe)
    return folder, recipe
