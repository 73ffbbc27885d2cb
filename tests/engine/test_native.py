"""The embedded host: trains, resumes to the same numbers, agrees between processes."""

import json
import re
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from slam_potsa.data.jsonl import read_log
from slam_potsa.data.manifest import read_manifest, write_manifest
from slam_potsa.engine import native, prepare
from slam_potsa.engine.decode import Translator, load_run
from slam_potsa.engine.encode import store_features
from slam_potsa.engine.prepare import first_rank_first
from slam_potsa.engine.run_directory import (
    complete,
    complete_checkpoints,
    last_checkpoint,
    read_state,
)
from slam_potsa.model import speech_llm
from slam_potsa.model.checkpoint import read_checkpoint
from slam_potsa.model.controller import NonFiniteLoss
from slam_potsa.model.encoder import load_encoder
from slam_potsa.model.metrics import rounded
from tests.support import refusal, refused, tiny
from tests.support.torchrun import ROOT, in_two_processes, torchrun


def metrics(config):
    return read_log(Path(config.train_config.output_dir) / "metrics.jsonl")


def same(ours, theirs, term="ot"):
    """The same run: steps, layers and rates exactly, losses up to the rounding of sums.

    A product's summation order may follow the alignment of memory, and Adam magnifies the last bit
    of a gradient that is nearly zero.
    """
    exact = ("step", "layers", "lr")
    assert [[a[k] for k in exact] for a in ours] == [[b[k] for k in exact] for b in theirs]
    assert any(term in line for line in ours)
    for a, b in zip(ours, theirs, strict=True):
        assert a["ce"] == pytest.approx(b["ce"], rel=1e-4)
        assert (term in a) == (term in b)
        assert a.get(term, 0) == pytest.approx(b.get(term, 0), rel=1e-3, abs=1e-4)


def same_weights(ours: Path, theirs: Path, atol: float = 1e-4) -> None:
    expected = read_checkpoint(theirs)
    for name, tensor in read_checkpoint(ours).items():
        if not name.endswith("as_parameter"):
            torch.testing.assert_close(tensor, expected[name], atol=atol, rtol=1e-3, msg=name)


def with_dropout(folder, **options):
    """Random numbers at every step: a resumed run must take them up where they were."""
    config = tiny.world(folder)
    config.model_config.qformer_dropout = 0.1
    config.native = replace(config.native, **options)
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    config = with_dropout(tmp_path_factory.mktemp("native"))
    native.finetune(config)
    return config


def test_run_directory_holds_what_it_promises(trained):
    run = Path(trained.train_config.output_dir)
    assert (run / "config.yaml").is_file() and (run / "language_bias.safetensors").is_file()
    assert (run / "model.pt").is_file() and (run / "best" / "model.pt").is_file()
    state = read_checkpoint(run)  # what is trained, and nothing else
    assert state and all(name.startswith("encoder_projector.") for name in state)


def test_resumed_run_continues_with_the_same_numbers(trained, tmp_path):
    """Stopped after five of twelve steps, in the middle of an epoch, and started again."""
    config = with_dropout(tmp_path, save_interval=3, max_steps=5)
    native.finetune(config)
    assert last_checkpoint(config.train_config.output_dir).name == "checkpoint-5"
    final = native.finetune(with_dropout(tmp_path, save_interval=3))
    assert [line["step"] for line in metrics(config)] == list(range(12))
    same(metrics(config), metrics(trained))
    same_weights(final, Path(trained.train_config.output_dir) / "model.pt")


