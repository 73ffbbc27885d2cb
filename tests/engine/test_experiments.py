from pathlib import Path

import pytest

from slam_potsa.config import flat
from slam_potsa.config.compose import compose_config, conf_dir
from slam_potsa.data.jsonl import read_log
from slam_potsa.engine import native
from tests.support import tiny_recipe

FILES = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))
AI_STA = [name for name in FILES if name.startswith("ai_sta")]
# Rows without target: test_joining.py.
FILES = [name for name in FILES if "join" not in name and name not in AI_STA]
NAMES = ("train_config.model_name", "train_config.output_dir", "log_config.log_file")
TERM = "alignment.terms.ot."
# What a row of the tables changes of table1_ours, and nothing else.
ROWS = {
    "table1_ours": {},
    "table1_a_no_bias": {"language_bias.enabled": False},
    "table1_b_no_ot": {"terms": []},
    "table1_c_en_frozen": {"dataset_config.pairing": "anchor", f"{TERM}detach": "second"},
    "table1_d_en_trained": {"dataset_config.pairing": "anchor"},
    "table1_baseline": {"language_bias.enabled": False, "terms": []},
    "table2_mse": {"terms": ["mse"]},
    "table2_cosine": {"terms": ["cosine"]},
    "table2_ot": {},
    "table3_single": {f"{TERM}layers": [2]},
    "table3_multi": {f"{TERM}layers": [1, 2, 3, 4]},
    "table3_random": {"alignment.schedule.strategy": "random"},
    "table3_ucb_all": {"alignment.schedule.candidates": "all"},
    "table3_ucb_lower": {},
    "ours_scaled": {f"{TERM}cost_scale": "dim"},
}


def composed(name: str, *overrides: str):
    config = compose_config([f"experiment={name}", *overrides])
    return flat(config) | {"terms": list(config.alignment.terms)}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_changes_what_it_says_and_nothing_else(name):
    ours, row = composed("table1_ours"), composed(name)
    changed = {k: row[k] for k in ours.keys() & row.keys() if row[k] != ours[k] and k not in NAMES}
    assert changed == ROWS[name]
    assert row["train_config.model_name"] == name
    assert row["train_config.output_dir"] == f"outputs/{name}/seed42"
    head = (conf_dir() / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert any(f"finetune.py experiment={name}" in line for line in head[:6])


def test_our_row_is_the_papers():
    assert set(ROWS) <= set(FILES)
    ours = composed("table1_ours", "train_config.seed=3")
    expected = {
        "train_config.output_dir": "outputs/table1_ours/seed3",
        f"{TERM}weight": 10,
        f"{TERM}cost_scale": "none",
        "model_config.qformer_layers": 8,
        "model_config.query_len": 80,
        "language_bias.enabled": True,
        "language_bias.center": "all",
        "alignment.schedule.strategy": "ucb",
        "alignment.schedule.candidates": "lower",
        "ckpt_path": "outputs/potsa/2_s2tt/best/model.pt",
    }
    assert {name: ours[name] for name in expected} == expected
    # Ten epochs of 6,250 pairs, 32 a step.
    assert ours["train_config.total_steps"] == pytest.approx(10 * 6250 / 32, rel=0.01)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Tiny parts, and a checkpoint as the s2tt stage leaves it: no biases, no schedule."""
    folder = tmp_path_factory.mktemp("experiments")
    config = tiny_recipe.parts(folder / "world")
    sizes = tiny_recipe.sizes(config, folder / "s2tt", steps=1)
    choices = ["alignment=none", "language_bias.enabled=false", "dataset_config.pairing=none"]
    start = native.finetune(compose_config([*choices, *sizes]))
    return config, start


@pytest.mark.parametrize("name", FILES)
def test_an_experiment_trains(world, tmp_path, name):
    parts, start = world
    given = [f"experiment={name}", *tiny_recipe.sizes(parts, tmp_path, 3), f"ckpt_path='{start}'"]
    config = compose_config(given)
    native.finetune(config)
    lines = read_log(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [0, 1, 2]
    scheduled = [term for term in config.alignment.active.values() if not term.layers]
    for line in lines:
        aligned = {"ot", "mse", "cosine", "authors"} & line.keys()
        assert aligned == config.alignment.active.keys() and len(line["layers"]) == len(scheduled)
    assert (tmp_path / "language_bias.safetensors").is_file() == config.language_bias.enabled
    assert Path(config.train_config.output_dir, "model.pt").is_file()


@pytest.mark.parametrize("name", AI_STA)
def test_a_row_of_ai_sta_trains_with_tokens_that_follow_the_speech(world, tmp_path, name):
    parts, whole = world[0], compose_config([f"experiment={name}"])
    base = composed("ai_sta_vicuna_base" if "vicuna" in name else "ai_sta_base")
    changed = {k for k, v in base.items() if k != "terms" and flat(whole)[k] != v} - {*NAMES}
    assert not [k for k in changed if not k.startswith("alignment.")] or name == "ai_sta_cl"
    tiny = ["encoder_projector=window-q-former", "frames_per_token=17", "query_len=89"]
    given = [*tiny_recipe.sizes(parts, tmp_path, 2), *(f"model_config.{text}" for text in tiny)]
    given += ["native.patience=0", "native.choose_by=ce", "native.bf16=false", "ckpt_path=null"]
    if "ai_sta" in whole.alignment.terms:
        layers = [k for k in whole.alignment.terms["ai_sta"].layers if k < 3]
        given += [f"alignment.terms.ai_sta.layers={layers}"]
    native.finetune(compose_config([f"experiment={name}", *given]))
    for line in read_log(tmp_path / "metrics.jsonl"):
        assert {"ai_sta", "ctc", "cl"} & line.keys() == whole.alignment.active.keys()
