"""Paired tests, blind control, seeds."""

import re
from dataclasses import replace

import pytest

from slam_potsa.data.predictions import write_predictions
from slam_potsa.errors import InputError
from slam_potsa.evaluation.compare import find_blind, match, paired_test, same_test_problems
from slam_potsa.evaluation.scores import over_seeds, score, seed_means, seeds_text
from tests.support import refused
from tests.support.predictions import command_line, make, make_blind


def test_every_row_of_the_scores_is_compared():
    baseline, system = make(noise=0.6, seed=1), make(noise=0.1, seed=2)
    groups = {"seen": ["en", "es"], "zero_shot": ["fr"]}
    found = score(system, baseline=baseline[::-1], samples=50, bootstrap=0, **groups)
    for items, side in ((baseline, "baseline"), (system, "system")):
        for row in score(items, bootstrap=0, **groups).rows:
            ours = {m: getattr(item, side) for m, item in found.row(row.name).against.items()}
            assert ours == pytest.approx({m: row.scores[m].value for m in row.scores})
    assert found.row("seen, mean of languages").against["BLEU"].p_value is None
    assert "p: paired bootstrap" in found.text()


def test_scores_and_p_values_equal_the_command_line(tmp_path):
    baseline, system = make(["fr"], noise=0.4, seed=1), make(["fr"], noise=0.3, seed=2)
    (tmp_path / "old").write_text("".join(f"{item.prediction}\n" for item in baseline))
    paired = (tmp_path / "old", "--paired-bs", "--paired-bs-n", "50")
    text = command_line(tmp_path, system, *paired, form="text")
    theirs = [float(value) for value in re.findall(r"\(p = ([\d.]+)\)", text)]
    pairs = match(baseline, system)
    ours = [found.p_value for found in paired_test(pairs, samples=50).values()]
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_a_clear_difference_is_significant_and_none_is_not():
    """Of none sacrebleu alone says p = 1 / (samples + 1), since no resample is above it."""
    good, bad = make(count=40, noise=0.05, seed=1), make(count=40, noise=0.7, seed=2)
    assert paired_test(match(bad, good), samples=200)["BLEU"].p_value < 0.01
    alike = paired_test(match(good[:4], good[:4]))["BLEU"]
    assert alike.difference == 0 and alike.p_value == 1
    assert "|bs:1000|" in alike.signature


def test_only_the_same_utterances_can_be_compared():
    with pytest.raises(InputError) as caught:
        match(make(["fr"], count=500), make(["es"], count=500), ("the first", "the second"))
    assert len(caught.value.problems) == 2 and len(str(caught.value)) < 600
    assert "500 utterances are decoded by the first only: fr-0" in caught.value.problems[0]
    other = [replace(item, reference="other") for item in make(["fr"], count=2)]
    refused("2 utterances are with two references", match, make(["fr"], count=2), other)
    assert not same_test_problems({"a": make(), "b": make(seed=5)})
    (problem,) = same_test_problems({"a": make(), "b": make(["en", "es"])})
    assert "12 utterances are decoded by a only" in problem


def test_the_blind_control_lies_beside_the_file(tmp_path):
    heard = make()
    path, blind = (tmp_path / f"test{name}_predictions.jsonl" for name in ("", "_blind"))
    assert find_blind(path, heard) == () == find_blind(tmp_path / "other.jsonl", heard)
    write_predictions(blind, make_blind())
    assert find_blind(path, heard) == make_blind()
    write_predictions(blind, make(noise=1))
    refused("36 of 36 .*own recording.*, …; expected another", find_blind, path, heard)
    write_predictions(blind, make_blind(languages=["en", "es"]))
    refused(f"{blind}: 12 utterances are decoded by the system only", find_blind, path, heard)


def test_rows_that_all_seeds_have_have_their_mean_and_students_interval():
    tables = [score(make(seed=seed), zero_shot=["fr"], bootstrap=0) for seed in range(3)]
    found = seed_means(tables)
    assert all(list(rows) == [row.name for row in tables[0].rows] for rows in found.values())
    assert list(found["BLEU"]["fr"].values) == [table.row("fr").bleu.value for table in tables]
    assert seeds_text(found).startswith("BLEU over 3 seeds")
    few = seed_means([tables[0], score(make(["en"]), bootstrap=0)])
    assert set(few["chrF"]) == {"en", "all, pooled", "all, mean of languages"}
    # n = 2: t = 12.7062 and s = √2, so the half-width is t. n = 5: t = 2.7764 and s² = 2.5.
    for values, half_width in (([1.0, 3.0], 12.7062), (range(1, 6), 2.7764 * 0.5**0.5)):
        found = over_seeds(values)
        assert found.high - found.value == pytest.approx(half_width, abs=1e-4)
    assert over_seeds([1.0, 3.0]).value == 2.0 and over_seeds([7.0]).low is None
