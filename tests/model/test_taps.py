from dataclasses import replace

import pytest
import torch

from slam_potsa.model.llm import unwrapped
from slam_potsa.model.taps import TapRecorder
from tests.support import refused, tiny
from tests.support.trained import build, one_step

EVERY = ("encoder", "compensated", "qformer.1", "qformer.4", "projector", "llm.0", "llm.1", "llm.2")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = tiny.world(tmp_path_factory.mktemp("world"), sentences=3)
    config.language_bias.enabled = False
    return config


def built(config, **train):
    """A model, the batch of its two first items, and the inputs that its LLM receives."""
    model, dataset = build(tiny.changed(config, train_config=train))
    inputs = {}
    model.llm.register_forward_pre_hook(
        lambda _llm, _inputs, named: inputs.update(named), with_kwargs=True
    )
    return model, dataset.collator([dataset[0], dataset[1]]), inputs


@pytest.mark.parametrize("lora", [False, True])
def test_taps_of_the_llm_are_its_hidden_states(config, lora):
    if lora:
        pytest.importorskip("peft")
    parts = ["projector", "llm.lora"] if lora else ["projector"]
    model, batch, inputs = built(config, train_parts=parts)
    model.eval()
    with torch.no_grad(), TapRecorder(model).recording(EVERY) as taps:
        model(**batch)
        found = dict(taps)
        states = model.llm(**inputs, output_hidden_states=True).hidden_states
    with torch.no_grad():
        after_norm = unwrapped(model.llm).get_decoder().norm(found["llm.2"].tensor)
    assert set(found) == set(EVERY) and len(states) == 3
    torch.testing.assert_close(found["llm.0"].tensor, states[0])
    torch.testing.assert_close(found["llm.1"].tensor, states[1])
    torch.testing.assert_close(after_norm, states[2])
    for k in range(3):
        assert torch.equal(found[f"llm.{k}"].mask, batch["attention_mask"].bool())


def test_the_speech_tokens_stand_at_the_audio_slots_of_the_llm(config):
    model, batch, _ = built(config)
    with TapRecorder(model).recording(["projector", "llm.0"]) as taps:
        model(**batch)
        at_slots = taps["llm.0"].tensor[batch["modality_mask"].bool()]
        torch.testing.assert_close(at_slots, taps["projector"].tensor.flatten(0, 1))
        taps["llm.0"].tensor.square().mean().backward()
    assert model.encoder_projector.linear.weight.grad.any()


def test_nothing_else_is_recorded_not_even_what_the_backward_pass_runs_again(config):
    model, batch, _ = built(config)
    decoder = unwrapped(model.llm).get_decoder()
    decoder.gradient_checkpointing_enable({"use_reentrant": False})
    decoder.train()
    runs = []
    decoder.layers[0].input_layernorm.register_forward_hook(lambda *_: runs.append(1))
    recorder = TapRecorder(model)
    with recorder.recording(["qformer.2", "llm.1"]) as taps:
        loss = model(**batch)[0].loss
        assert set(taps) == {"qformer.2", "llm.1"}
        hidden = taps["llm.1"].tensor
    (loss + hidden.square().mean()).backward()
    assert len(runs) > 1 and not taps and not recorder.take()


INNER = {"distance": "cosine", "first": "llm.{layer}", "second": "llm.0", "rows": "same"}


def test_a_term_over_layers_of_the_llm_trains_with_or_without_pairs(config):
    terms = {"inner": {**INNER, "layers": [1, 2], "detach": "second", "weight": 0.5}}
    alignment = {"terms": terms, "cross_entropy_weight": 0.99}
    model, batch, _ = built(replace(config, alignment=alignment))
    batch.pop("pairs")
    with torch.no_grad():
        plain = model(**batch)[0].loss
    loss, line = one_step(model, batch)
    assert line["inner"] > 0 and plain.item() == pytest.approx(line["ce"], abs=1e-4)
    assert loss == pytest.approx(0.99 * line["ce"] + 0.5 * line["inner"], abs=1e-5)


def test_a_tap_or_a_term_that_cannot_be_is_refused(config):
    model, _, _ = built(config)
    layers = "qformer.1 to qformer.4"
    known = {"qformer.0": layers, "qformer.5": layers, "llm.x": "llm.0 to llm.2"}
    for name, expected in (known | {"output": "expected encoder, compensated"}).items():
        with pytest.raises(ValueError, match=expected):
            TapRecorder(model).open([name])
    for name, layer, expected in (
        ("inner", 3, "tap 'llm.3': this model has llm.0 to llm.2"),
        ("ce", 1, "terms: ce stands for"),
    ):
        terms = {name: {**INNER, "layers": [layer]}}
        refused(f"alignment: {expected}", built, replace(config, alignment={"terms": terms}))
