"""The model's contract with both hosts, on tiny real models."""

from dataclasses import replace

import pytest
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from slam_potsa.data.dataset import get_speech_dataset
from slam_potsa.model import beam_cache, speech_llm
from slam_potsa.model.checkpoint import apply_checkpoint, save_checkpoint, trainable_state
from tests.support import refused, tiny
from tests.support.trained import build, save_run


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = tiny.world(tmp_path_factory.mktemp("world"))
    save_run(config)  # and its biases
    return config


def first_batch(dataset, items=3):
    return dataset.collator([dataset[i] for i in range(items)])


def test_training_returns_what_slam_llm_unpacks_and_trains_the_projector_alone(config):
    model, dataset = build(config)
    batch = first_batch(dataset)
    copies = {k: v.clone() for k, v in batch.items() if torch.is_tensor(v)}
    output, accuracy = model.train()(**batch)
    assert all(torch.equal(batch[name], value) for name, value in copies.items())
    answer = batch["input_ids"].shape[1] - batch["label_start"]
    assert output.loss.shape == () and output.logits.shape == (6, answer, 24)
    assert isinstance(accuracy, torch.Tensor) and 0 <= accuracy <= 1
    output.loss.backward()
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names and all(name.startswith("encoder_projector.") for name in names)
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert all(name.endswith("as_parameter") for name in names - reached)
    assert not model.llm.training and not model.encoder.training
    assert model.encoder_projector.training


def test_what_does_not_fit_is_refused(config):
    model, dataset = build(config)
    batch = first_batch(dataset)
    batch.pop("language_ids")
    refused("language_bias.enabled=false", model, **batch)
    refused("unknown key lamda", build, config, alignment={"lamda": 10.0})


def test_evaluation_is_the_llms_own_cross_entropy_and_moves_nothing(config):
    """Logits at label positions only, positions as generate() counts: the same number."""
    model, dataset = build(config)
    batch, given, before = first_batch(dataset), {}, model.controller.state_dict()
    hook = model.eval().llm.register_forward_pre_hook(
        lambda _llm, _inputs, named: given.update(named), with_kwargs=True
    )
    with torch.no_grad():
        loss = model(**batch)[0].loss
        hook.remove()
        del given["logits_to_keep"]
        whole = model.llm(**given, labels=batch["labels"])
        batch.pop("label_start")  # looked up
        torch.testing.assert_close(model(**batch)[0].loss, loss)
    torch.testing.assert_close(loss, whole.loss, atol=1e-5, rtol=1e-5)
    assert model.controller.state_dict() == before
    plain, _ = build(config, alignment=replace(config.alignment, terms={}))
    torch.testing.assert_close(plain(**batch)[0].loss, loss)
    assert model(**batch)[0].loss != loss  # with gradients: plus the alignment term


def test_epochs_are_counted_where_the_trainer_does_not_tell_them(config):
    """SLAM-LLM's DDP loop: train() once an epoch; validations leave the model in eval mode."""
    from slam_potsa.data.pairs import current_epoch

    model, dataset = build(config)
    seen = []
    for _ in range(3):
        model.train()
        seen.append(current_epoch())
        model.eval()
        model(**first_batch(dataset))  # training goes on after the validation, and repairs the mode
        assert model.encoder_projector.training
        seen.append(current_epoch())
    assert seen == [0, 0, 1, 1, 2, 2]
    model.epochs = None
    model.train()
    assert current_epoch() == 2


def to_decode(config):
    """A model in evaluation mode, and the items of a dataset to decode."""
    model, _ = build(config)
    data = replace(config.dataset_config, inference_mode=True)
    return model.eval(), get_speech_dataset(data, model.tokenizer, "val")


def test_a_prompt_is_read_once_for_all_beams(config, monkeypatch):
    """The same answers as transformers', which reads it once a beam, in less work."""
    (model, dataset), given, read = to_decode(config), [], []
    batch, generate = dataset.collator([dataset[i] for i in range(5)]), model.llm.generate
    monkeypatch.setattr(model.llm, "generate", lambda **own: given.append(own) or generate(**own))
    model.llm.model.layers[0].register_forward_hook(
        lambda _layer, _inputs, output: read.append(output[..., 0].numel())
    )
    ours, beams = model.generate(**batch), model.decode["num_beams"]
    columns, work = given[0]["inputs_embeds"].shape[1], sum(read)
    assert beams > 1 and read[:2] == [5 * (columns - 1), 5 * beams]
    read.clear()
    del given[0]["past_key_values"]
    assert torch.equal(generate(**given[0]), ours)
    assert sum(read) - work == 5 * (columns - 1) * (beams - 1)