def test_stored_features_replace_the_encoder_in_training(trained, tmp_path):
    """A small card trains on them alone; new recordings need the encoder again."""
    config = with_dropout(tmp_path)
    encoder = load_encoder(config.model_config.encoder_path_hf, "trimmed")
    manifest = config.dataset_config.train_data_path
    store_features(encoder, [manifest], tmp_path / "features", progress=False)
    config.dataset_config.feature_store = str(tmp_path / "features")
    config.model_config.load_encoder = False
    native.finetune(config)
    for ours, theirs in zip(metrics(config), metrics(trained), strict=True):
        assert ours["ce"] == pytest.approx(theirs["ce"], rel=2e-3)  # stored in float16
    new = tiny.recordings(tmp_path / "new", sentences=2, languages=("fr",))
    translator = Translator(load_run(config.train_config.output_dir))
    text, _ = (p.prediction for p in translator.decode(new, progress=False))
    assert translator.translate([new.parent / "audio" / "fr-0.wav"], "fr", "en") == [text]


def test_accumulated_gradients_and_the_fused_optimizer_are_the_same_step(tmp_path):
    """One batch of two pairs, two batches of one, or all weights in one kernel: the same losses
    and, after them, weights."""
    weights, lines = [], []
    for accumulation, fused in ((1, False), (2, False), (1, True)):
        config = tiny.world(tmp_path / f"{accumulation}{fused}", words=3)
        train, config.native.fused = config.train_config, fused
        train.gradient_accumulation_steps = accumulation
        train.batch_size_training = 2 // accumulation
        train.run_validation, train.warmup_steps, train.num_epochs = False, 0, 1
        weights.append(native.finetune(config))
        lines.append(metrics(config))
        saved = torch.load(last_checkpoint(weights[-1].parent) / "optimizer.pt")
        assert saved["param_groups"][0]["fused"] is (fused or None)
    assert len(lines[0]) == 6
    for other in (1, 2):
        same(lines[0], lines[other])
        same_weights(weights[0], weights[other], atol=2e-4)


def test_what_happens_to_a_run_that_is_there(tmp_path):
    """Pruned, not trained again, not continued by another training, a start for a new one."""
    config = with_dropout(tmp_path, save_interval=3, keep_checkpoints=2)
    first = native.finetune(config)
    expected, run = first.read_bytes(), first.parent
    found = complete_checkpoints(run)
    assert [path.name for path in found] == ["checkpoint-9", "checkpoint-12"]
    assert native.finetune(config).read_bytes() == expected  # others may have started from it
    assert len(metrics(config)) == 12 and last_checkpoint(run) == found[1]
    (found[1] / "complete").unlink()
    assert last_checkpoint(run) == found[0]
    state = found[0] / "controller.json"
    state.write_text(state.read_text().replace('"world_size": 1', '"world_size": 4'))
    complete(found[0])
    refused("written by 4 processes, now there are 1", native.finetune, config)
    config.train_config.lr = 0.5
    refused("train_config.lr: 0.001 then, 0.5 now", native.finetune, config)
    second = tmp_path / "second"
    config.ckpt_path, config.train_config.output_dir = str(first), str(second)
    config.language_bias.path, config.native.max_steps = None, 4
    precious = [second / "checkpoint-500" / "precious.bin", second / "best" / "thesis.txt"]
    for path in (*precious, second / "model.pt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("weeks of work")
    refused("start it anew with native.resume=never", native.finetune, config)
    assert (second / "model.pt").read_text() == "weeks of work"
    found = ["done.json", "scores.json", "metrics.before.jsonl", "slam_pred", "slam_gt"]
    found += ["t.done.json", "t_gt", "t_pred", "t_predictions.jsonl"]
    for name in found:
        (second / name).write_text("of the weights before")
    config.native.resume = "never"
    native.finetune(config)
    assert all(path.is_file() for path in precious)
    assert not [name for name in found if (second / name).exists()]
    state = read_state(last_checkpoint(second))["controller"]
    assert state["step"] == 4  # of its own: SLAM-LLM takes up that of ckpt_path


def test_bad_input_is_refused_before_training(tmp_path):
    config = tiny.world(tmp_path)
    data, manifest = config.dataset_config, Path(config.dataset_config.train_data_path)

    def said() -> str:
        error = refusal(native.finetune, config)
        assert not (tmp_path / "run" / "metrics.jsonl").exists()
        return str(error)

    other = load_encoder(str(tiny.whisper(tmp_path / "other", seed=5)), "trimmed")
    store_features(other, [manifest], tmp_path / "features", progress=False)
    data.feature_store = str(tmp_path / "features")
    assert "encoder" in said()
    data.feature_store = None
    (manifest.parent / "audio" / "en-0.wav").unlink()
    (manifest.parent / "audio" / "ru-1.wav").write_bytes(b"")
    assert re.search(r"2 problems:\n.*en-0.wav: no such file.*\n.*ru-1.wav.*empty", said())
    data.mel_size = 128
    rows = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(row for row in rows if '"ru-' in row))
    text = said()
    assert "reads 80 mel bands: set it to 80" in text and "nothing to align" in text


