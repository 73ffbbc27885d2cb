import gc
import json
import math
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn

from slam_potsa import AlignmentObjective, AlignmentTerm, LayerSchedule
from slam_potsa.model.controller import AlignmentController, NonFiniteLoss
from slam_potsa.objective.distances import build_distance


class Projector(nn.Module):
    """Four layers that add, so that gradients reach every one."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(4))

    def set_languages(self, ids):
        """As that of a speech LLM; no bias depends on it here."""

    def forward(self, x, atts=None):
        for layer in self.layers:
            x = x + layer(x)
        return x


def make(accumulation=1, diagnose=0, reward="cross_entropy", every="optimizer_step"):
    torch.manual_seed(0)
    model = nn.Module()  # what the controller needs of a speech LLM
    model.encoder_projector, model.llm = Projector(), None
    term = AlignmentTerm("ot", "qformer.{layer}", "qformer.{layer}", build_distance("ot"), 1.0)
    controller = AlignmentController(
        model,
        AlignmentObjective([term]),
        LayerSchedule("ucb", (1, 2)),
        accumulation=accumulation,
        diagnose_interval=diagnose,
        reward=reward,
        every=every,
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return model.encoder_projector, controller, optimizer


def micro_step(projector, controller, loss=1.0, pairs=True):
    rows = torch.tensor([[0, 1]]) if pairs else None
    controller.begin(torch.zeros(2, dtype=torch.long), rows, training=True)
    layers = controller.layers
    out = projector(torch.randn(2, 5, 3))
    ce = out.square().mean() if loss is None else out.mean() * 0 + loss
    controller.end(ce, torch.tensor(3)).backward()
    return layers


def run(projector, controller, optimizer, losses, save=False):
    chosen = []
    for loss in losses:
        chosen.append(micro_step(projector, controller, loss))
        optimizer.step()
        optimizer.zero_grad()
        if save:
            controller.save_to_carried()
    return chosen


def listened(controller):
    """The lines it will tell."""
    lines = []
    controller.listeners.append(lines.append)
    return lines


def test_a_choice_at_every_micro_step_is_rewarded_by_its_own_loss():
    projector, controller, optimizer = make(accumulation=4, every="micro_step")
    lines, last = listened(controller), {}
    skipped = [micro_step(projector, controller, 100.0) for _ in range(4)]  # no optimizer.step
    for step in range(5):
        chosen = [micro_step(projector, controller, 10.0 * step + i) for i in range(4)]
        last |= {layer: 10.0 * step + i for i, (layer,) in enumerate(chosen)}
        optimizer.step()
        state = json.loads(json.dumps(controller.state_dict()))
        projector, resumed, optimizer = make(accumulation=4, every="micro_step")
        resumed.listeners = controller.listeners
        resumed.load_state_dict(state)
        controller.detach()
        controller = resumed
    controller.flush()
    found = dict((layer, state) for layer, *state in controller.schedule.state_dict()["layers"])
    assert {layer: previous for layer, (_, _, previous) in found.items()} == last
    assert sum(count for _, count, _ in found.values()) == 20  # the skipped ones were never made
    assert {*skipped} == {(1,), (2,)} and not controller.schedule.state_dict()["pending"]
    assert [line["ce"] for line in lines] == [10.0 * step + 1.5 for step in range(5)]
    assert {layer for line in lines for layer in line["layers"]} == {1, 2}


def test_choice_holds_through_accumulation_and_moves_with_the_optimizer():
    """A step that fp16 skips moves nothing, and its losses are forgotten."""
    projector, controller, optimizer = make(accumulation=3)
    skipped = [micro_step(projector, controller, 100.0) for _ in range(3)]  # no optimizer.step
    taken = [micro_step(projector, controller, loss) for loss in (1.0, 2.0, 6.0)]
    assert len({*skipped, *taken}) == 1 and controller.step == 0
    lines = listened(controller)
    optimizer.step()
    assert controller.step == 1
    controller.flush()
    assert lines[0]["ce"] == pytest.approx(3.0) and lines[0]["layers"] == taken[0]


@pytest.mark.parametrize(("reward", "logged"), [("cross_entropy", "ce"), ("alignment", "ot")])
def test_a_layer_is_rewarded_by_the_loss_that_is_asked_for(reward, logged, monkeypatch):
    projector, controller, optimizer = make(reward=reward)
    lines, losses = listened(controller), []
    monkeypatch.setattr(controller.schedule, "observe", lambda choice, loss: losses.append(loss))
    run(projector, controller, optimizer, [5.0, 4.0])
    controller.flush()
    assert losses == pytest.approx([line[logged] for line in lines]) and losses[0] != losses[1]
    assert "alignment" not in lines[0]


def test_losses_are_read_late_each_for_its_own_choice():
    projector, controller, optimizer = make()
    seen = listened(controller)
    run(projector, controller, optimizer, [5.0, 4.0])
    micro_step(projector, controller, 3.0, pairs=False)  # cross-entropy alone
    optimizer.step()
    assert [line["step"] for line in seen] == [0]  # at the third forward the first was due
    controller.flush()
    assert [(line["step"], line["ce"]) for line in seen] == [(0, 5.0), (1, 4.0), (2, 3.0)]
    assert ["ot" in line for line in seen] == [True, True, False]


def test_evaluation_stands_still():
    projector, controller, optimizer = make()
    run(projector, controller, optimizer, [1.0])
    state = controller.state_dict()
    controller.begin(None, torch.tensor([[0, 1]]), training=False)
    projector(torch.randn(2, 5, 3))
    loss = controller.end(torch.tensor(7.0), torch.tensor(1))
    optimizer.step()  # a foreign one: no training forward preceded
    assert loss == 7.0 and controller.state_dict() == state


def test_state_continues_the_same_run_and_saving_does_not_change_it():
    losses = [3.0, 2.5, 2.0, 1.8, 1.7, 1.5, 1.4]
    whole = run(*make(), losses)
    projector, controller, optimizer = make()
    head = run(projector, controller, optimizer, losses[:4], save=True)
    state = json.loads(json.dumps(controller.state_dict()))
    projector, controller, optimizer = make()
    controller.load_state_dict(state)
    assert head + run(projector, controller, optimizer, losses[4:]) == whole


def test_a_weight_warms_up_by_optimizer_steps_also_after_a_resume():
    losses, state = [], None
    for _ in range(3):
        projector, controller, optimizer = make(accumulation=2)
        ones = replace(controller.objective.terms[0], distance=lambda x, *_: torch.ones(len(x)))
        controller.objective.terms = (replace(ones, warmup_steps=2),)
        if state:
            controller.load_state_dict(state)
        for _ in range(2):
            controller.begin(
                torch.zeros(2, dtype=torch.long), torch.tensor([[0, 1]]), training=True
            )
            out = projector(torch.randn(2, 5, 3)).mean()
            losses.append(controller.end(out * 0 + 1, torch.tensor(3)))
            losses[-1].backward()
        optimizer.step()
        state = controller.state_dict()
    assert losses == [1.5, 1.5, 2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_loss_stops_the_run_with_the_step(bad):
    projector, controller, optimizer = make()
    run(projector, controller, optimizer, [1.0, bad])
    with pytest.raises(NonFiniteLoss, match=r"step 1: ce=.*Lower train_config.lr"):
        controller.flush()


def test_controller_is_freed_with_its_model():
    alive = weakref.ref(make()[1])
    gc.collect()
    assert alive() is None


def test_diagnoses_are_recorded_at_their_interval_and_change_nothing():
    lines = {}
    for interval in (0, 2):
        projector, controller, optimizer = make(diagnose=interval)
        lines[interval] = listened(controller)
        run(projector, controller, optimizer, [None] * 5)
        controller.flush()
    for plain, measured in zip(lines[0], lines[2], strict=True):
        extra = {k: v for k, v in measured.items() if k not in plain}
        assert measured == plain | extra | {"seconds": measured["seconds"]}
        assert bool(extra) == (measured["step"] % 2 == 0)
        if extra:
            assert extra["ot/matched"] > 0
            assert sum(extra[f"schedule/{k}/probability"] for k in (1, 2)) == pytest.approx(1)


def test_sweeps_that_end_early_are_told_of_once(caplog):
    projector, controller, optimizer = make(diagnose=1)
    few = build_distance("ot", max_iterations=1, epsilon=0.001)
    controller.objective.terms = (replace(controller.objective.terms[0], name="few", distance=few),)
    lines = listened(controller)
    run(projector, controller, optimizer, [1.0] * 3)
    controller.flush()
    assert all(line["few/marginal_error"] > 0 for line in lines) and len(lines) == 3
    assert caplog.text.count("few/marginal_error: sweeps ended early") == 1
