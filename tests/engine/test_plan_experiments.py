"""Every configuration and recipe that is shipped can be planned without weights, data or a hub."""

from __future__ import annotations

import json

import pytest

from slam_potsa.commands.plan import read_stages
from slam_potsa.config.compose import compose_config, conf_dir
from slam_potsa.engine.plan.plan import plan_stages

EXPERIMENTS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))
RECIPES = sorted(path.stem for path in (conf_dir() / "recipe").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError("a hub was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_can_be_planned(name):
    config = compose_config([f"experiment={name}"], checked=False)
    plan = plan_stages([(name, config)], name=name)
    if name.startswith("demo"):  # its parts are built by `make demo`
        assert all("no folder here" in problem for problem in plan.problems)
        return
    assert not plan.problems and len(plan.stages) == 1
    assert "Qwen/Qwen2.5-7B" in plan.text() and json.loads(json.dumps(plan.as_dict()))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_planned(name):
    title, stages, processes = read_stages([f"recipe={name}"])
    plan = plan_stages(stages, name=title, gpus=processes)
    assert not plan.problems and len(plan.stages) == len(stages)
