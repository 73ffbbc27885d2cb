import pytest
import torch

from slam_potsa.evaluation.analysis.costs import Cost, transport_costs

SENTENCES = ["a", "b", "c", "d"]


def point_clouds(offset=0.0, tokens=3):
    """Sentence k is at 10 k in every language; the second is `offset` beside it."""
    places = [10.0 * k + shift for shift in (0.0, offset) for k in range(4)]
    rows = [torch.full((tokens, 2), place) for place in places]
    return rows, SENTENCES * 2, ["en"] * 4 + ["es"] * 4


def test_closed_form_of_points():
    found = transport_costs(*point_clouds(offset=1.0))
    assert found.pairs["en", "es"].matched == pytest.approx(2.0)  # (1, 1) apart, squared
    assert found.compared == 4 and found.means["all"] == found.pairs["en", "es"]
    same = transport_costs(*point_clouds())
    assert same.pairs["en", "es"].matched == pytest.approx(0, abs=1e-3)
    assert same.pairs["en", "es"].ratio == pytest.approx(0, abs=1e-5)


def test_the_same_recordings_are_mixed_up():
    """One of the three cycles through places 0, 10, 20, 30, with two coordinates each."""
    cost = transport_costs(*point_clouds()).pairs["en", "es"]
    cycles = [2 * 100 * sum(gaps) / 4 for gaps in ((1, 1, 1, 9), (1, 4, 1, 4), (4, 1, 4, 9))]
    assert any(cost.mismatched == pytest.approx(cycle, rel=1e-4) for cycle in cycles)


def test_a_shrinking_space_lowers_both_and_keeps_the_ratio():
    torch.manual_seed(0)
    rows = [torch.randn(5, 4) for _ in range(8)]
    labels = (SENTENCES * 2, ["en"] * 4 + ["es"] * 4)
    large = transport_costs(rows, *labels).pairs["en", "es"]
    small = transport_costs([0.1 * row for row in rows], *labels).pairs["en", "es"]
    assert small.matched == pytest.approx(0.01 * large.matched, rel=1e-3)
    assert small.mismatched == pytest.approx(0.01 * large.mismatched, rel=1e-3)
    assert small.ratio == pytest.approx(large.ratio, rel=1e-3)
    point = transport_costs([torch.ones(5, 4)] * 8, *labels).pairs["en", "es"]
    assert point == Cost(0.0, 0.0) and point.ratio == 1.0


def test_lengths_may_differ_and_padding_does_not_count():
    rows, sentences, languages = point_clouds(offset=1.0)
    thinned = [row[: 1 + place % 3] for place, row in enumerate(rows)]
    found = transport_costs(thinned, sentences, languages).pairs["en", "es"]
    assert found.matched == pytest.approx(2.0)


def test_groups_and_pairs_without_enough_sentences():
    rows, sentences, languages = point_clouds()
    rows += [torch.zeros(2, 2)] * 3
    found = transport_costs(
        rows, [*sentences, "a", "x", "y"], [*languages, "fr", "fr", "fr"], heard=["en"]
    )
    assert set(found.pairs) == {("en", "es")} and found.compared == 4
    assert set(found.means) == {"all", "with an unheard"}


def test_which_recordings_are_drawn_does_not_depend_on_their_order():
    torch.manual_seed(0)
    rows = [torch.randn(4, 3) for _ in range(8)]
    languages = ["en"] * 4 + ["es"] * 4
    found = transport_costs(rows, SENTENCES * 2, languages)
    order = [5, 0, 3, 7, 1, 6, 2, 4]
    again = transport_costs(
        [rows[n] for n in order],
        [(SENTENCES * 2)[n] for n in order],
        [languages[n] for n in order],
    )
    assert again.pairs["en", "es"].matched == pytest.approx(found.pairs["en", "es"].matched)
