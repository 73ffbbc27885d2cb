"""Decoding: the same answers in any batch, after any interruption, in any number of processes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from slam_potsa import InputError
from slam_potsa.cli import main
from slam_potsa.config.check import check
from slam_potsa.data.manifest import read_manifest
from slam_potsa.data.predictions import read_predictions
from slam_potsa.engine import decode as decoding
from slam_potsa.engine.decode import Translator, decode_to
from slam_potsa.engine.decode_processes import Answer
from slam_potsa.engine.encode import estimate_bias, store_features
from slam_potsa.engine.run_directory import write_config
from slam_potsa.model.checkpoint import save_checkpoint
from slam_potsa.model.encoder import load_encoder
from slam_potsa.model.factory import model_factory
from slam_potsa.provenance import differences, read_record
from tests.support import tiny


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run whose model was never trained, but answers differently to different speech."""
    folder = tmp_path_factory.mktemp("decode")
    config = tiny.world(folder, languages=("en", "es-mx", "ru"))
    tiny.llm(folder / "llm", seed=2)
    config.dataset_config.prompt = "USER {language} : "  # of different lengths: "es-mx" is three
    config.decode.max_new_tokens = 12
    encoder = load_encoder(config.model_config.encoder_path_hf, "trimmed")
    manifest = config.dataset_config.train_data_path
    bias = estimate_bias([manifest], encoder, progress=False)
    bias.save(folder / "bias.safetensors")
    store_features(encoder, [manifest], folder / "features", progress=False)
    torch.manual_seed(2)
    model, _ = model_factory(
        config.train_config,
        config.model_config,
        language_bias=replace(config.language_bias, path=str(folder / "bias.safetensors")),
        alignment=config.alignment,
    )
    with torch.no_grad():
        model.encoder_projector.linear.weight.mul_(10)
        for name, weight in model.encoder_projector.named_parameters():
            if "crossattention" in name and weight.dim() == 2:
                weight.mul_(6)
    write_config(config)
    save_checkpoint(model, folder / "run" / "model.pt")
    return folder


@pytest.fixture
def config(world):
    return decoding.load_run(world / "run")


@pytest.fixture
def manifest(config):
    return Path(config.dataset_config.train_data_path)


def decoded(config, manifest, batch_size=4, **options):
    config.train_config.val_batch_size = batch_size
    return Translator(config).decode(manifest, progress=False, **options)


@pytest.mark.parametrize("stored", [False, True], ids=["audio", "features"])
@pytest.mark.parametrize("beams", [1, 2, 4])
def test_answers_do_not_depend_on_the_batch(config, manifest, world, beams, stored):
    """Prompts and recordings of different lengths: left padding and frames that others lack."""
    config.decode.num_beams = config.decode.num_return_sequences = beams
    config.dataset_config.feature_store = str(world / "features") if stored else None
    alone = decoded(config, manifest, 1)
    assert len({p.prediction for p in alone}) >= 5  # it listens
    for size in (5, 18):
        for ours, theirs in zip(decoded(config, manifest, size), alone, strict=True):
            assert (ours.key, ours.prediction) == (theirs.key, theirs.prediction)
            for (text, score), (other, expected) in zip(
                ours.alternatives or (), theirs.alternatives or (), strict=True
            ):
                assert text == other and score == pytest.approx(expected, abs=1e-4)


def test_the_n_best_come_with_scores_best_first(config, manifest, tmp_path):
    config.decode.num_beams, config.decode.num_return_sequences = 4, 3
    for found in decode_to(tmp_path / "n", config, manifest):
        texts, scores = zip(*found.alternatives, strict=True)
        assert len(scores) == 3 and texts[0] == found.prediction
        assert list(scores) == sorted(scores, reverse=True) and scores[0] < 0
    assert read_predictions(tmp_path / "n_predictions.jsonl")[0].alternatives
    config.decode.num_return_sequences = 5
    with pytest.raises(InputError, match="num_return_sequences=5: expected at most num_beams=4"):
        check(config)


class Interrupting:
    """Counts the batches of `Translator._generate`, and stops before number `at`."""

    def __init__(self, monkeypatch, at=None):
        self.keys, self.batches, self.at = [], 0, at
        original = Translator._generate

        def generate(translator, batch):
            if self.batches == self.at:
                raise KeyboardInterrupt
            self.batches += 1
            self.keys += batch["keys"]
            return original(translator, batch)

        monkeypatch.setattr(Translator, "_generate", generate)


