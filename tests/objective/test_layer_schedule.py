"""Equations 5–7: a trajectory by hand, exploration, concentration, late losses, resuming."""

import json
import math
import random
from collections import Counter

import pytest

from slam_potsa.objective.layer_schedule import LayerSchedule, candidate_layers


def run(schedule: LayerSchedule, steps: int, loss) -> list[int]:
    """Choose and observe at once; loss(step, layer) -> float. The layers chosen."""
    chosen = []
    for step in range(steps):
        choice, layer = schedule.choose()
        chosen.append(layer)
        schedule.observe(choice, loss(step, layer))
    return chosen


def test_hand_computed_trajectory():
    """γ = 0.5, β = 2, τ = 1, layers 1 and 2; both are tried before eq. 6 has a say."""
    schedule = LayerSchedule("ucb", [1, 2], reward_decay=0.5, exploration=2.0, temperature=1.0)
    assert schedule.utilities() == {1: math.inf, 2: math.inf}
    assert schedule.probabilities() == {1: 0.5, 2: 0.5}
    first, second = run(schedule, 2, lambda step, layer: 3.0)
    assert {first, second} == {1, 2}

    # Step 3, both tried once, no reward yet: U = 2 sqrt(ln 3 / 1) for both.
    assert schedule.utilities() == pytest.approx(dict.fromkeys((1, 2), 2 * math.sqrt(math.log(3))))
    choice, layer = schedule.choose()
    schedule.observe(choice, 2.0)  # r = 3 − 2 = 1, R = 0.5 · 0 + 0.5 · 1
    other = 3 - layer
    statistics = schedule.statistics()["layers"]
    assert statistics[layer]["reward"] == pytest.approx(0.5) and statistics[layer]["count"] == 2
    assert statistics[other]["reward"] == 0.0 and statistics[other]["count"] == 1

    # Step 4: U = 0.5 + 2 sqrt(ln 4 / 2) against 2 sqrt(ln 4 / 1).
    ahead, behind = 0.5 + 2 * math.sqrt(math.log(4) / 2), 2 * math.sqrt(math.log(4))
    assert schedule.utilities() == pytest.approx({layer: ahead, other: behind})
    share = 1 / (1 + math.exp(behind - ahead))
    assert schedule.probabilities()[layer] == pytest.approx(share)
    expected = random.Random("0:3").choices([1, 2], [schedule.probabilities()[k] for k in (1, 2)])
    assert [schedule.choose()[1]] == expected


def test_every_layer_is_tried_before_any_is_tried_twice():
    for seed in range(5):
        schedule, waiting = (LayerSchedule("ucb", range(1, 9), seed=seed) for _ in range(2))
        assert sorted(run(schedule, 8, lambda step, layer: -step)) == list(range(1, 9))
        # Also while all losses are still to come.
        assert sorted(waiting.choose()[1] for _ in range(8)) == list(range(1, 9))


def test_concentrates_on_the_layer_that_lowers_the_loss():
    """A bandit: activating layer 3 takes 2e-2 off the loss, seen through noise of 1e-2.

    A reward is what the loss fell since the layer's *previous* activation, whoever caused it. So
    that it tells layers apart, the fall is seen only while layer 3 is active.
    """
    schedule, noise = LayerSchedule("ucb", [1, 2, 3, 4]), random.Random(0)
    gains = Counter()

    def loss(step: int, layer: int) -> float:
        gains[layer] += 1
        return 3.0 - 0.02 * gains[3] * (layer == 3) + noise.gauss(0, 0.01)

    chosen = run(schedule, 600, loss)
    late = Counter(chosen[200:])
    assert late.most_common(1)[0][0] == 3
    assert late[3] > 160  # against an even share of 100
    assert min(late[layer] for layer in (1, 2, 4)) > 0  # and the others are still looked at


def test_late_losses_go_to_the_choice_they_belong_to_and_to_no_other():
    now, late = (LayerSchedule("ucb", [1, 2], seed=3) for _ in range(2))
    for loss in (3.0, 2.0):
        now.observe(now.choose()[0], loss)
    first, second = (late.choose()[0] for _ in range(2))
    late.observe(second, 2.0)
    late.observe(first, 3.0)
    assert now.statistics() == late.statistics()
    with pytest.raises(ValueError, match=f"got {first}"):
        late.observe(first, 1.0)


def test_a_skipped_step_leaves_no_trace_but_a_draw():
    schedule = LayerSchedule("ucb", [1, 2, 3])
    run(schedule, 10, lambda step, layer: 1 / (step + 1))
    before = schedule.statistics()
    for loss in (math.nan, math.inf):
        choice, _ = schedule.choose()
        assert schedule.statistics() != before
        schedule.observe(choice, loss)
        assert schedule.statistics() == before
    assert schedule.state_dict()["pending"] == []


