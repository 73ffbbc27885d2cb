import pytest

from slam_potsa.errors import InputError
from slam_potsa.evaluation.scores import score
from slam_potsa.evaluation.seed_scores import check_same_test, seed_scores, seeds_text
from tests.support.predictions import make


def tables(count=3):
    return [score(make(seed=seed), zero_shot=["fr"], bootstrap=0) for seed in range(count)]


def test_mean_deviation_and_t_interval_of_every_row_and_measure():
    from scipy import stats

    found = seed_scores(tables())
    rows = [row.name for row in tables()[0].rows]
    assert [item.name for item in found] == [name for name in rows for _ in range(2)]
    item = next(i for i in found if (i.name, i.metric) == ("zero-shot, mean of languages", "BLEU"))
    values = [table.row(item.name).bleu.value for table in tables()]
    assert item.values == pytest.approx(values)
    described = stats.describe(values)
    assert item.mean == pytest.approx(described.mean)
    assert item.deviation**2 == pytest.approx(described.variance)
    low, high = stats.t.interval(0.95, 2, loc=described.mean, scale=stats.sem(values))
    assert item.as_dict()["interval_95"] == pytest.approx([low, high])


def test_equal_seeds_have_an_interval_of_no_width():
    found = seed_scores(tables(1) * 2)
    assert all(item.deviation == item.half_width == 0 for item in found)


def test_one_table_is_no_sample():
    with pytest.raises(InputError, match="found 1 score table, expected two or more"):
        seed_scores(tables(1))


def test_measures_that_a_seed_lacks_are_left_out():
    few = score(make(["en"]), bootstrap=0)
    assert {item.name for item in seed_scores([*tables(1), few])} == {
        "en",
        "all, pooled",
        "all, mean of languages",
    }


def test_the_text_has_a_column_a_seed():
    text = seeds_text(seed_scores(tables()))
    assert text.startswith("BLEU over 3 seeds") and "\n\nchrF over 3 seeds" in text
    assert text.splitlines()[0].endswith("seed file 1  seed file 2  seed file 3")


def test_seeds_decode_the_same_test():
    check_same_test({"a": make(), "b": make(seed=5)})
    with pytest.raises(InputError, match="must be one test: 12 utterances are decoded by a only"):
        check_same_test({"a": make(), "b": make(["en", "es"])})
