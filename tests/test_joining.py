"""A language that joins with speech alone: rows without target, a teacher, what is refused."""

import dataclasses
import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils.data import DistributedSampler

from slam_potsa import InputError
from slam_potsa.cli import main
from slam_potsa.config import TermConfig
from slam_potsa.config.check import check
from slam_potsa.data.dataset import training_items
from slam_potsa.data.jsonl import read_log
from slam_potsa.data.manifest import check_manifest, read_manifest, write_manifest
from slam_potsa.data.pairs import set_epoch
from slam_potsa.engine import native
from slam_potsa.engine.decode import Translator, load_run
from slam_potsa.engine.run_directory import TEACHER, last_checkpoint
from slam_potsa.model.checkpoint import read_checkpoint
from slam_potsa.model.language_bias import LanguageBias
from tests.engine.test_native import same, train_and_tell
from tests.support import refusal, refused, tiny
from tests.support.torchrun import in_two_processes
from tests.support.trained import build, make_it_listen, one_step

OFF = {"enabled": False}
JOIN = {"distance": "ot", "first": "projector", "second": "teacher.projector"}


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A world of en, es, it in which it has no target, and a model trained on en and es."""
    folder = tmp_path_factory.mktemp("world")
    config = tiny.world(folder, languages=("en", "es", "it"))
    rows = read_manifest(config.dataset_config.train_data_path)
    manifest = Path(config.dataset_config.train_data_path)
    heard = [row for row in rows if row.language != "it"]
    write_manifest(manifest.with_name("heard.jsonl"), heard)
    nothing = {"target": None, "target_language": None}
    mute = [dataclasses.replace(row, **nothing) for row in rows if row.language == "it"]
    write_manifest(manifest.with_name("joining.jsonl"), heard + mute)
    config.dataset_config.train_data_path = str(manifest.with_name("heard.jsonl"))
    config.dataset_config.val_data_path = config.dataset_config.train_data_path
    return config, native.finetune(tiny.changed(config))


def joining(taught, folder, **changes):
    """The configuration in which `it` joins the trained model."""
    before, model = taught
    manifest = Path(before.dataset_config.train_data_path).with_name("joining.jsonl")
    data = {"train_data_path": str(manifest), "joining": ["it"], "pairing": "joining"} | changes
    alignment = {"teacher": "ckpt_path", "terms": {"join": TermConfig(**JOIN)}}
    return tiny.changed(
        before,
        ckpt_path=str(model),
        train_config={"output_dir": str(folder / "join"), "num_epochs": 3},
        dataset_config=data,
        alignment=alignment | {"diagnose_interval": 1},
    )


def test_each_recording_that_joins_meets_a_translated_one_of_its_sentence(taught, tmp_path):
    items = training_items(joining(taught, tmp_path).dataset_config)
    partners = set()
    for number in range(8):
        set_epoch(number)
        pairs = [item for item in items if len(item) == 2]
        assert len(pairs) == items.num_pairs == 6 and len(items) == 6 + 12
        assert {pair[0].key for pair in pairs} == {f"it-{n}" for n in range(6)}
        for joins, translated in pairs:
            assert joins.sentence_id == translated.sentence_id and translated.target
            partners.add(translated.language)
    assert partners == {"en", "es"}
    # Heard languages are paired too where pairing says so.
    items = training_items(joining(taught, tmp_path, pairing="random").dataset_config)
    assert items.num_pairs == 6 + 6 == len(items)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 6), (0.2, 6), (0.4, 8), (0.5, 12), (0.75, 36)]
)
def test_their_share_of_an_epoch_is_made_by_taking_turns(taught, tmp_path, share, expected):
    items = training_items(joining(taught, tmp_path, joining_share=share).dataset_config)
    assert items.num_pairs == expected
    heard = Counter()
    for number in range(3):
        set_epoch(number)
        heard.update(item[0].key for item in items if len(item) == 2)
    assert set(heard.values()) == {3 * expected / 6}


@pytest.mark.parametrize(("share", "batch"), [(0.4, 3), (0.5, 2), (0.75, 4), (0.2, 4)])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_batch_of_every_rank_has_their_share(
    taught, tmp_path, monkeypatch, share, batch, ranks
):
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    data = joining(taught, tmp_path, joining_share=share).dataset_config
    for number, rank in itertools.product(range(3), range(ranks)):
        set_epoch(number)
        items = training_items(data)
        drawn = [items[i] for i in DistributedSampler(items, ranks, rank)]
        pairs = [len(item) == 2 for item in drawn[: len(items) // ranks]]
        counts = {sum(pairs[i : i + batch]) for i in range(len(pairs) - batch + 1)}
        assert min(counts) >= int(share * batch) and max(counts) - min(counts) <= 1
        assert list(training_items(data)) == list(items)


def test_rows_without_target_have_no_label(taught, tmp_path):
    config = joining(taught, tmp_path, prompt="USER {target_language} : ")  # they lack it
    _, dataset = build(config, language_bias=OFF, alignment={"terms": {}})
    batch = dataset.collator([item for item in dataset if len(item) == 2])
    first, second = batch["pairs"].unbind(1)
    assert (batch["labels"][first] == -100).all()
    assert (batch["labels"][second] != -100).any(1).all()


@pytest.mark.parametrize(("first", "read"), [("projector", 6), ("llm.1", 12)])
def test_the_llm_reads_rows_without_labels_only_for_terms_over_it(taught, tmp_path, first, read):
    config = joining(taught, tmp_path)
    term = TermConfig(distance="ot", first=first, second=first, detach="second")
    alignment = dataclasses.replace(config.alignment, terms={"join": term}, teacher=None)
    model, dataset = build(config, language_bias=OFF, alignment=alignment)
    batch = dataset.collator([item for item in dataset if len(item) == 2])
    rows = []
    model.llm.register_forward_pre_hook(
        lambda _llm, _inputs, named: rows.append(len(named["inputs_embeds"])), with_kwargs=True
    )
    model.train()
    loss = model(**batch)[0].loss
    del batch["answered"]
    everywhere = model(**batch)[0].loss
    assert rows == [read, 12]
    torch.testing.assert_close(loss, everywhere)


def test_a_language_joins_and_resumes_with_a_teacher_that_does_not_move(taught, tmp_path):
    config = joining(taught, tmp_path)
    native.finetune(tiny.changed(config, native={"max_steps": 4}))
    path = tmp_path / "join" / "metrics.jsonl"
    first = [(line["ce"], line.get("join")) for line in read_log(path)]
    model = native.finetune(config)
    lines = read_log(path)
    assert [(line["ce"], line.get("join")) for line in lines[:4]] == first and len(lines) > 20
    assert not any("teacher" in name for name in read_checkpoint(model))
    # Its own bias, not the mean of the others: its speech is in the manifest.
    assert "it" in LanguageBias.load(tmp_path / "join" / "language_bias.safetensors").languages


@pytest.mark.distributed
def test_a_language_joins_in_two_processes_which_agree_and_resume(taught, tmp_path):
    """Five recordings for two ranks: a batch of one has no pair where the other's has."""
    manifest = Path(taught[0].dataset_config.train_data_path).with_name("five.jsonl")
    rows = read_manifest(manifest.with_name("joining.jsonl"), joining=["it"])
    write_manifest(manifest, [row for row in rows if row.key != "it-5"])

    def run(name, max_steps=0):
        config = joining(taught, tmp_path / name, train_data_path=str(manifest))
        config.native.save_interval, config.native.max_steps = 2, max_steps
        return config

    config = run("whole")
    in_two_processes(train_and_tell, config)
    folder = Path(config.train_config.output_dir)
    whole = read_log(folder / "metrics.jsonl")
    told = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    for rank in (0, 1):
        assert [row[:3] for row in told[rank]] == [[row["step"], [], row["ce"]] for row in whole]
    aligned = [[row[3] for row in of] for of in told]
    assert aligned[0] == ["join" in line for line in whole] and aligned[0] != aligned[1]
    for max_steps in (4, 0):
        config = run("again", max_steps)
        in_two_processes(train_and_tell, config)
    same(read_log(Path(config.train_config.output_dir) / "metrics.jsonl"), whole, "join")


