"""Tables 1 to 3: which runs fill which row, with what, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

from slam_potsa.cli import main
from slam_potsa.config.compose import conf_dir
from slam_potsa.data.predictions import read_predictions, write_predictions
from slam_potsa.evaluation.compare import compare, over_seeds
from slam_potsa.evaluation.paper import ALIASES, PAPER_TABLES, TESTS
from slam_potsa.evaluation.paper_tables import fill_table
from slam_potsa.evaluation.presets import Convention
from slam_potsa.evaluation.scores import score
from tests.support.paper_runs import predictions, problems, run

SEEN, AVERAGE, ZERO_AVERAGE = TESTS["test"].languages, "avg.", "zero-shot avg."
ZH = Convention(tokenizers={"zh": "zh"})


def row(table, system):
    return next(row for row in table.rows if row.paper.system == system)


# -- the paper -------------------------------------------------------------------------------------


def test_the_papers_averages_are_the_means_of_its_languages():
    for paper in PAPER_TABLES[1].rows:
        mean = sum(paper.figures[language] for language in SEEN) / len(SEEN)
        assert paper.figures[AVERAGE] == pytest.approx(mean, abs=0.006), paper.label


def test_the_papers_tables_agree_with_each_other_and_with_its_claims():
    ours = {
        n: next(r for r in t.rows if r.system == "table1_ours") for n, t in PAPER_TABLES.items()
    }
    assert {row.figures[AVERAGE] for row in ours.values()} == {31.84}
    baseline = next(r for r in PAPER_TABLES[1].rows if r.system == "table1_baseline")
    gains = {c: ours[1].figures[c] - baseline.figures[c] for c in (AVERAGE, ZERO_AVERAGE)}
    assert gains == pytest.approx({AVERAGE: 1.29, ZERO_AVERAGE: 2.93})
    worst = min(PAPER_TABLES[3].rows, key=lambda r: r.figures[AVERAGE])
    assert worst.label == "(ii) multi" and any("(ii)" in note for note in PAPER_TABLES[3].notes)


def test_every_experiment_of_a_table_has_a_row():
    names = {path.stem for path in (conf_dir() / "experiment").glob("table*.yaml")}
    assert names == {s for t in PAPER_TABLES.values() for s in t.systems} | set(ALIASES)


# -- filling ---------------------------------------------------------------------------------------


def test_one_seed_has_sacrebleus_scores_and_bootstrap_interval(tmp_path):
    folder = run(tmp_path / "ours", "table1_ours")
    filled = fill_table(1, [folder], bootstrap=50)
    ours = row(filled, "table1_ours")
    tests = {name: read_predictions(folder / f"{name}_predictions.jsonl") for name in
             ("test", "zero_shot")}  # fmt: skip
    seen = score(tests["test"], bootstrap=50, convention=ZH)
    assert ours.figures["ko"].mean.value == seen.row("ko").bleu.value
    assert ours.figures["ko"].bootstrap == seen.row("ko").bleu.half_width
    mean = sum(seen.row(language).bleu.value for language in SEEN) / 5
    assert ours.figures[AVERAGE].mean.value == pytest.approx(mean)
    assert ours.figures[AVERAGE].bootstrap == seen.row("all, pooled").bleu.half_width
    zero = score(tests["zero_shot"], bootstrap=0, convention=ZH)
    expected = zero.row("all, mean of languages").bleu.value
    assert ours.figures[ZERO_AVERAGE].mean.value == pytest.approx(expected)
    assert "tok:zh" in filled.text() and "one seed only" in filled.text()
    assert "Student-t" not in filled.text() and not ours.comparisons


def test_several_seeds_have_their_mean_and_t_interval(tmp_path):
    for seed in (42, 43, 44):
        run(tmp_path / "table2_mse" / f"seed{seed}", "table2_mse", seed, 0.1 + seed / 200)
    filled = fill_table(2, [tmp_path / "table2_mse"], bootstrap=0)
    mse = row(filled, "table2_mse")
    averages = [
        score(read_predictions(path), bootstrap=0).row("all, mean of languages").bleu.value
        for path in sorted(tmp_path.rglob("test_predictions.jsonl"))
    ]
    assert mse.seeds == (42, 43, 44)
    assert mse.figures[AVERAGE].mean == over_seeds(averages)
    shown = f"{mse.figures[AVERAGE].mean.value:.2f} ±{mse.figures[AVERAGE].mean.half_width:.2f}"
    assert shown in filled.text() and "Student-t" in filled.text()


def test_p_is_the_median_of_the_seeds_that_both_have(tmp_path):
    for seed, noise in ((1, 0.1), (2, 0.3), (3, 0.5), (4, 0.5)):
        run(tmp_path / f"mse{seed}", "table2_mse", seed, 0.3)
        run(tmp_path / f"ot{seed}", "table2_ot", seed % 4, noise)
    filled = fill_table(2, [tmp_path], bootstrap=100)
    mse = row(filled, "table2_mse")
    found = mse.comparisons["test"]
    assert list(found) == [1, 2, 3] and not row(filled, "table1_ours").comparisons
    old, new = (read_predictions(tmp_path / f"{n}2/test_predictions.jsonl") for n in ("mse", "ot"))
    compared = compare(old, new, samples=100, convention=ZH)
    expected = {item.name: item for item in compared if item.metric == "BLEU"}["all, pooled"]
    assert found[2] == dataclasses.replace(expected, name="test, seed 2")
    p_value = sorted(item.p_value for item in found.values())[1]
    assert mse.p_values == {"test": p_value}
    text = filled.text()
    assert f"{p_value:.3f}" in text and "OT against the row; the median over the seeds" in text


def test_without_an_equal_seed_the_p_value_stays_empty(tmp_path):
    run(tmp_path / "a", "table1_baseline", seed=1)
    run(tmp_path / "b", "table1_ours", seed=2)
    filled = fill_table(1, [tmp_path], bootstrap=20)
    assert not any(row.comparisons for row in filled.rows)
    assert "paired bootstrap" not in filled.text()


def test_rows_without_runs_are_visibly_empty_and_in_the_papers_order():
    filled = fill_table(1, [])
    lines = filled.text().splitlines()
    labels = [paper.label for paper in PAPER_TABLES[1].rows]
    assert [line.split("  ")[0] for line in lines if " paper " in line] == labels
    ours = [line.split() for line in lines if line.strip().startswith("ours")]
    assert len(ours) == 6 and {cell for line in ours for cell in line[1:]} == {"·"}
    assert len(next(line for line in lines if line.startswith("MinMo")).split()) == 9
    assert all(not row.figures for row in filled.rows)


def test_the_names_of_one_system_fill_one_row(tmp_path):
    run(tmp_path / "a", "table2_ot", seed=1)
    run(tmp_path / "b", "table3_ucb_lower", seed=2)
    run(tmp_path / "recipe" / "3_potsa", "table1_ours", seed=3)
    (tmp_path / "recipe" / "2_s2tt").mkdir()
    (tmp_path / "recipe" / "2_s2tt" / "config.yaml").write_text("not: read")
    for number in PAPER_TABLES:
        assert row(fill_table(number, [tmp_path], bootstrap=0), "table1_ours").seeds == (1, 2, 3)


def test_a_missing_language_leaves_its_average_empty(tmp_path):
    folder = run(tmp_path / "a", "table2_mse", tests=())
    made = predictions(["en", "ja", "fr"], 0, 0.1)
    write_predictions(folder / "test_predictions.jsonl", made)
    filled = fill_table(2, [folder], bootstrap=0)
    assert not row(filled, "table2_mse").figures
    assert "no es, ko, ru, so there is no average" in filled.text()
    assert "fr left out" in filled.text()


def test_partial_leaves_gaps_where_files_are_missing(tmp_path):
    folder = run(tmp_path / "a", "table1_ours", tests=("test",))
    assert "slam-potsa decode" in problems(1, folder)[0]
    filled = fill_table(1, [folder], bootstrap=0, partial=True)
    assert set(row(filled, "table1_ours").figures) == {*SEEN, AVERAGE}
    assert "zero_shot_predictions.jsonl: missing" in filled.text()


def test_other_runs_are_named_and_left_out(tmp_path):
    """Of a row of another table, or of none; one of none that was asked for by name is refused."""
    ours = run(tmp_path / "a", "table2_mse")
    run(tmp_path / "b", "table3_single")
    other = run(tmp_path / "ours_scaled" / "seed42", "ours_scaled")
    filled = fill_table(2, [tmp_path], bootstrap=0)
    assert row(filled, "table2_mse").seeds == (42,)
    assert "runs that are not in Table 2: table3_single (1), ours_scaled (1)" in filled.notes
    (problem,) = problems(2, ours, other)
    assert "model_name is 'ours_scaled'" in problem


# -- what is shown ---------------------------------------------------------------------------------


def call(*arguments):
    assert main(["table", *map(str, arguments)]) == 0


def test_the_command_prints_text_markdown_and_json(tmp_path, capsys):
    folder = run(tmp_path / "a", "table1_ours")
    call(1, folder, "--bootstrap", "0", "--json", tmp_path / "t.json")
    text = capsys.readouterr().out
    assert text.startswith("POTSA Table 1") and "40.87" in text and "tok:zh" in text
    content = json.loads((tmp_path / "t.json").read_text())
    ours = next(row for row in content["rows"] if row["paper"]["system"] == "table1_ours")
    assert ours["paper"]["figures"]["en"] == 40.87 and ours["seeds"] == [42]
    assert f"{ours['figures']['en']['mean']['value']:.2f}" in text
    call(1, folder, "--bootstrap", "0", "--markdown")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 2 + 9 + 6


def test_another_convention_is_in_the_signature(tmp_path, capsys):
    folder = run(tmp_path / "a", "table2_mse")
    call(2, folder, "--bootstrap", "0", "--preset", "cot-st")
    assert "case:lc|eff:no|tok:zh" in capsys.readouterr().out
    call(2, folder, "--bootstrap", "0", "--preset", "llm-srt")
    signatures = [line for line in capsys.readouterr().out.splitlines() if "tok:" in line]
    assert len(signatures) == 1 and "case:mixed|eff:no|tok:char" in signatures[0]
    assert main(["table", "2", "--preset", "words"]) == 2
