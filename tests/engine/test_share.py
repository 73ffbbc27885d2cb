"""A run as a folder to give away: it translates as the run does and holds nothing frozen."""

import json
import shutil
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, pipeline

from slam_potsa import InputError, Translator
from slam_potsa.cli import main
from slam_potsa.data.manifest import read_manifest
from slam_potsa.engine import auto, share
from slam_potsa.engine.decode import decode_to, load_run
from slam_potsa.errors import as_messages
from slam_potsa.files import HOST, TEMPORARY
from slam_potsa.model.checkpoint import read_checkpoint, save_checkpoint, write_tensors
from tests.support import little_space, refused, tiny
from tests.support.trained import make_it_listen, save_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """With LoRA, biases and a prompt of its own; its weights are random, and react."""
    folder = tmp_path_factory.mktemp("share")
    config = tiny.world(folder)
    tiny.llm(folder / "llm", seed=2)
    config.train_config.train_parts = ["projector", "llm.lora"]
    config.dataset_config.prompt = "USER {language} : "
    model = save_run(config, seed=2).model
    make_it_listen(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.03)
    save_checkpoint(model, folder / "run" / "model.pt")
    decode_to(folder / "run" / "test", load_run(folder / "run"), folder / "data/manifest.jsonl")
    return folder / "run"