def test_the_teacher_gets_no_gradient_and_answers_as_when_it_was_trained(taught, tmp_path):
    config = joining(taught, tmp_path)
    model, dataset = build(config, ckpt_path=config.ckpt_path)
    batch = dataset.collator([item for item in dataset if len(item) == 2])
    assert model.train().encoder_projector.training and not model.teacher.training
    with model.controller.recorder.recording(["projector", "teacher.projector"]) as taps:
        model.controller.projector.set_languages(batch["language_ids"])
        model.project(batch["audio_mel"], batch["audio_mel_post_mask"], None, batch["language_ids"])
        student, teacher = taps["projector"].tensor, taps["teacher.projector"].tensor
    assert student.requires_grad and not teacher.requires_grad
    torch.testing.assert_close(student.detach(), teacher)  # both start from the same weights


def problems(config) -> str:
    return str(refusal(check, config))


def test_what_does_not_fit_each_other_is_refused_before_a_model_is_loaded(taught, tmp_path):
    config = joining(taught, tmp_path)
    config.alignment.terms["join"].weight = 0.0
    assert "choose one, such as alignment=join" in problems(config)
    config = joining(taught, tmp_path, pairing="none")
    assert "set dataset_config.pairing=joining" in problems(config)
    config = joining(taught, tmp_path, joining=[])
    assert "dataset_config.joining=[it]" in problems(config)
    config = joining(taught, tmp_path)
    config.ckpt_path = None
    assert "alignment.teacher=ckpt_path needs ckpt_path" in problems(config)
    config.alignment.teacher, config.alignment.teacher_decay = None, 0.9
    assert "alignment.teacher and terms over teacher.*" in problems(config)
    assert "teacher_decay=0.9 needs alignment.teacher=ema" in problems(config)


