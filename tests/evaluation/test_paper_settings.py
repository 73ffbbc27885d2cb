"""What a run's configuration has in common with its row's experiment, and what it may not."""

from __future__ import annotations

import pytest
import yaml

from slam_potsa.evaluation.paper_tables import fill_table
from tests.support.paper_runs import problems, run


def test_another_trials_sizes_are_one_note_a_run(tmp_path):
    tiny = [("model_config.qformer_layers", 4), ("alignment.weight", 0.01)]
    tiny += [("alignment.diagnose_interval", 1), ("model_config.llm_name", "tiny")]
    tiny += [("dataset_config.prompt", " English:\n")]
    folder = run(
        tmp_path / "x", "table3_ucb_lower", options=tiny, total_steps=30, batch_size_training=2
    )
    (note,) = fill_table(3, [folder], bootstrap=0).notes
    assert note.startswith(f"{folder} (table1_ours): differs from conf/experiment/table3_ucb_lower")
    for told in (
        "model_config.qformer_layers 4 / 8",
        "train_config.total_steps 30 / 1950",
        "alignment.weight 0.01 / 10.0",
        "items a step and device 16 / 8",
        r"dataset_config.prompt ' English:\n' / 'USER: ",
    ):
        assert told in note
    assert "llm_name" not in note and "batch_size" not in note and "interval" not in note
    assert f"note: {note}" in fill_table(3, [folder], bootstrap=0).text()


def test_the_same_batch_accumulated_otherwise_is_the_same(tmp_path):
    same = {"batch_size_training": 4, "gradient_accumulation_steps": 2}
    folder = run(tmp_path / "x", "table1_ours", **same)
    assert not fill_table(1, [folder], bootstrap=0).notes


def test_rows_that_differ_in_more_than_what_makes_them_are_told(tmp_path):
    run(tmp_path / "a", "table1_ours", total_steps=30)
    run(tmp_path / "b", "table1_baseline", options=[("ckpt_path", "other.pt")])
    *_, note = fill_table(1, [tmp_path], bootstrap=0).notes
    assert note == (
        "the rows differ in more than what makes them: train_config.total_steps 30 (table1_ours), "
        "1950 (table1_baseline); ckpt_path (seed 42) outputs/potsa/2_s2tt/best/model.pt "
        "(table1_ours), other.pt (table1_baseline)"
    )


def test_each_seed_may_have_its_own_start(tmp_path):
    for seed in (1, 2):
        for name in ("table1_ours", "table1_c_en_frozen"):
            start = [("ckpt_path", f"{seed}.pt")]
            run(tmp_path / f"{name}{seed}", name, seed, options=start)
    assert not fill_table(1, [tmp_path], bootstrap=0).notes


def test_a_run_under_another_rows_name_is_refused(tmp_path):
    folder = run(tmp_path / "a", "table1_ours")
    place = folder / "config.yaml"
    place.write_text(place.read_text().replace("table1_ours", "table1_baseline"))
    (problem,) = problems(1, folder)
    assert problem.startswith(f"{place}: train_config.model_name is table1_baseline")
    assert "language_bias.enabled True / False, alignment.weight 10.0 / 0.0;" in problem
    assert "these are the settings of table1_ours: put that name there" in problem
    assert "train with experiment=table1_baseline" in problem


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("table1_ours", "alignment.weight", 0.0),
        ("table1_b_no_ot", "alignment.weight", 0.01),
        ("table1_ours", "language_bias.center", "language_only"),
        ("table1_ours", "language_bias.unseen_language", "zero"),
        ("table1_ours", "dataset_config.pairing", "anchor"),
        ("table1_c_en_frozen", "dataset_config.anchor_language", "ru"),
        ("table1_c_en_frozen", "alignment.detach_anchor", False),
        ("table1_ours", "alignment.schedule.strategy", "random"),
        ("table1_ours", "alignment.cost_scale", "dim"),
    ],
)
def test_whatever_makes_a_row_must_be_as_its_experiment_has_it(tmp_path, name, key, value):
    (problem,) = problems(1, run(tmp_path / "a", name, options=[(key, value)]))
    assert f"{key} {value} / " in problem


def test_options_that_nothing_reads_make_no_other_row(tmp_path):
    unread = [("alignment.distance", "mse"), ("alignment.schedule.strategy", "single")]
    unread += [("language_bias.center", "language_only"), ("dataset_config.anchor_language", "ru")]
    assert not fill_table(
        1, [run(tmp_path / "a", "table1_baseline", options=unread)], bootstrap=0
    ).notes


def test_a_run_of_an_earlier_version_lacks_options_that_are_newer(tmp_path):
    folder = run(tmp_path / "a", "table1_ours")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for newer in ("insight_interval", "variant", "contrast_temperature"):
        del config["alignment"][newer]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert not fill_table(1, [folder], bootstrap=0).notes
