"""AI-STA: speech against transcript inside the LLM, from the taps to training on files."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from slam_potsa import InputError
from slam_potsa.config import TermConfig, defaults
from slam_potsa.config.compose import compose_config
from slam_potsa.data.jsonl import read_log
from slam_potsa.data.manifest import read_manifest, write_manifest
from slam_potsa.engine import native
from slam_potsa.engine.decode import Translator, load_run
from slam_potsa.model.llm import unwrapped
from slam_potsa.model.taps import TapRecorder
from tests.support import refused, tiny
from tests.support.trained import build, one_step

SIDES = ("speech.llm.{layer}", "text.llm.{layer}")
AI_STA = asdict(compose_config(["alignment=ai_sta"]).alignment)
LORA = ["projector", "llm.lora"]


def inner(config, **term):
    """`config` with AI-STA alone; `term` changes it."""
    terms = {"ai_sta": defaults(TermConfig, AI_STA["terms"]["ai_sta"] | {"layers": [0, 1]} | term)}
    weight = AI_STA["cross_entropy_weight"]
    return tiny.changed(config, alignment={"terms": terms, "cross_entropy_weight": weight})


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = tiny.world(tmp_path_factory.mktemp("world"), sentences=4)
    config.language_bias.enabled = False
    config.dataset_config.pairing = "none"
    return inner(config)


def built(config, rows=(0, 1, 5, 9), **train):
    model, dataset = build(tiny.changed(config, train_config=train))
    return model, dataset.collator([dataset[row] for row in rows])


@pytest.mark.parametrize("parts", [["projector"], LORA])
def test_the_transcript_is_read_alone_and_the_speech_at_its_slots(config, parts):
    model, batch = built(config, train_parts=parts)
    model.train()
    was = [part.training for part in model.modules()]
    names = [side.format(layer=k) for side in SIDES for k in range(3)] + ["llm.1"]
    text = batch["modality_mask"], batch["transcript_ids"]
    with TapRecorder(model).recording(names, *text) as taps:
        model(**batch)
        found = dict(taps)
    assert set(found) == set(names) and [part.training for part in model.modules()] == was
    model.eval()
    for row, ids in enumerate(batch["transcript_ids"]):
        alone = ids[ids >= 0]
        states = model.llm(input_ids=alone[None], output_hidden_states=True).hidden_states
        for k in range(2):  # the last state of transformers is after the norm
            tensor, mask = found[f"text.llm.{k}"]
            torch.testing.assert_close(tensor[row][mask[row]], states[k][0], atol=1e-5, rtol=1e-4)
            assert not tensor.requires_grad
            speech = found[f"speech.llm.{k}"]
            assert speech.tensor.requires_grad and torch.equal(speech.mask, batch["modality_mask"])
    norm = unwrapped(model.llm).get_decoder().norm
    last = found["text.llm.2"].tensor[row][: len(alone)]
    torch.testing.assert_close(norm(last), states[2][0], atol=1e-5, rtol=1e-4)


def test_rows_that_lack_a_side_say_nothing_and_alpha_weighs_the_rest(config):
    model, batch = built(config)
    batch["transcript_ids"][1] = -100
    batch["modality_mask"][2] = False
    loss, line = one_step(model, batch)
    assert line["ai_sta/mismatched"] > 0
    assert loss == pytest.approx(0.99 * line["ce"] + 0.01 * line["ai_sta"], rel=1e-5)


def test_alpha_of_one_is_cross_entropy_to_the_bit(config):
    losses, gradients = [], []
    for terms in (config.alignment.terms, {}):
        alignment = {"terms": terms, "cross_entropy_weight": 1.0}
        model, batch = built(tiny.changed(config, alignment=alignment))
        losses.append(one_step(model, batch)[0])
        gradients.append(model.encoder_projector.linear.weight.grad)
    assert losses[0] == losses[1] and torch.equal(*gradients)


def test_identical_states_have_no_divergence(config):
    model, batch = built(inner(config, variant="debiased", layers=[0, 1, 2]))
    embed = unwrapped(model.llm).get_input_embeddings()
    ids = torch.arange(4).repeat(4, 1) + 2  # as many as there are slots
    model.encoder_projector.register_forward_hook(
        lambda _module, _inputs, output: embed(ids) + 0 * output
    )
    _, line = one_step(model, batch | {"transcript_ids": ids})
    assert abs(line["ai_sta"]) < 1e-4


def test_what_is_run_again_for_its_gradient_is_no_tap(config):
    model, batch = built(config, train_parts=LORA)
    decoder, found = unwrapped(model.llm).get_decoder(), []
    for again in (False, True):
        if again:
            decoder.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(1)
        model.zero_grad()
        loss = model.train()(**batch)[0].loss
        assert model.llm.training  # dropout of the adapters
        loss.backward()
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append((loss.item(), grads))
    (once, expected), (twice, grads) = found
    assert twice == pytest.approx(once)
    torch.testing.assert_close(grads, expected)


def train(config, folder: Path, **train):
    config.train_config = replace(config.train_config, output_dir=str(folder), **train)
    config.log_config.log_file = str(folder / "log")
    native.finetune(config)
    return read_log(folder / "metrics.jsonl")


def test_it_trains_with_lora_resumes_and_decodes(config, tmp_path):
    def fresh(steps):
        own = tiny.changed(config, native={"max_steps": steps, "save_interval": 2})
        own.alignment.schedule.candidates = "all"
        return inner(own, layers=[])

    how = {"train_parts": LORA, "gradient_accumulation_steps": 2}
    whole = train(fresh(4), tmp_path / "whole", **how)
    train(fresh(2), tmp_path / "parts", **how)
    parts = train(fresh(4), tmp_path / "parts", **how)
    for ours, theirs in zip(parts, whole, strict=True):
        assert ours["layers"] == theirs["layers"] and set(ours["layers"]) <= {0, 1, 2}
        assert ours["ce"] == pytest.approx(theirs["ce"]) and "ai_sta" in ours
    answers = Translator(load_run(tmp_path / "parts")).decode(config.dataset_config.val_data_path)
    assert len(answers) == 12


@pytest.mark.parametrize(
    ("term", "weight", "expected"),
    [
        ({"layers": [0, 3]}, 0.99, "ai_sta: tap 'speech.llm.3': this model has llm.0 to llm.2"),
        ({"first": "speech.qformer.1"}, 0.99, "tap 'speech.qformer.1': expected encoder"),
        ({}, 1.01, "cross_entropy_weight=1.01: expected AI-STA's alpha, at most 1"),
        ({"transcripts": False}, 0.99, "(?s):2: field 'transcript'.*:7: field 'transcript'"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(
    config, tmp_path, monkeypatch, term, weight, expected
):
    monkeypatch.setattr(native, "model_factory", None)
    lacking = not term.pop("transcripts", True)
    own = inner(config, **term)
    own.alignment.cross_entropy_weight = weight
    if lacking:
        manifest = Path(config.dataset_config.train_data_path)
        rows = [
            replace(row, transcript=None if n in (1, 6) else row.transcript)
            for n, row in enumerate(read_manifest(manifest))
        ]
        write_manifest(manifest.with_name("lacking.jsonl"), rows)
        data = {"train_data_path": str(manifest.with_name("lacking.jsonl"))}
        own = tiny.changed(own, dataset_config=data)
    refused(expected, train, own, tmp_path / "run")


@pytest.mark.parametrize("rival", ["ctc", "cl"])
def test_rivals_train_from_a_checkpoint_and_decode(config, tmp_path, rival):
    start = tiny.changed(config, alignment={"terms": {}}, native={"max_steps": 1})
    train(start, tmp_path / "start")
    chosen = compose_config([f"alignment=ai_sta_{rival}"]).alignment
    start.alignment, model = chosen, str(tmp_path / "start" / "model.pt")
    own = tiny.changed(start, ckpt_path=model, native={"max_steps": 3})
    lines = train(own, tmp_path / "run")
    assert all(line[rival] > 0 for line in lines)
    assert Translator(load_run(tmp_path / "run")).decode(config.dataset_config.val_data_path)
    start.alignment = replace(
        chosen, terms={"ctc": replace(chosen.terms[rival], first="projector")}
    )
    with pytest.raises(InputError, match="belong together|is one row"):
        train(start, tmp_path / "bad", batch_size_training=1 + (rival == "ctc"))
