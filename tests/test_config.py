"""One place for every option; conf/ only chooses values."""

from pathlib import Path
from typing import get_args

import pytest

from slam_potsa import InputError
from slam_potsa.config import PotsaConfig, TermConfig, TrainConfig, defaults, flat
from slam_potsa.config.check import check
from slam_potsa.config.compose import compose_config
from slam_potsa.config.option import Affects, options
from slam_potsa.objective.transport import TransportOptions
from tests.support import refused

ROOT = Path(__file__).resolve().parents[1]


def compose(*overrides: str) -> PotsaConfig:
    """What the entries compose of conf/ and a command line."""
    return compose_config(overrides, checked=False)


def test_what_makes_a_row_affects_the_weights_and_is_all_that_the_method_adds():
    every = list(options(PotsaConfig()))
    assert all(facts["affects"] in get_args(Affects) and facts["help"] for *_, facts in every)
    row, weights = (
        set(flat(PotsaConfig(), **of)) for of in ({"row": True}, {"affects": ["weights"]})
    )
    assert row < weights and "train_config.lr" in weights - row
    ours = {name for name in weights if name.startswith(("alignment.", "language_bias."))}
    data = ("pairing", "anchor_language", "joining", "joining_share")
    assert row == ours | {f"dataset_config.{name}" for name in data}
    assert "train_config.lr" not in flat(PotsaConfig(), affects=["answers", "nothing"])


@pytest.mark.parametrize(
    "path",
    # Recipes are no configurations but lists of them: tests/engine/test_recipe.py.
    sorted(set((ROOT / "conf").glob("*/**/*.yaml")) - set((ROOT / "conf/recipe").glob("*"))),
    ids=lambda p: str(p.relative_to(ROOT / "conf")),
)
def test_every_file_of_conf_composes(path):
    given = [f"{path.relative_to(ROOT / 'conf').parent}={path.stem}"]
    if path.stem.startswith("join"):
        given += ["ckpt_path=a.pt", "dataset_config.joining=[it]", "dataset_config.pairing=joining"]
    check(compose(*given))


def test_transport_options_are_those_of_the_objective():
    ours, theirs = vars(TermConfig()), vars(TransportOptions())
    shared = ours.keys() & theirs.keys()
    assert len(shared) == 7 and {k: ours[k] for k in shared} == {k: theirs[k] for k in shared}


def test_all_errors_come_at_once():
    config = PotsaConfig()
    config.train_config.lr = -1.0
    config.alignment.schedule.strategy = "ubc"
    config.train_config.warmup_steps = config.train_config.total_steps
    config.alignment.terms["ot"].detach = "second"
    error = refused("expected one of 'ucb', 'random'", check, config)
    assert len(error.problems) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "contrastive"}, "batch_size_training=1 is one pair"),
        ({"variant": "debiased", "distance": "mse"}, "needs distance=ot"),
        ({"variant": "debiased", "marginal_penalty": 1.0}, "needs marginal_penalty=null"),
    ],
)
def test_variants_that_could_do_nothing_are_refused(changes, message):
    config = PotsaConfig()
    config.train_config.batch_size_training = 1
    for name, value in changes.items():
        setattr(config.alignment.terms["ot"], name, value)
    refused(message, check, config)
    config.alignment.terms["ot"].weight = 0.0
    check(config)


@pytest.mark.parametrize(
    ("chosen", "terms"),
    [
        ([], {"ot": 10.0}),
        (["alignment=none"], {}),
        (["alignment=[ot,mse]", "alignment.terms.mse.weight=2"], {"ot": 10, "mse": 2}),
    ],
)
def test_terms_are_chosen_by_name_and_changed_one_by_one(chosen, terms):
    config = compose(*chosen)
    check(config)
    assert {name: term.weight for name, term in config.alignment.terms.items()} == terms


def test_keys_that_are_unknown_or_of_a_term_that_was_not_chosen_are_refused():
    with pytest.raises(InputError, match="alignment.terms.ot.distance is not set.*alignment=ot"):
        check(compose("experiment=demo_potsa", "alignment=mse"))
    refused("alignment=ot", compose, "alignment=mse", "alignment.terms.ot.weight=1")
    with pytest.raises(InputError, match="unknown key peft_config.rank: known are .*lora_alpha"):
        defaults(TrainConfig, {"peft_config": {"rank": 4}})


@pytest.mark.parametrize(("chosen", "weight"), [("ai_sta", 0.01), ("ai_sta,ai_sta_ctc", 0.005)])
def test_terms_without_a_weight_share_what_cross_entropy_leaves(chosen, weight):
    config = compose(f"alignment=[{chosen}]").alignment
    found = [term.weight for term in config.active.values()]
    assert found == [pytest.approx(weight)] * (1 + chosen.count(","))
    config.cross_entropy_weight = 1.0
    assert not config.active


@pytest.mark.parametrize(
    ("alignment", "parts", "moves"),
    [
        ("ot", ["llm.lora"], False),
        ("ot", ["encoder.last_1"], True),
        ("ot_output", ["llm"], False),
        ("ai_sta", ["llm.lora"], True),
    ],
)
def test_terms_that_would_move_nothing_are_refused(alignment, parts, moves):
    config = compose(f"alignment={alignment}", "ckpt_path=a.pt")
    config.train_config.train_parts, config.language_bias.enabled = parts, False
    if moves:
        return check(config)
    refused("moves nothing", check, config)


def test_two_terms_of_one_name_are_refused():
    with pytest.raises(InputError, match="ot and ot_paper both have a term 'ot'"):
        compose_config(["alignment=[ot, ot_paper,mse]"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["dataset_config.bucket=3"], "bucket=3: expected 0 or batch_size_training"),
        (["alignment=join_kl", "ckpt_path=a.pt", "dataset_config.joining=[it]"], "over answer"),
    ],
)
def test_what_belongs_together_is_refused_apart(given, message):
    refused(message, check, compose(*given))
