import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from slam_potsa import InputError
from slam_potsa.cli import main
from slam_potsa.data.dataset import get_speech_dataset
from slam_potsa.data.manifest import read_manifest, write_manifest
from slam_potsa.data.predictions import read_predictions
from slam_potsa.engine import decode as decoding
from slam_potsa.engine.decode import Translator, decode_to
from slam_potsa.engine.decode_processes import Answer, in_processes
from slam_potsa.engine.encode import estimate_bias, store_features
from slam_potsa.engine.run_directory import write_config
from slam_potsa.model.checkpoint import save_checkpoint
from slam_potsa.model.encoder import load_encoder
from slam_potsa.provenance import differences, read_record
from tests.support import refused, tiny
from tests.support.trained import make_it_listen, save_run


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run whose model was never trained, but answers differently to different speech."""
    folder = tmp_path_factory.mktemp("decode")
    config = tiny.world(folder, languages=("en", "es-mx", "ru"))
    tiny.llm(folder / "llm", seed=2)
    config.dataset_config.prompt = "USER {language} : "  # of different lengths: "es-mx" is three
    config.decode.max_new_tokens = 12
    model = save_run(config, seed=2).model
    encoder = load_encoder(config.model_config.encoder_path_hf, "trimmed")
    manifest = config.dataset_config.train_data_path
    store_features(encoder, [manifest], folder / "features", progress=False)
    make_it_listen(model)
    save_checkpoint(model, folder / "run" / "model.pt")
    return folder


@pytest.fixture
def config(world):
    config = decoding.load_run(world / "run")
    config.decode.cross_entropy = False  # its last digits depend on the batch
    return config


@pytest.fixture
def manifest(config):
    return Path(config.dataset_config.train_data_path)


def decoded(config, manifest, batch_size=4, **options):
    config.train_config.val_batch_size = batch_size
    return Translator(config).decode(manifest, progress=False, **options)


def test_each_sentence_has_the_loss_that_it_has_alone(config, manifest):
    config.decode.cross_entropy = True
    found = decoded(config, manifest)
    translator = Translator(config)
    data = replace(config.dataset_config, val_data_path=str(manifest))
    dataset = get_speech_dataset(data, translator.tokenizer, "val")
    for prediction, item in zip(found, dataset, strict=True):
        with torch.no_grad():
            alone = translator.model(**dataset.collator([item]))[0].loss
        assert prediction.cross_entropy == pytest.approx(float(alone), rel=1e-5)
        assert prediction.sentence_id == item[0]["sentence_id"]


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


def asked(monkeypatch, stop_at=None):
    """The keys that the model is asked for; it is interrupted at batch number `stop_at`."""
    keys, batches, original = [], iter(range(99)), Translator._generate

    def generate(translator, batch):
        if next(batches) == stop_at:
            raise KeyboardInterrupt
        keys.extend(batch["keys"])
        return original(translator, batch)

    monkeypatch.setattr(Translator, "_generate", generate)
    return keys


@pytest.mark.parametrize(
    "process, change", [((0, 1), None), ((1, 2), None), ((0, 1), "beams"), ((0, 1), "blind")]
)
def test_an_interrupted_decoding_continues(
    config, manifest, tmp_path, monkeypatch, process, change
):
    """In another number of processes too; answers of another configuration are not taken."""
    prefix, partial = tmp_path / "test", tmp_path / f"test_partial.{process[0]}.jsonl"
    with monkeypatch.context() as patch:
        first = asked(patch, stop_at=2)
        patch.setattr(decoding, "in_processes", lambda _count, job, *rest: job(*process, *rest))
        with pytest.raises(KeyboardInterrupt):
            decode_to(prefix, config, manifest)
    lines = partial.read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines[1:]] == first and len(first) == 8
    partial.write_text("\n".join(lines)[:-9])  # killed in the middle of a line
    config.decode.num_beams, blind = 3 if change == "beams" else 2, change == "blind"
    expected = decoded(config, manifest, shuffle_audio=blind)
    second = asked(monkeypatch)
    assert decode_to(prefix, config, manifest, shuffle_audio=blind) == expected
    kept = [] if change else first[:-1]
    assert sorted(second) == sorted({p.key for p in expected} - set(kept))
    assert read_predictions(f"{prefix}_predictions.jsonl") == expected
    assert not list(tmp_path.glob("*partial*"))


def test_a_decoding_is_known_by_all_that_its_answers_depend_on(config, manifest, tmp_path):
    def why(name="test"):
        return " ".join(decoding.why_decode(tmp_path / name, config, manifest))

    decode_to(tmp_path / "test", config, manifest)
    assert why() == "" and why("other") == "not decoded yet"
    record = read_record(tmp_path / "test.done.json")
    assert record.notes["manifest"] == str(manifest.resolve()) and record.argv
    config.train_config.val_batch_size = 99
    os.utime(manifest, (1, 1))  # older than the predictions
    assert why() == ""
    (tmp_path / "test_predictions.jsonl").write_text("`slam-potsa decode --beams 1` wrote here")
    assert "not the one that was written" in why()
    (tmp_path / "test.done.json").unlink()
    assert "nothing there says" in why()
    before = decoding.decoded_from(config, manifest)
    assert differences(record.made_from, before) == []
    config.decode.num_beams, config.dataset_config.test_task = 3, "asr"
    config.dataset_config.prompt, config.model_config.llm_dtype = "USER", "bfloat16"
    for name in ("model.pt", "bias", "copy.jsonl"):
        (tmp_path / name).write_bytes(b"another")
    config.ckpt_path, config.language_bias.path = str(tmp_path / "model.pt"), str(tmp_path / "bias")
    now = decoding.decoded_from(config, tmp_path / "copy.jsonl", shuffle_audio=True)
    expected = ["content of the recordings", "dataset_config.prompt", "decode.num_beams"]
    expected.append("model_config.llm_dtype")
    expected += ["recordings are exchanged", "task", "the biases", "the manifest's content"]
    expected.append("the model's weights")
    assert [line.partition(":")[0] for line in differences(before, now)] == expected


def test_recordings_that_the_store_lacks_are_known_by_content(config, manifest, world, tmp_path):
    config.dataset_config.feature_store = str(world / "features")
    assert decoding.decoded_from(config, manifest)["content of the recordings"] is None
    new = tiny.recordings(tmp_path / "new", sentences=1, languages=("fr", "en"))
    before = decoding.decoded_from(config, new)
    shutil.copy(new.parent / "audio/en-0.wav", new.parent / "audio/fr-0.wav")
    (said,) = differences(before, decoding.decoded_from(config, new))
    assert said.startswith("content of the recordings: ")


@pytest.mark.distributed
def test_two_processes_give_what_one_gives(config, manifest, tmp_path, capfd):
    expected = decoded(config, manifest)
    run, prefix = str(Path(config.ckpt_path).parent), str(tmp_path / "two")
    options = ["--output", prefix, "--processes", "2"]
    assert main(["decode", run, str(manifest), *options]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == f"{prefix}_predictions.jsonl"
    found = read_predictions(f"{prefix}_predictions.jsonl")
    assert [replace(prediction, cross_entropy=None) for prediction in found] == expected
    assert all(prediction.cross_entropy for prediction in found)
    assert not list(tmp_path.glob("*partial*"))


def refusing(_rank, _count, path):
    raise InputError(f"{path}: no such file")


@pytest.mark.distributed
def test_one_process_a_gpu_and_wrong_input_in_another_is_reported_as_here(monkeypatch, capfd):
    refused("the same command continues", in_processes, 2, refusing, "lost.wav")
    assert "error: lost.wav: no such file" in capfd.readouterr().err
    done = []
    monkeypatch.setattr("torch.multiprocessing.spawn", lambda *_, **__: 1 / 0)
    for gpus, asked_for in ((0, 1), (1, 4)):  # one needs no process of its own
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpus=gpus: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        in_processes(asked_for, lambda *given: done.append(given), "here")
    assert done == [(0, 1, "here")] * 2


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
        texts, scores = zip(*found.alternatives, strict=True)
        assert found.beam == 3 and len(texts) == 2 and texts[0] == found.prediction
        assert 0 > scores[0] >= scores[1]
        words = found.prediction.split()
        assert len(words) <= 2 and len(set(words)) == len(words)
    assert main(["decode", str(run), str(manifest), "--n-best", "9"]) == 2


def test_what_is_missing_is_said_before_a_model_is_loaded(config, manifest, tmp_path, monkeypatch):
    one = [replace(u, target_language=None) for u in read_manifest(manifest)[:3]]
    path = manifest.with_name("one.jsonl")
    write_manifest(path, one)
    monkeypatch.setattr(decoding, "Translator", None)
    with pytest.raises(InputError, match="3 problems:\n.*'en': expected two sentences"):
        decode_to(tmp_path / "x", config, path, shuffle_audio=True)
    config.dataset_config.prompt = "{target_language} :"
    refused("the prompt asks for {target_language}", decode_to, tmp_path / "x", config, path)


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


def test_into_what_the_run_was_trained_on_else_into_what_the_flag_says(
    config, manifest, tmp_path, monkeypatch, capsys
):
    run, audio, asked = tmp_path / "run", str(manifest.parent / "audio" / "en-1.wav"), []
    answering = SimpleNamespace(translate=lambda _audio, _from, to: asked.append(to) or "a")
    monkeypatch.setattr("slam_potsa.commands.decode.Translator", lambda _config: answering)

    def trained(*targets, **data):
        """On these target languages in turn; the model is never loaded."""
        rows = read_manifest(manifest)
        rows = [replace(r, target_language=targets[i % len(targets)]) for i, r in enumerate(rows)]
        write_manifest(run / "train.jsonl", rows)
        data = replace(config.dataset_config, train_data_path=str(run / "train.jsonl"), **data)
        options = replace(config.train_config, output_dir=str(run))
        write_config(replace(config, dataset_config=data, train_config=options))
        (run / "model.pt").touch()

    def translate(*flags):
        """The language that was asked for, or what was said instead."""
        asked.clear()
        code = main(["translate", audio, "--language", "en", "--run", str(run), *flags])
        said = capsys.readouterr().err
        assert (code, len(asked)) == ((2, 0) if said else (0, 1))
        return said or asked[0]

    trained("zh")
    assert translate() == "zh" and translate("--target-language", "de") == "de"
    assert "chinese!" in translate("--target-language", "chinese!")
    trained(None, tasks=["asr"])
    assert translate() == ""
    trained("zh", "ko")
    assert "--target-language is not given" in translate()
    (run / "train.jsonl").unlink()
    assert "--target-language is not given" in translate()
    assert translate("--target-language", "ko") == "ko"


def answering(monkeypatch, texts):
    answers = lambda _, batch: [Answer(key, [texts[key]]) for key in batch["keys"]]  # noqa: E731
    monkeypatch.setattr(Translator, "_generate", answers)


def test_asr_is_scored_against_the_transcript(config, manifest, monkeypatch):
    config.dataset_config.test_task, config.dataset_config.asr_prompt = "asr", "USER : "
    rows = [replace(u, transcript=f"said {u.key}") for u in read_manifest(manifest)]
    copy = manifest.with_name("spoken.jsonl")
    write_manifest(copy, rows)
    answering(monkeypatch, {u.key: u.transcript for u in rows})
    for found in decoded(config, copy):
        assert found.prediction == found.reference == f"said {found.key}"
        assert found.target_language == found.language


def test_cot_is_split_into_heard_and_translated(config, manifest, caplog, monkeypatch):
    config.dataset_config.tasks = ["asr", "cot"]
    config.dataset_config.cot_prompt = "{target_language} : "
    texts = {u.key: f"heard {u.key}<|en|>{u.target}" for u in read_manifest(manifest)}
    answering(monkeypatch, texts | {"ru-0": "no marker"})
    for p in decoded(config, manifest):
        expected = (f"heard {p.key}", p.reference) if p.key != "ru-0" else (None, "no marker")
        assert (p.heard, p.prediction) == expected
    assert "1 of 18 answers lack the marker" in caplog.text