def train_and_tell(rank, config):
    """What the schedule of this rank chose and saw goes to rank-N.json."""
    lines, make = [], native.NativeTrainer.__init__

    def init(self, *arguments):
        make(self, *arguments)
        self.controller.listeners.append(
            lambda line: lines.append(
                [line["step"], list(line["layers"]), rounded(line["ce"]), "join" in line]
            )
        )

    native.NativeTrainer.__init__ = init
    native.finetune(config)
    Path(config.train_config.output_dir, f"rank-{rank}.json").write_text(json.dumps(lines))


@pytest.mark.parametrize("by", ["accuracy", "bleu"])
def test_the_best_is_chosen_by_what_is_asked_and_patience_ends_the_run(by, tmp_path, monkeypatch):
    config = tiny.world(tmp_path)
    config.native.choose_by, config.native.choose_sample, config.native.patience = by, 4, 2
    config.train_config.validation_interval, config.native.choose_interval = 1, 2
    given, heard = iter([2.0, 3.0, 1.0, 1.0, 9.0]), []
    if by == "bleu":
        score = lambda items: items[0].key and (heard.append(items) or next(given))  # noqa: E731
        monkeypatch.setattr("slam_potsa.evaluation.text_metrics.mean_bleu", score)
    else:  # the second is better, then two are not
        value = lambda *_: -next(given)  # noqa: E731
        monkeypatch.setattr("slam_potsa.engine.native.Judge.value", value)
    native.finetune(config)
    run, steps = Path(config.train_config.output_dir), 8 if by == "bleu" else 4
    assert len(metrics(config)) == steps and (run / "best" / "model.pt").is_file()
    native.finetune(config)  # it stays ended
    assert len(metrics(config)) == steps
    assert all(len(items) == 4 and items[0].beam == 1 for items in heard)
    assert all(item.reference and item.sentence_id for items in heard for item in items)


def test_what_cannot_be_chosen_by_is_told_before_a_model_is_loaded(tmp_path, monkeypatch):
    config = tiny.world(tmp_path)
    config.native.choose_by = "blue"
    refused("'blue': known are accuracy, bleu, ce, chrf", native.check_host, config)
    rows = read_manifest(config.dataset_config.val_data_path)
    config.dataset_config.val_data_path = str(tmp_path / "into_ja.jsonl")
    write_manifest(tmp_path / "into_ja.jsonl", [replace(rows[0], target_language="ja"), rows[1]])
    monkeypatch.setitem(sys.modules, "MeCab", None)  # not installed
    config.native.choose_by = "bleu"
    refused("choose_by=bleu: tokeniser 'ja-mecab' for 'ja'", native.check_host, config)