def test_targets_where_none_were_said_to_be_and_partners_that_are_not_there(taught, tmp_path):
    config = joining(taught, tmp_path, joining=["it", "es"])
    with pytest.raises(InputError, match="field 'target': found a translation, expected null"):
        training_items(config.dataset_config)
    manifest = tmp_path / "alone.jsonl"
    lines = Path(config.dataset_config.train_data_path).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    config = joining(taught, tmp_path, train_data_path=str(manifest))
    mute = [row for row in rows if row["language"] == "it"]
    for own in (mute[:2], mute):
        for row in own:
            row["sentence_id"] = f"{row['language']}: {row['sentence_id']}"
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        if own is not mute:
            assert training_items(config.dataset_config).left_out == 2
    refused("joining language 'it': found no sentence_id", training_items, config.dataset_config)


def test_a_teacher_of_other_sizes_is_refused(taught, tmp_path):
    config = tiny.changed(joining(taught, tmp_path), model_config={"qformer_layers": 2})
    config.alignment.teacher = config.ckpt_path
    refused(r"alignment\.teacher", build, config, language_bias=OFF)


def pseudo(taught, *words):
    run, data = Path(taught[1]).parent, Path(taught[0].dataset_config.train_data_path).parent
    return main(["pseudo", str(run), str(data / "joining.jsonl"), *map(str, words)])