def test_a_search_sorts_answers_behind_the_prompt_that_beams_share(monkeypatch):
    """What transformers' layer holds, after every column and every change of places in a row."""
    monkeypatch.setattr(beam_cache, "ROOM", 2)
    rows, beams = 2, 3
    first = torch.arange(rows).repeat_interleave(beams) * beams
    theirs, cache = DynamicLayer(), DynamicCache()
    prompts = torch.randn(2, rows, 2, 5, 4)
    cache.update(*prompts, 0)
    theirs.update(*prompts.repeat_interleave(beams, 1))
    ours = beam_cache.of_beams(cache, beams).layers[0]
    for _ in range(7):
        column = torch.randn(2, rows * beams, 2, 1, 4)
        assert all(map(torch.equal, ours.update(*column), theirs.update(*column)))
        chosen = first + torch.randint(beams, first.shape)
        ours.reorder_cache(chosen)
        theirs.reorder_cache(chosen)
    assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)
    assert cache.get_seq_length() == 12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_alone_is_computed_in_the_columns_of_a_batch(config, monkeypatch, dtype):
    """With a mask and, where rounding decides, in the same width."""
    (model, dataset), seen = to_decode(config), []
    model.to(dtype)
    monkeypatch.setattr(model.llm, "generate", lambda **given: seen.append(given))
    for items in ([0], range(5)):
        batch = dataset.collator([dataset[i] for i in items])
        model.generate(**batch)
        width = 64 if dtype == torch.bfloat16 else batch["input_ids"].shape[1] + 1
        assert seen[-1]["inputs_embeds"].shape[1] == seen[-1]["attention_mask"].shape[1] == width
        assert not seen[-1]["attention_mask"].all(1).any()
    alone, first = (given["inputs_embeds"][0] for given in seen)
    torch.testing.assert_close(alone[-20:], first[-20:])


def test_batches_without_labels(config):
    model, dataset = build(config)
    batch = first_batch(dataset)
    no_labels = batch | {"labels": torch.full_like(batch["labels"], -100)}
    output, accuracy = model.train()(**no_labels)
    assert torch.isfinite(output.loss) and output.loss != 0 and accuracy == 0


def test_checkpoint_round_trip_carries_biases_and_schedule(config, tmp_path):
    (model, dataset), path = build(config), str(tmp_path / "model.pt")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(4):
        optimizer.zero_grad()
        model.train()(**first_batch(dataset))[0].loss.backward()
        optimizer.step()
    save_checkpoint(model, path)
    without = replace(config.language_bias, path=None)
    loaded, _ = build(config, ckpt_path=path, language_bias=without)
    assert loaded.encoder_projector.language_bias.languages == ("en", "es", "ru")
    ours, theirs = (m.controller.schedule.state_dict() for m in (loaded, model))
    assert ours["draws"] == theirs["draws"] == 4
    assert [row[3] for row in ours["layers"]] == [row[3] for row in theirs["layers"]]  # last losses
    assert theirs["pending"] and not ours["pending"]  # their losses belong to the other run
    with torch.no_grad():
        losses = [m.eval()(**first_batch(dataset))[0].loss for m in (loaded, model)]
    torch.testing.assert_close(*losses)


def test_misfitting_checkpoints_are_listed_not_swallowed(config, tmp_path):
    model, _ = build(config)
    state = trainable_state(model)
    state["encoder_projector.query"] = torch.zeros(1, 9, 16)
    state["encoder_projector.surprise"] = torch.zeros(1)
    error = refused("2 problems", apply_checkpoint, model, state)
    assert "[1, 9, 16], this model [1, 4, 16]" in str(error)
    state = trainable_state(model)
    del state["encoder_projector.linear.weight"]
    refused("lacks trained parameters: encoder_projector.linear", apply_checkpoint, model, state)
    (tmp_path / "model.pt").write_bytes(b"not a checkpoint")
    refused("not a file of tensors", build, config, ckpt_path=str(tmp_path / "model.pt"))
    refused("no such file", build, config, ckpt_path=str(tmp_path / "absent.pt"))


def test_cross_entropy_in_chunks_is_that_of_the_whole(monkeypatch):
    logits = torch.randn(3, 5, 11, generator=torch.manual_seed(0)).requires_grad_()
    labels = torch.randint(0, 11, (3, 5)).index_put((torch.tensor([0, 2]),), torch.tensor(-100))
    found = []
    for chunk in (speech_llm.CHUNK, 4 * 11, 1):
        monkeypatch.setattr(speech_llm, "CHUNK", chunk)
        loss, targets = speech_llm._cross_entropy(logits, labels)
        found.append((loss, targets, *torch.autograd.grad(loss, logits)))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])
    assert found[0][1] == 5
