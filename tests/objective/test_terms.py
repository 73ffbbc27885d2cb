"""Equation 4: which taps a term compares, what it adds, and how collapse is seen."""

import pytest
import torch

from slam_potsa.objective.distances import build_distance
from slam_potsa.objective.terms import AlignmentObjective, AlignmentTerm, Tap
from slam_potsa.objective.transport import transport, transport_loss

PAIRS = torch.tensor([[0, 1], [3, 2]])
NO_PAIRS = torch.empty(0, 2, dtype=torch.long)


def tap(*shape: int, seed: int = 0, mask: torch.Tensor | None = None) -> Tap:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return Tap(values.requires_grad_(), mask)


def term(**changes) -> AlignmentTerm:
    fields = {"name": "ot", "first": "qformer.{layer}", "second": "qformer.{layer}"}
    fields |= {"distance": build_distance("ot"), "weight": 10.0}
    return AlignmentTerm(**(fields | changes))


def qformer_taps() -> dict[str, Tap]:
    return {f"qformer.{k}": tap(4, 6, 8, seed=k) for k in (1, 2, 3)}


@pytest.mark.parametrize("lengths", [None, (6, 4, 5, 2)])
def test_potsa_is_cross_entropy_plus_the_mean_over_layers_and_pairs(lengths):
    taps, cross_entropy = qformer_taps(), torch.tensor(2.0, requires_grad=True)
    masks = ()
    if lengths:  # masks follow their rows
        mask = torch.arange(6) < torch.tensor(lengths)[:, None]
        taps = {name: each._replace(mask=mask) for name, each in taps.items()}
        masks = mask[[0, 3]], mask[[1, 2]]
    loss = AlignmentObjective([term()])(cross_entropy, taps, PAIRS, [1, 3])
    values = [transport_loss(taps[f"qformer.{k}"].tensor[[0, 3]],
                             taps[f"qformer.{k}"].tensor[[1, 2]], *masks)
              for k in (1, 3)]  # fmt: skip
    mean = torch.cat(values).mean()
    assert torch.allclose(loss.total, 2.0 + 10 * mean)
    assert torch.allclose(loss.terms["ot"], mean) and not loss.terms["ot"].requires_grad
    loss.total.backward()
    assert cross_entropy.grad == 1
    for name, layer in taps.items():  # layer 2 is not scheduled
        assert (layer.tensor.grad is None) == (name == "qformer.2")
    reached = (taps["qformer.1"].tensor.grad != 0).any(2)
    assert torch.equal(reached, mask) if lengths else reached.all()


def test_ai_sta_aligns_each_row_with_its_own_text_which_stays_put():
    speech_mask = torch.arange(6) < torch.tensor([[6], [4], [3], [0]])
    text_mask = torch.arange(5) < torch.tensor([[5], [0], [2], [4]])
    speech, text = tap(4, 6, 8, mask=speech_mask), tap(4, 5, 8, seed=1, mask=text_mask)
    taps = {"llm.2.speech": speech, "llm.2.text": text}
    sides = {"first": "llm.{layer}.speech", "second": "llm.{layer}.text", "rows": "same"}
    ai_sta = term(**sides, weight=0.01, detach="second", layers=(2,))
    objective = AlignmentObjective([ai_sta], cross_entropy_weight=0.99)
    assert objective.tap_names([7]) == set(taps)
    loss = objective(torch.tensor(2.0), taps, NO_PAIRS, [7])
    rows = [0, 2]  # the others lack speech or text
    tensors, masks = (speech.tensor[rows], text.tensor[rows]), (speech_mask[rows], text_mask[rows])
    expected = transport_loss(*tensors, *masks).mean()
    assert torch.allclose(loss.total, 0.99 * 2 + 0.01 * expected)
    loss.total.backward()
    assert text.tensor.grad is None and (speech.tensor.grad[[1, 3]] == 0).all()


def test_a_sum_over_pairs_weighs_as_many_times_as_there_are_live_pairs():
    dead = torch.ones(4, 6, dtype=torch.bool)
    dead[2] = False  # the second side of the second pair
    objective = AlignmentObjective([term(reduction="sum")])
    for mask, live in ((dead, 1), (None, 2)):
        taps = {"qformer.1": tap(4, 6, 8, mask=mask)}
        loss = objective(torch.tensor(0.0), taps, PAIRS, [1])
        assert torch.allclose(loss.total, 10 * live * loss.terms["ot"])


def test_terms_add_up_and_unscheduled_ones_are_compared_once():
    taps = qformer_taps() | {"output": tap(4, 6, 8, seed=9)}
    output = term(name="output", first="output", second="output", weight=0.5, detach="second",
                  distance=build_distance("mse"))  # fmt: skip
    objective = AlignmentObjective([term(), output])
    assert objective.tap_names([1, 2]) == {"qformer.1", "qformer.2", "output"}
    assert objective.tap_names([]) == {"output"}
    loss = objective(torch.tensor(1.0), taps, PAIRS, [1, 2])
    expected = 1.0 + 10 * loss.terms["ot"] + 0.5 * loss.terms["output"]
    assert torch.allclose(loss.total, expected)
    loss.total.backward()
    gradient = taps["output"].tensor.grad  # none to the anchor, which is detached
    assert (gradient[[1, 2]] == 0).all() and (gradient[[0, 3]] != 0).any(2).all()
    assert set(objective(torch.tensor(1.0), taps, PAIRS, []).terms) == {"output"}