def test_a_resumed_run_continues_identically_with_choices_pending():
    def loss(choice: int) -> float:
        return 3.0 / (choice + 1) + 0.1 * math.sin(choice)

    def advance(schedule: LayerSchedule, waiting: list[int], steps: int) -> list[int]:
        chosen = []
        for _ in range(steps):
            choice, layer = schedule.choose()
            waiting.append(choice)
            chosen.append(layer)
            if len(waiting) > 2:  # losses are two steps late
                schedule.observe(waiting[0], loss(waiting.pop(0)))
        return chosen

    whole, waiting = LayerSchedule("ucb", range(1, 5), seed=11), []
    advance(whole, waiting, 30)
    saved, saved_waiting = json.loads(json.dumps(whole.state_dict())), list(waiting)
    assert len(saved["pending"]) == 2
    expected = advance(whole, waiting, 50)
    resumed = LayerSchedule("ucb", range(1, 5), seed=11)
    resumed.load_state_dict(saved)
    assert advance(resumed, saved_waiting, 50) == expected
    assert resumed.state_dict() == whole.state_dict()


def test_random_draws_are_even_and_of_the_seed_alone():
    def chosen(seed: int) -> list[int]:
        schedule = LayerSchedule("random", range(1, 5), seed=seed)
        return run(schedule, 2000, lambda *_: random.random())

    assert chosen(0) == chosen(0) != chosen(1)
    counts = Counter(chosen(0))
    assert set(counts) == {1, 2, 3, 4} and all(430 < n < 570 for n in counts.values())


@pytest.mark.parametrize("temperature", [1e-300, 1e-3, 1e300])
def test_softmax_survives_extreme_utilities(temperature):
    """Rewards of ±1e5: exp(U / τ) itself would overflow."""
    schedule = LayerSchedule("ucb", [1, 2], temperature=temperature, seed=5)
    signs = {1: -1, 2: 1}
    rewarded = set(run(schedule, 8, lambda step, layer: signs[layer] * 1e6 * (step + 1)))
    assert rewarded == {1, 2}
    probabilities = schedule.probabilities()
    assert sum(probabilities.values()) == pytest.approx(1)
    assert probabilities[1] >= probabilities[2]
    assert temperature > 1 or probabilities == {1: 1.0, 2: 0.0}


def test_candidates_of_a_configuration():
    found = [candidate_layers("lower", n) for n in (1, 2, 3, 8)]
    assert found == [(1,), (1,), (1,), (1, 2, 3, 4)]  # a layer at least
    for text in ("0,1", "4", "1,1", "upper", "", "1,,2", "-1"):
        with pytest.raises(ValueError, match="layer numbers from 1 to 3"):
            candidate_layers(text, 3)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"strategy": "usb", "candidates": [1]}, "strategy: expected one of random, ucb"),
        ({"strategy": "ucb"}, "candidates"),
        ({"candidates": [1, 1]}, "candidates"),
        ({"candidates": [1], "exploration": -0.1}, "exploration"),
        ({"candidates": [1], "temperature": 0.0, "reward_decay": 1.0}, "reward_decay.*temperature"),
        ({"candidates": [1], "temperature_decay": 0.0}, "temperature_decay.*temperature_floor"),
        ({"candidates": [1], "prefer": "large"}, "prefer"),
    ],
)
def test_bad_arguments_and_another_schedules_state_are_refused(arguments, names):
    with pytest.raises(ValueError, match=names):
        LayerSchedule(**arguments)
    state = LayerSchedule("ucb", [1, 2]).state_dict()
    for other, name in ((("ucb", [1, 2, 3]), "candidates"), (("random", [1, 2]), "strategy")):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            LayerSchedule(*other).load_state_dict(state)


@pytest.mark.parametrize(("place", "value"), [(3, ""), (3, []), (3, False), (2, 0), (1, None)])
def test_a_state_that_none_could_have_saved_is_refused_and_changes_nothing(place, value):
    before, fresh = LayerSchedule("ucb", [1, 2]), LayerSchedule("ucb", [1, 2])
    before.choose(), before.choose()  # one of each layer, and both are pending
    fresh.load_state_dict(state := before.state_dict())
    state["layers"][0][place] = value
    with pytest.raises(ValueError, match="damaged; start without it"):
        fresh.load_state_dict(state)
    assert fresh.state_dict() == before.state_dict()


@pytest.mark.parametrize(("prefer", "sign"), [("larger", 1), ("smaller", -1)])
def test_smaller_rewards_can_be_preferred_and_the_temperature_falls_to_its_floor(prefer, sign):
    """The sign of R in eq. 6, with β = 0: only layer 1 lowers the loss."""
    schedule = LayerSchedule(
        "ucb", [1, 2], exploration=0.0, temperature=1.0, prefer=prefer, temperature_decay=0.5,
        temperature_floor=0.2,
    )  # fmt: skip
    temperatures = []

    def loss(step: int, layer: int) -> float:
        temperatures.append(schedule.current_temperature)
        return -step if layer == 1 else step

    run(schedule, 12, loss)
    rewards = {k: facts["reward"] for k, facts in schedule.statistics()["layers"].items()}
    assert rewards[1] > 0 > rewards[2]
    assert schedule.utilities() == {layer: sign * reward for layer, reward in rewards.items()}
    assert (schedule.probabilities()[1] > 0.5) == (prefer == "larger")
    assert temperatures[:4] == [0.5, 0.25, 0.2, 0.2]