@pytest.mark.parametrize("of", ["partner", "own"])
def test_a_finished_model_makes_targets_that_train_as_others(taught, tmp_path, monkeypatch, of):
    out, options = tmp_path / "made" / "pseudo.jsonl", ("--of", of, "--target-language", "en")
    assert pseudo(taught, out, *options) == 0
    rows = read_manifest(out, needs=("target",))
    made = {row.sentence_id: row for row in rows if row.synthetic == "target"}
    assert len(rows) == 18 and len(made) == 6  # none of the answers is empty
    assert {row.language for row in made.values()} == {"it"}
    heard = out.with_name("pseudo_heard.jsonl")
    assert {row.language for row in read_manifest(heard)} == {"en" if of == "partner" else "it"}
    for answer in Translator(load_run(Path(taught[1]).parent)).decode(heard, progress=False):
        assert made[answer.sentence_id].target == answer.prediction
    assert "6 rows have target that a machine made" in check_manifest(out).warnings
    config = tiny.changed(taught[0], dataset_config={"train_data_path": str(out)})
    assert len(training_items(config.dataset_config)) == 12  # ceil(3 / 2) pairs a sentence
    monkeypatch.setattr(Translator, "__init__", None)  # what is there is not decoded again
    written = out.read_bytes()
    assert pseudo(taught, out, *options) == 0 and out.read_bytes() == written


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--of", "own"], "says no target_language: give --target-language"),
        (["--languages", "es"], "found a translation, expected null"),
        (["--partner-language", "fr"], "no sentence_id is spoken in fr language too"),
        (["--languages", "fr"], "language 'fr' is to get targets: the manifest has en, es, it"),
        (["--task", "asr"], "the run transcribes"),
    ],
)
def test_targets_that_cannot_be_made_are_refused(taught, tmp_path, capsys, words, message):
    assert pseudo(taught, tmp_path / "pseudo.jsonl", *words) == 2
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def answered(taught):
    """The manifest with the model's answers for what joins."""
    out = Path(taught[0].dataset_config.train_data_path).parent / "answered.jsonl"
    assert pseudo(taught, out, "--target-language", "en") == 0
    return str(out)


def by_kl(taught, folder, manifest):
    config = joining(taught, folder, train_data_path=manifest)
    terms = {"kl": TermConfig(distance="kl", first="answer", second="teacher.answer", weight=1.0)}
    return tiny.changed(config, alignment={"terms": terms})


def test_the_answer_is_pulled_to_the_teachers_after_the_partners_speech(taught, answered, tmp_path):
    config = by_kl(taught, tmp_path, answered)
    config.alignment.cross_entropy_weight = 0.0
    model, dataset = build(config, ckpt_path=config.ckpt_path)
    for each in (model, model.teacher):
        make_it_listen(each)
    batch = dataset.collator([*dataset][:8])
    first, second = batch["pairs"].unbind(1)
    start = batch["label_start"]
    assert 0 < len(first) < 8 and (batch["labels"][first] == -100).all()
    heard = {name: batch[name].clone() for name in ("audio_mel", "audio_mel_post_mask")}
    for speech in heard.values():
        speech[first] = speech[second]
    languages = batch["language_ids"].index_copy(0, first, batch["language_ids"][second])
    same = batch | heard | {"language_ids": languages}
    opened = ["answer", "teacher.answer"], batch["modality_mask"], None, start, batch["pairs"]
    with torch.no_grad(), model.controller.recorder.recording(*opened) as taps:
        model(**batch)
        answer, teachers = (taps[name] for name in opened[0])
        torch.testing.assert_close(teachers.tensor[second], model(**same)[0].logits[first])
    assert torch.equal(teachers.mask[second], batch["attention_mask"][first, start:])
    loss = model.train()(**batch)[0].loss
    sides = answer.tensor[first].log_softmax(2), teachers.tensor[second].softmax(2)
    by_token = torch.nn.functional.kl_div(*sides, reduction="none").sum(2)
    rows = [row[valid].mean() for row, valid in zip(by_token, answer.mask[first], strict=True)]
    torch.testing.assert_close(loss, sum(rows) / len(rows))
    assert loss > 1e-3
    loss.backward()
    assert model.encoder_projector.linear.weight.grad.abs().sum() > 0
    assert all(p.grad is None for part in (model.teacher, model.llm) for p in part.parameters())
    assert model(**same)[0].loss.item() == pytest.approx(0.0, abs=1e-6)


