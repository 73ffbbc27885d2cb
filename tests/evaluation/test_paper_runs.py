"""Which runs may stand side by side: settings, seeds, utterances."""

from __future__ import annotations

import dataclasses

import pytest

from slam_potsa.data.predictions import read_predictions, write_predictions
from slam_potsa.errors import InputError
from slam_potsa.evaluation.paper_tables import fill_table
from tests.support.paper_runs import problems, run


def notes(*runs):
    return fill_table(1, runs, bootstrap=0).notes


def test_another_trials_settings_are_one_note(tmp_path):
    tiny = [("model_config.qformer_layers", 4), ("alignment.terms.ot.weight", 0.01)]
    tiny += [("alignment.diagnose_interval", 1), ("model_config.llm_name", "tiny")]
    tiny += [("dataset_config.prompt", " English:\n")]
    run(tmp_path / "a", "table3_ucb_lower", options=tiny, total_steps=30, batch_size_training=2)
    run(tmp_path / "b", "table1_baseline", seed=43, total_steps=30)
    (note,) = notes(tmp_path)
    for told in (
        "model_config.qformer_layers 4 / 8 (table1_ours seed 42)",
        "train_config.total_steps 30 / 1950 (all runs)",
        "alignment.terms.ot.weight 0.01 / 10.0",
        "items a step and device 16 / 8",
        r"dataset_config.prompt ' English:\n' / 'USER: ",
    ):
        assert told in note
    assert "llm_name" not in note and "batch_size" not in note and "interval" not in note
    assert f"note: {note}" in fill_table(1, [tmp_path], bootstrap=0).text()


def test_seeds_that_differ_in_more_than_the_seed_are_told(tmp_path):
    run(tmp_path / "a", "table1_ours", seed=1, lr=1e-5, output_dir="a")
    run(tmp_path / "b", "table1_ours", seed=2, lr=1e-4, output_dir="b")
    (note,) = notes(tmp_path)
    assert note.endswith("train_config.lr 0.0001 / 1e-05 (table1_ours seed 2)")


def test_the_same_batch_accumulated_otherwise_is_the_same(tmp_path):
    same = {"batch_size_training": 4, "gradient_accumulation_steps": 2}
    folder = run(tmp_path / "x", "table1_ours", **same)
    assert not notes(folder)


def test_rows_that_start_from_different_weights_are_told(tmp_path):
    for seed in (1, 2):
        for name in ("table1_ours", "table1_c_en_frozen"):
            start = [("ckpt_path", f"{seed}.pt")]
            run(tmp_path / f"{name}{seed}", name, seed, options=start)
    assert not notes(tmp_path)
    run(tmp_path / "z", "table1_baseline", seed=1, options=[("ckpt_path", "other.pt")])
    (note,) = notes(tmp_path)
    assert note.endswith("ckpt_path other.pt / 1.pt (table1_baseline seed 1)")


def test_a_run_under_another_rows_name_is_refused(tmp_path):
    folder = run(tmp_path / "a", "table1_ours")
    place = folder / "config.yaml"
    place.write_text(place.read_text().replace("table1_ours", "table1_baseline"))
    (problem,) = problems(1, folder)
    assert problem.startswith(f"{place}: train_config.model_name is table1_baseline")
    assert "alignment.terms ot / none, language_bias.enabled True / False;" in problem
    assert "train with experiment=table1_baseline" in problem


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("table1_ours", "alignment.terms.ot.weight", 0.0),
        ("table1_b_no_ot", "alignment.terms", {"ot": {"distance": "ot"}}),
        ("table1_ours", "language_bias.center", "language_only"),
        ("table1_ours", "language_bias.unseen_language", "zero"),
        ("table1_ours", "dataset_config.pairing", "anchor"),
        ("table1_c_en_frozen", "dataset_config.anchor_language", "ru"),
        ("table1_c_en_frozen", "alignment.terms.ot.detach", "none"),
        ("table1_ours", "alignment.schedule.strategy", "random"),
        ("table1_ours", "alignment.terms.ot.cost_scale", "dim"),
    ],
)
def test_whatever_makes_a_row_must_be_as_its_experiment_has_it(tmp_path, name, key, value):
    (problem,) = problems(1, run(tmp_path / "a", name, options=[(key, value)]))
    assert f"{key.removesuffix('.ot.weight')} " in problem and " / " in problem


def test_options_that_nothing_reads_make_no_other_row(tmp_path):
    unread = [("alignment.terms", {"mse": {"distance": "mse", "weight": 0.0}})]
    unread += [("alignment.schedule.strategy", "single")]
    unread += [("language_bias.center", "language_only"), ("dataset_config.anchor_language", "ru")]
    assert not notes(run(tmp_path / "a", "table1_baseline", options=unread))


# -- what is refused -------------------------------------------------------------------------------


def test_bad_runs_are_all_reported_at_once(tmp_path):
    good = run(tmp_path / "good", "table2_mse", seed=1)
    again = run(tmp_path / "again", "table2_mse", seed=1)
    unknown = run(tmp_path / "unknown", "mine")
    bare = run(tmp_path / "bare", "table2_cosine", tests=())
    broken = run(tmp_path / "broken", "table2_cosine")
    (broken / "config.yaml").write_text("{")
    empty = run(tmp_path / "empty", "table2_cosine")
    (empty / "config.yaml").write_text("a: 1")
    found = problems(2, good, good / ".", again, unknown, bare, broken, empty)
    assert len(found) == 5
    text = "\n".join(found)
    assert "a second run of table1" not in text and "a second run of table2_mse with seed 1" in text
    assert "model_name is 'mine'" in text and "table2_cosine, " in text
    assert f"{bare / 'test_predictions.jsonl'}: missing; decode it" in text
    assert "cannot be read" in text and "unknown key a" in text


def test_runs_must_share_utterances_and_references(tmp_path):
    first = run(tmp_path / "a", "table2_mse")
    second = run(tmp_path / "b", "table2_cosine")
    place = second / "test_predictions.jsonl"
    made = read_predictions(place)
    made[0] = dataclasses.replace(made[0], reference="别的")
    made[1] = dataclasses.replace(made[1], key="other")
    write_predictions(place, made)
    found = problems(2, first, second)
    assert len(found) == 3 and "decoded by" in found[0] and "decoded by" in found[1]
    assert "1 utterances are with two references: en-0" in found[2]
    assert all(str(second) in problem for problem in found)


def test_translations_into_another_language_and_without_reference_are_refused(tmp_path):
    folder = run(tmp_path / "a", "table2_mse")
    place = folder / "test_predictions.jsonl"
    made = read_predictions(place)
    made[0] = dataclasses.replace(made[0], reference=None)
    made[1] = dataclasses.replace(made[1], target_language="en")
    write_predictions(place, made)
    found = problems(2, folder)
    assert len(found) == 1 and "2 predictions" in found[0] and "en-0, en-1" in found[0]


def test_folders_without_runs_are_refused(tmp_path):
    unknown = run(tmp_path / "other" / "unknown", "mine")
    (tmp_path / "empty").mkdir()
    found = problems(1, tmp_path / "nowhere", tmp_path / "empty", unknown)
    assert len(found) == 3 and "model_name is 'mine'" in found[2]
    assert all("no config.yaml" in problem for problem in found[:2])
    with pytest.raises(InputError, match="are 1, 2 and 3"):
        fill_table(4, [])