def test_an_interrupted_decoding_continues(config, manifest, tmp_path, monkeypatch):
    expected = decoded(config, manifest)
    prefix, partial = tmp_path / "test", tmp_path / "test_partial.0.jsonl"
    with monkeypatch.context() as patch:
        first = Interrupting(patch, at=2)
        with pytest.raises(KeyboardInterrupt):
            decode_to(prefix, config, manifest)
    lines = partial.read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines[1:]] == first.keys and len(first.keys) == 8
    partial.write_text("\n".join(lines)[:-9])  # killed in the middle of a line
    with monkeypatch.context() as patch:
        second = Interrupting(patch)
        assert decode_to(prefix, config, manifest) == expected
    assert set(second.keys) == {p.key for p in expected} - set(first.keys[:-1])
    assert read_predictions(f"{prefix}_predictions.jsonl") == expected
    assert not partial.exists()


@pytest.mark.parametrize("change", ["beams", "blind"])
def test_other_configurations_answers_are_not_taken(
    config, manifest, tmp_path, monkeypatch, change
):
    prefix = tmp_path / "test"
    with monkeypatch.context() as patch:
        Interrupting(patch, at=2)
        with pytest.raises(KeyboardInterrupt):
            decode_to(prefix, config, manifest)
    config.decode.num_beams = 3 if change == "beams" else config.decode.num_beams
    seen = Interrupting(monkeypatch)
    decode_to(prefix, config, manifest, shuffle_audio=change == "blind")
    assert len(seen.keys) == 18
    assert not list(tmp_path.glob("*partial*"))


def test_a_decoding_is_known_by_all_that_its_answers_depend_on(config, manifest, tmp_path):
    decode_to(tmp_path / "test", config, manifest)
    assert decoding.why_decode(tmp_path / "test", config, manifest) == []
    assert decoding.why_decode(tmp_path / "other", config, manifest) == ["not decoded yet"]
    record = read_record(tmp_path / "test.done.json")
    assert record.notes["manifest"] == str(manifest.resolve()) and record.argv
    config.train_config.val_batch_size = 99
    before = decoding.decoded_from(config, manifest)
    assert differences(record.made_from, before) == []
    config.decode.num_beams, config.dataset_config.test_task = 3, "asr"
    config.dataset_config.prompt, config.model_config.llm_dtype = "USER", "bfloat16"
    for name in ("model.pt", "bias", "copy.jsonl"):
        (tmp_path / name).write_bytes(b"another")
    config.ckpt_path, config.language_bias.path = str(tmp_path / "model.pt"), str(tmp_path / "bias")
    now = decoding.decoded_from(config, tmp_path / "copy.jsonl", shuffle_audio=True)
    assert [line.partition(":")[0] for line in differences(before, now)] == [
        "dataset_config.prompt",
        "decode.num_beams",
        "model_config.llm_dtype",
        "recordings are exchanged",
        "task",
        "the biases",
        "the manifest's content",
        "the model's weights",
    ]