def test_a_batch_without_pairs_trains_on_cross_entropy_alone():
    for terms, pairs in (([term()], NO_PAIRS), ([], PAIRS)):  # without terms: the baseline
        cross_entropy = torch.tensor(2.0, requires_grad=True)
        objective = AlignmentObjective(terms, cross_entropy_weight=0.5)
        loss = objective(cross_entropy, {}, pairs, [1])  # nothing has to be recorded either
        assert loss.total == 1.0 and loss.terms == objective.diagnose({}, pairs, [1]) == {}
        loss.total.backward()
        assert cross_entropy.grad == 0.5


def test_diagnose_tells_matched_from_mismatched():
    x = tap(4, 6, 8).tensor.detach()
    x[1], x[2] = x[0].flip(0), x[3].flip(0)  # partners hold the same tokens in another order
    taps = {"qformer.1": Tap(x.requires_grad_())}
    report = AlignmentObjective([term()]).diagnose(taps, PAIRS, [1])
    assert set(report) == {"ot/matched", "ot/mismatched", "ot/marginal_error"}
    assert report["ot/matched"] < 0.1 < report["ot/mismatched"]
    expected = transport(x[[0, 3]], x[[2, 1]]).cost.mean()
    assert torch.allclose(report["ot/mismatched"], expected)
    assert not any(value.requires_grad for value in report.values())


def test_diagnose_leaves_out_rows_of_one_meaning_and_compares_with_other_rows_text():
    taps, objective = qformer_taps(), AlignmentObjective([term()])
    pairs = torch.tensor([[0, 1], [2, 3], [0, 3]])
    x = taps["qformer.1"].tensor
    # Rolled seconds are rows 3, 1, 3; of the sentences below the second pair's is its own.
    sentences = torch.tensor([5, 8, 8, 9])
    report = objective.diagnose(taps, pairs, [1], sentence_ids=sentences)
    expected = transport(x[[0, 0]], x[[3, 3]]).cost.mean()
    assert torch.allclose(report["ot/mismatched"], expected)
    assert set(objective.diagnose(taps, PAIRS[:1], [1])) == {"ot/matched", "ot/marginal_error"}
    taps = {"speech": tap(3, 6, 8), "text": tap(3, 5, 8, seed=1)}
    same = term(first="speech", second="text", rows="same", distance=build_distance("ot"))
    report = AlignmentObjective([same]).diagnose(taps, NO_PAIRS, [])
    speech, text = taps["speech"].tensor, taps["text"].tensor
    assert torch.allclose(report["ot/mismatched"], transport(speech, text.roll(1, 0)).cost.mean())
    assert torch.allclose(report["ot/matched"], transport(speech, text).cost.mean())


def test_bad_objectives_taps_and_pairs_are_refused():
    with pytest.raises(ValueError, match="distinct names"):
        AlignmentObjective([term(), term()])
    with pytest.raises(ValueError, match="cross_entropy_weight"):
        AlignmentObjective([term()], cross_entropy_weight=-0.1)
    objective, taps, loss = AlignmentObjective([term()]), qformer_taps(), torch.tensor(1.0)
    with pytest.raises(ValueError, match="expected qformer.9 too, got qformer.1, qformer.2"):
        objective(loss, taps, PAIRS, [1, 9])
    for pairs in (torch.tensor([0, 1]), torch.zeros(2, 3).long(), torch.ones(1, 2)):
        with pytest.raises(ValueError, match=r"pairs: expected integer row indices \[P, 2\]"):
            objective(loss, taps, pairs, [1])


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"rows": "all", "distance": "ot"}, "rows.*distance"),
        ({"reduction": "max"}, "reduction"),
        ({"weight": -1.0, "detach": "first"}, "detach.*weight"),
        ({"rows": "same"}, "second"),
        ({"first": "a", "second": "b", "layers": (1,)}, "layers"),
    ],
)
def test_bad_terms_are_refused(changes, names):
    with pytest.raises(ValueError, match=names):
        term(**changes)


def test_a_scale_divides_both_sides_and_a_weight_warms_up():
    x, zero = tap(4, 6, 8).tensor, torch.tensor(0.0)
    scaled = term(first="a", second="a", scale=4.0, weight=1.0, warmup_steps=4)
    objective = AlignmentObjective([scaled])
    at = [objective(zero, {"a": Tap(x)}, PAIRS, [], step=step).total for step in (0, 2, 3, 9, None)]
    whole = transport_loss(x[PAIRS[:, 0]] / 4.0, x[PAIRS[:, 1]] / 4.0).mean()
    torch.testing.assert_close(torch.stack(at), whole * torch.tensor([0.25, 0.75, 1.0, 1.0, 1.0]))


def test_unit_tokens_forget_their_length_and_what_padding_holds():
    mask = torch.arange(6) < torch.tensor([[6], [4], [3], [5]])
    tokens, results = tap(4, 6, 8).tensor.detach(), []
    for length, garbage in ((1.0, 0.0), (7.0, float("nan"))):
        x = torch.where(mask[:, :, None], length * tokens, garbage).requires_grad_()
        taps = {"a": Tap(x, mask)}
        unit = term(first="a", second="a", tokens="unit", weight=1.0)
        loss = AlignmentObjective([unit])(torch.tensor(0.0), taps, PAIRS, [])
        loss.total.backward()
        assert torch.isfinite(x.grad).all() and (x.grad[~mask] == 0).all()
        results.append(loss.total)
    torch.testing.assert_close(*results)
    x, y = (torch.nn.functional.normalize(tokens[rows], dim=2) for rows in PAIRS.T)
    expected = transport_loss(x, y, *(mask[rows] for rows in PAIRS.T)).mean()
    torch.testing.assert_close(results[0], expected)