def test_answers_that_are_not_there_or_that_nothing_reads_are_refused(taught, answered, tmp_path):
    with pytest.raises(InputError, match="6 rows that join, such as 'it-0', have no target: write"):
        native.finetune(
            by_kl(taught, tmp_path, joining(taught, tmp_path).dataset_config.train_data_path)
        )
    with pytest.raises(InputError, match="have a target, which nothing reads but"):
        native.finetune(joining(taught, tmp_path, train_data_path=answered))
    config = by_kl(taught, tmp_path, answered)
    config.train_config.train_parts = ["projector", "llm.lora"]
    assert "alignment over answer: its teacher is a projector" in problems(config)
    config.alignment.teacher, config.alignment.terms["kl"].rows = None, "same"
    assert "alignment.teacher and terms over teacher.*" in problems(config)
    assert "second=teacher.answer and rows=pairs belong together" in problems(config)


def test_the_teacher_computes_the_rows_that_are_compared(taught, tmp_path):
    config = joining(taught, tmp_path)
    model, dataset = build(config, ckpt_path=config.ckpt_path)
    batch = dataset.collator(list(dataset))
    rows, losses = [], []
    model.teacher.encoder_projector.register_forward_hook(
        lambda _projector, inputs, _output: rows.append(len(inputs[0]))
    )
    model.train()
    losses.append(model(**batch)[0].loss)
    model.controller._taught = lambda: None
    losses.append(model(**batch)[0].loss)
    assert rows == [6, len(batch["language_ids"])] == [6, 24]
    torch.testing.assert_close(*losses, rtol=1e-6, atol=0)


def test_tokens_over_the_size_of_the_llms_embeddings_cost_so_many_times_more(taught, tmp_path):
    config, losses = joining(taught, tmp_path), []
    for tokens in ("raw", "embedding"):
        config.alignment.terms["join"] = TermConfig(**JOIN, tokens=tokens)
        model, dataset = build(config, ckpt_path=config.ckpt_path)
        losses.append(one_step(model, dataset.collator(list(dataset)))[1]["join"])
    size = model.llm.get_input_embeddings().weight.square().mean()
    assert losses[1] == pytest.approx(losses[0] / size.item(), rel=1e-4)


def test_an_average_follows_what_trains_and_resumes_exactly(taught, tmp_path):
    config = joining(taught, tmp_path)
    config.alignment.teacher, config.alignment.teacher_decay = "ema", 0.75
    model, dataset = build(config, ckpt_path=config.ckpt_path)
    own = dict(model.teacher.encoder_projector.named_parameters())
    theirs = model.encoder_projector
    assert all(torch.equal(p, own[n]) for n, p in theirs.named_parameters() if n in own)
    batch = dataset.collator(list(dataset)[:8])
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()
    expected = theirs.linear.weight.detach().clone()
    for _ in range(3):
        model(**batch)[0].loss.backward()
        optimizer.step()
        expected = 0.75 * expected + 0.25 * theirs.linear.weight.detach()
    torch.testing.assert_close(own["linear.weight"], expected)
    assert not torch.equal(own["linear.weight"], theirs.linear.weight)

    runs = {}
    for name, stops in (("whole", [0]), ("halves", [3, 0])):
        config.train_config.output_dir = str(tmp_path / name)
        for stop in stops:
            model = native.finetune(tiny.changed(config, native={"max_steps": stop}))
        last = last_checkpoint(tmp_path / name) / TEACHER
        runs[name] = [read_checkpoint(path) for path in (model, last)]
    for ours, other in zip(*runs.values(), strict=True):
        weights = [key for key in ours if "carried" not in key and "schedule_state" not in key]
        assert all(torch.equal(ours[key], other[key]) for key in weights)