@pytest.mark.distributed
def test_two_processes_give_what_one_gives(config, manifest, tmp_path, capfd):
    expected = decoded(config, manifest)
    run, prefix = str(Path(config.ckpt_path).parent), str(tmp_path / "two")
    options = ["--output", prefix, "--processes", "2"]
    assert main(["decode", run, str(manifest), *options]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == f"{prefix}_predictions.jsonl"
    assert read_predictions(f"{prefix}_predictions.jsonl") == expected
    assert not list(tmp_path.glob("*partial*"))


def test_shares_are_found_again_by_another_number_of_processes(
    config, manifest, tmp_path, monkeypatch
):
    """Process 1 of 2 was interrupted; one process takes up what it had answered."""
    prefix = tmp_path / "test"
    with monkeypatch.context() as patch:
        first = Interrupting(patch, at=2)
        patch.setattr(decoding, "in_processes", lambda _count, job, *rest: job(1, 2, *rest))
        with pytest.raises(KeyboardInterrupt):
            decode_to(prefix, config, manifest)
    assert [path.name for path in tmp_path.iterdir()] == ["test_partial.1.jsonl"]
    second = Interrupting(monkeypatch)
    decode_to(prefix, config, manifest)
    assert len(first.keys) == 8 and not set(first.keys) & set(second.keys)
    assert len(first.keys + second.keys) == 18
    assert not list(tmp_path.glob("*partial*"))


@pytest.mark.parametrize("stored", [False, True], ids=["audio", "features"])
def test_the_blind_control_answers_to_other_sentences(config, manifest, world, stored):
    """The prompt is the language's, so each answer is the one that the other recording gets."""
    config.dataset_config.feature_store = str(world / "features") if stored else None
    sighted = {p.source: p for p in decoded(config, manifest)}
    for found in decoded(config, manifest, shuffle_audio=True):
        other = sighted[found.source]
        assert found.language == other.language and found.key.split("-")[-1] not in other.source
        assert found.prediction == other.prediction
        row = next(u for u in read_manifest(manifest) if u.key == found.key)
        assert (found.reference, found.transcript) == (row.target, row.transcript)


def test_the_commands_options(config, manifest, tmp_path, capsys, world):
    run = Path(config.ckpt_path).parent
    flags = ["--beams", "3", "--n-best", "2", "--max-new-tokens", "2", "--batch-size", "9"]
    flags += ["--length-penalty", "0.5", "--no-repeat-ngram-size", "1", "--shuffle-audio"]
    assert main(["decode", str(run), str(manifest), *flags]) == 0
    written = run / "manifest_blind_predictions.jsonl"
    captured = capsys.readouterr()
    assert captured.out.strip() == str(written)
    assert "18/18" in captured.err and "utt" in captured.err
    for found in read_predictions(written):
        words = found.prediction.split()
        assert found.beam == 3 and len(found.alternatives) == 2
        assert len(words) <= 2 and len(set(words)) == len(words)
    assert main(["decode", str(run), str(manifest), "--n-best", "9"]) == 2


def test_what_is_missing_is_said_before_a_model_is_loaded(config, manifest, tmp_path, monkeypatch):
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    one = [row | {"target_language": None} for row in rows if row["sentence_id"] == "s0"]
    (manifest.parent / "one.jsonl").write_text("".join(json.dumps(row) + "\n" for row in one))
    monkeypatch.setattr(decoding, "Translator", None)
    with pytest.raises(InputError, match="3 problems:\n.*'en': 1 of 1 recordings"):
        decode_to(tmp_path / "x", config, manifest.parent / "one.jsonl", shuffle_audio=True)
    config.dataset_config.prompt = "{target_language} :"
    with pytest.raises(InputError, match="the prompt asks for {target_language}"):
        decode_to(tmp_path / "x", config, manifest.parent / "one.jsonl")


def test_other_biases_change_what_is_heard(config, manifest, tmp_path, capsys):
    run = Path(config.ckpt_path).parent
    encoder = load_encoder(config.model_config.encoder_path_hf, "trimmed")
    bias = estimate_bias([manifest], encoder, progress=False, languages=["ru"])
    bias.save(tmp_path / "ru.safetensors")
    other = ["--bias", str(tmp_path / "ru.safetensors")]
    assert main(["decode", str(run), str(manifest), *other, "--output", str(tmp_path / "ru")]) == 0
    found = read_predictions(tmp_path / "ru_predictions.jsonl")
    pairs = list(zip(found, decoded(config, manifest), strict=True))
    changed = {a.language for a, b in pairs if a.prediction != b.prediction}
    assert changed and "ru" not in changed  # "ru" has the same bias; others now get the mean
    audio = str(manifest.parent / "audio" / "en-1.wav")
    capsys.readouterr()
    assert main(["translate", audio, "--language", "en", "--run", str(run), *other]) == 0
    assert capsys.readouterr().out.strip() == pairs[3][0].prediction
    config.language_bias.enabled = False
    config.train_config.output_dir = str(tmp_path / "plain")
    write_config(config)
    (tmp_path / "plain" / "model.pt").touch()
    assert main(["decode", str(tmp_path / "plain"), str(manifest), *other]) == 2
    assert "was trained without language biases" in capsys.readouterr().err


def test_asr_is_scored_against_the_transcript(config, manifest):
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    copy = manifest.with_name("spoken.jsonl")
    lines = (json.dumps(row | {"transcript": f"said {row['key']}"}) + "\n" for row in rows)
    copy.write_text("".join(lines))
    config.dataset_config.test_task, config.dataset_config.asr_prompt = "asr", "USER : "
    for found in decoded(config, copy):
        assert found.reference == f"said {found.key}" and found.target_language == found.language


def test_cot_is_split_into_heard_and_translated(config, manifest, caplog, monkeypatch):
    config.dataset_config.tasks = ["asr", "cot"]
    config.dataset_config.cot_prompt = "{target_language} : "
    texts = {u.key: f"heard {u.key}<|en|>{u.target}" for u in read_manifest(manifest)}
    texts["ru-0"] = "no marker"
    answers = lambda _, batch: [Answer(key, [texts[key]]) for key in batch["keys"]]  # noqa: E731
    monkeypatch.setattr(Translator, "_generate", answers)
    for p in decoded(config, manifest):
        if p.key == "ru-0":
            assert (p.heard, p.prediction) == (None, "no marker")
        else:
            assert (p.heard, p.prediction) == (f"heard {p.key}", p.reference)
    assert "1 of 18 answers lack the marker" in caplog.text