def test_an_exported_run_translates_to_the_bit_in_a_process_that_knows_nothing(run, tmp_path):
    out = tmp_path / "out"
    assert main(["export", str(run), str(out), "--license", "cc-by-4.0"]) == 0
    rows = read_manifest(load_run(run).dataset_config.train_data_path)
    audio = [str(run.parent / "data" / row.audio) for row in rows]
    shutil.copytree(out, tmp_path / "moved")
    code = (
        "import sys, json; from slam_potsa import Translator\n"
        "print(json.dumps(Translator.from_pretrained(sys.argv[1]).translate(sys.argv[2:], 'es')))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "moved"), *audio]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    texts = json.loads(found.stdout.splitlines()[-1])
    assert texts == Translator.from_pretrained(run).translate(audio, "es")
    assert len(set(texts)) > 1
    state, theirs = load_file(out / share.SHARED), read_checkpoint(run)
    assert state.keys() == theirs.keys() and all(state[n].equal(theirs[n]) for n in state)
    assert all("lora_" in name for name in state if not name.startswith("encoder_projector"))
    text = (out / share.CONFIG).read_text()
    assert str(run) not in text and "manifest.jsonl" not in text
    card = (out / share.CARD).read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "cc-by-4.0" and front["language"] == ["en", "es", "ru"]
    for said in ("BLEU|nrefs:1", "terms.ot.weight: 1.0", "| en | 6 | 0.00 |", "manifest's hash"):
        assert said in card, said
    decode = ["decode", str(out), str(run.parent / "data/manifest.jsonl")]
    assert main([*decode, "--output", str(tmp_path / "x")]) == 0
    assert (tmp_path / "x_pred").read_bytes() == (run / "test_pred").read_bytes()
    assert "loads nowhere else" in card and share.languages(out)["spoken"] == ["en", "es", "ru"]


def test_transformers_loads_it_and_its_pipeline_says_the_same(run, tmp_path):
    out = share.export_run(run, tmp_path / "out")
    audio = [str(path) for path in sorted((run.parent / "data").rglob("*.wav"))[:3]]
    texts = Translator.from_pretrained(run).translate(audio, "es", "zh")
    assert AutoConfig.from_pretrained(out).languages["spoken"] == ["en", "es", "ru"]
    model = AutoModel.from_pretrained(out)
    assert model.translate(audio, "es", "zh") == texts and len(set(texts)) > 1
    said = pipeline("speech-translation", str(out), language="es", target_language="zh")
    assert said(audio) == [{"text": text} for text in texts]
    kind = {"pipeline_class": auto.SpeechTranslationPipeline, "device": "cpu"}
    heard = pipeline("automatic-speech-recognition", str(out), **kind)
    array = dict(zip(("array", "sampling_rate"), soundfile.read(audio[0]), strict=True))
    assert heard(array, language="es", target_language="zh") == {"text": texts[0]}
    refused("each of {'spoken'", heard, audio[0])
    refused("slam-potsa export", model.save_pretrained, tmp_path)


def test_an_export_that_a_full_disk_or_a_kill_ended_is_one_message_and_is_repeated(run, tmp_path):
    with pytest.raises(SystemExit, match="1"), as_messages(), little_space(1000):
        share.export_run(run, tmp_path / "out")
    left = tmp_path / "out" / f"{TEMPORARY}{2**22 + 1}@{HOST}@{Path(share.SHARED).stem}-x"
    left.touch()
    share.export_run(run, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {share.SHARED, share.CONFIG}


def test_what_cannot_be_given_away_is_refused(run, tmp_path, capsys):
    for path in ("config.yaml", "best/model.pt"):
        (tmp_path / "run" / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "config.yaml", tmp_path / "run")
    shutil.copy(run / "model.pt", tmp_path / "run" / "best")
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 2
    assert "has not ended" in capsys.readouterr().err and not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    refused("holds other files", share.export_run, run, tmp_path / "mine")
    with pytest.raises(InputError, match="neither a transformers folder here nor a model"):
        share.export_run(run, tmp_path / "out", {"llm": "nobody/nothing"})
    with pytest.raises(InputError, match="nobody/nothing: no run or exported folder"):
        Translator.from_pretrained("nobody/nothing")
    assert main(["export", str(run), str(tmp_path / "out"), "--push", "me/it"]) == 2
    assert "frozen models are folders" in capsys.readouterr().err


def test_a_frozen_model_is_named_with_its_revision_and_pushed_in_private(
    run, tmp_path, monkeypatch, capsys
):
    from huggingface_hub import HfApi

    done = []
    monkeypatch.setattr(HfApi, "create_repo", lambda _, *a, **k: done.append((a, k)))
    monkeypatch.setattr(
        HfApi, "upload_folder", lambda _, **k: done.append(k) or "https://hub/me/it"
    )
    named = ["--encoder", "a/whisper@main", "--llm", "b/llm@0123abc"]
    assert main(["export", str(run), str(tmp_path / "out"), "--push", "me/it", *named]) == 0
    assert capsys.readouterr().out.endswith("https://hub/me/it\n")
    assert done == [
        (("me/it",), {"private": True, "exist_ok": True}),
        {"repo_id": "me/it", "folder_path": tmp_path / "out"},
    ]
    model = load_run(tmp_path / "out").model_config
    assert (model.encoder_path_hf, model.llm_path) == ("a/whisper@main", "b/llm@0123abc")
    front = yaml.safe_load((tmp_path / "out" / share.CARD).read_text().split("---\n")[1])
    assert front["base_model"] == ["b/llm", "a/whisper"] and "license" not in front
    assert Path(load_run(tmp_path / "out").ckpt_path).name == share.SHARED


def test_the_head_of_ctc_stays_behind_and_what_is_damaged_is_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    write_tensors(
        tmp_path / "run/model.pt",
        read_checkpoint(run) | {"encoder_projector.ctc_head.weight": torch.zeros(2, 2)},
    )
    out = share.export_run(tmp_path / "run", tmp_path / "out")
    assert load_file(out / share.SHARED).keys() == read_checkpoint(run).keys()
    text, weights = (out / share.CONFIG).read_text(), (out / share.SHARED).read_bytes()
    content = json.loads(text)
    kept = [{n: content[n] for n in content if n != name} for name in ("sha256", "options")]
    kept += [content | {"options": 1}, content | {"languages": {"spoken": ["en"]}}]
    for damaged in ("{", "[]", *map(json.dumps, kept)):
        (out / share.CONFIG).write_text(damaged)
        refused("not what `slam-potsa export` writes", load_run, out)
    (out / share.CONFIG).write_text(text)
    (out / share.SHARED).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    refused("not the file of config.json", load_run, out)


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": {"a": 1}}'])
def test_an_index_without_its_files_is_refused(index, tmp_path, capsys):
    (tmp_path / "pytorch_model.bin.index.json").write_text(index)
    assert main(["import", str(tmp_path), str(tmp_path / "out")]) == 2
    assert 'expected {"weight_map"' in capsys.readouterr().err


@pytest.mark.parametrize("shapes", [1, "abc", [1], {"a": 1}])
def test_strange_shapes_of_deepspeed_are_refused(shapes, tmp_path):
    torch.save({"module": {"a": torch.ones(1)}, "param_shapes": shapes}, tmp_path / "model.pt")
    refused("param_shapes", read_checkpoint, tmp_path)


def deepspeed(folder: Path, model, trained) -> None:
    """As DeepSpeed saves at ZeRO-2: everything in half precision, and what its engine trained."""
    step = folder / "global_step7"
    step.mkdir(parents=True)
    (folder / "latest").write_text("global_step7")
    half = {f"module.{name}": tensor.bfloat16() for name, tensor in model.state_dict().items()}
    shapes = OrderedDict((f"module.{name}", tensor.shape) for name, tensor in trained.items())
    content = {"module": half, "param_shapes": [shapes], "global_steps": 7, "ds_version": "0.19.8"}
    torch.save(content, step / "mp_rank_00_model_states.pt")


def test_a_checkpoint_of_slam_llms_recipes_becomes_such_a_folder(run, tmp_path, capsys):
    translator, state = Translator.from_pretrained(run), read_checkpoint(run)
    manifest = translator.config.dataset_config.train_data_path
    plain = {name: tensor for name, tensor in state.items() if ".language_bias." not in name}
    biases = translator.model.encoder_projector.language_bias.biases
    table = torch.stack([-biases[code] for code in ("ru", "en", "es")])
    (tmp_path / "shards").mkdir()
    halves = [dict(sorted(plain.items())[part::2]) for part in (0, 1)]
    for part, tensors in enumerate([halves[0], halves[1] | {"bias_table": table}]):
        torch.save(tensors, tmp_path / "shards" / f"pytorch_model-{part}.bin")
    index = {name: f"pytorch_model-{part}.bin" for part in (0, 1) for name in halves[part]}
    (tmp_path / "shards" / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": index})
    )
    told = ("llm_path", "encoder_path_hf", "heads", "window", "mel", "prompt", "decode", "batch")
    words = tiny.overrides(translator.config)[1:]
    same = [word for word in words if any(name in word.partition("=")[0] for name in told)]
    known = ["--bias-languages", "ru,en,es"]
    assert main(["import", str(tmp_path / "shards"), str(tmp_path / "a"), *known, *same]) == 0
    ours = translator.decode(manifest, progress=False)
    theirs = Translator.from_pretrained(tmp_path / "a").decode(manifest, progress=False)
    assert [p.prediction for p in theirs] == [p.prediction for p in ours]
    assert main(["import", str(tmp_path / "shards"), str(tmp_path / "b"), *same]) == 2
    assert "a bias_table of 3 languages, and 0 were named" in capsys.readouterr().err

    deepspeed(tmp_path / "ds", translator.model, plain)
    assert main(["import", str(tmp_path / "ds"), str(tmp_path / "c"), *same]) == 0
    found = load_file(tmp_path / "c" / share.SHARED)
    assert plain.keys() <= found.keys()  # what is frozen, in half precision, stays where it was
    assert all(".language_bias." in name or ".as_" in name for name in found.keys() - plain.keys())
    assert all(found[name].equal(plain[name].bfloat16()) for name in plain)
    assert load_run(tmp_path / "c").language_bias.enabled  # the buffer that travels
    (tmp_path / "ds/global_step7/mp_rank_00_model_states.pt").rename(
        tmp_path / "ds/global_step7/zero_pp_rank_0_mp_rank_00_model_states.pt"
    )
    torch.save({"encoder_projector.linear1.weight": table}, tmp_path / "model.pt")
    for checkpoint, said in (("ds", "zero_to_fp32.py"), ("model.pt", "no Q-Former")):
        assert main(["import", str(tmp_path / checkpoint), str(tmp_path / "d")]) == 2
        assert said in capsys.readouterr().err