@pytest.mark.distributed
def test_two_processes_agree_and_resume(tmp_path):
    def three_epochs(folder, max_steps=0):
        config = tiny.world(folder, sentences=8)
        config.native.save_interval, config.native.max_steps = 2, max_steps
        config.train_config.num_epochs = 3
        return config

    config = three_epochs(tmp_path)
    in_two_processes(train_and_tell, config)
    whole = metrics(config)
    assert len(whole) == 12  # 16 items, 2 a batch, 2 processes, 3 epochs
    chosen = [json.loads((tmp_path / "run" / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    expected = [[line["step"], line["layers"], line["ce"], False] for line in whole]
    assert chosen[0] == chosen[1] == expected
    for max_steps in (4, 0):
        config = three_epochs(tmp_path / "again", max_steps)
        config.native.choose_by, config.native.choose_sample = "chrf", 5
        in_two_processes(train_and_tell, config)
    same(metrics(config), whole)


@pytest.mark.distributed
def test_bad_input_is_said_once_with_two_processes(tmp_path):
    config = tiny.world(tmp_path)
    (Path(config.dataset_config.train_data_path).parent / "audio" / "en-0.wav").unlink()
    entry = ROOT / "examples/potsa/finetune.py"
    run = torchrun(entry, *tiny.overrides(config), processes=2, succeed=False)
    assert run.stderr.count("error: ") == 1 and "en-0.wav: no such file" in run.stderr
    assert not Path(config.train_config.output_dir).exists()


def test_a_nan_loss_stops_the_run_with_its_step(tmp_path, monkeypatch):
    config = with_dropout(tmp_path, save_interval=2)
    config.train_config.run_validation = False
    plain, calls = speech_llm._cross_entropy, []

    def poisoned(logits, labels):
        loss, targets = plain(logits, labels)
        calls.append(None)
        return (loss * float("nan") if len(calls) == 4 else loss), targets

    monkeypatch.setattr(speech_llm, "_cross_entropy", poisoned)
    with pytest.raises(NonFiniteLoss, match="step 3: ce=nan.* of '[a-z]{2}-[0-9]', '"):
        native.finetune(config)
    good = last_checkpoint(config.train_config.output_dir)
    assert good.name == "checkpoint-2"  # not the one of step 4, whose weights are NaN
    assert all(torch.isfinite(tensor).all() for tensor in read_checkpoint(good).values())
    native.finetune(config)
    assert len(metrics(config)) == 12


def write_first(rank, folder):
    path = folder / str(rank) / "biases"
    with first_rank_first(path, path.with_name("never")) as turn:
        if turn.is_first:
            turn.told = "checkpoint-5"
            path.parent.mkdir()
            path.write_bytes(b"\0\xff")
    assert turn.told == "checkpoint-5"


@pytest.mark.distributed
def test_a_machine_with_its_own_disk_gets_what_the_first_rank_wrote(tmp_path):
    in_two_processes(write_first, tmp_path)
    assert [path.read_bytes() for path in tmp_path.glob("*/*")] == [b"\0\xff"] * 2


def test_a_rank_without_the_checkpoint_of_the_first_is_refused(trained, monkeypatch):
    """Shown on one process that is told it were the second of two."""
    monkeypatch.setattr(prepare, "ranks", lambda: 2)
    turn = SimpleNamespace(is_first=False, told="checkpoint-12")
    monkeypatch.setattr(prepare, "first_rank_first", lambda *_: nullcontext(turn))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(prepare, "last_checkpoint", None)  # the first has looked
    last = Path(trained.train_config.output_dir, turn.told)
    for name in ("optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state_1.pth"):
        path, away = last / name, last / f"{name}.away"
        if path.exists():
            path.rename(away)
        refused(f"12/{name}: not on this machine", prepare.prepare_together, replace(trained))
        if away.exists():
            away.rename(path)
    turn.told = ""
    assert prepare.prepare_together(replace(trained)) is None


def test_the_rate_goes_between_given_ends_and_a_cosine_is_half_way_at_half_time():
    ends = native.learning_rate_factor, {"start": 0.1, "end": 0.2, "decay": "cosine"}
    rates = [ends[0](step, 10, 110, **ends[1]) for step in (0, 5, 10, 60, 110, 500)]
    assert rates == pytest.approx([0.1, 0.55, 1.0, 0.6, 0.2, 0.2])
    assert [native.learning_rate_factor(s, 10, 110) for s in (0, 5, 60, 500)] == [0, 0.5, 0.5, 0]
