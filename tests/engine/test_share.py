"""A run as a folder to give away: it translates as the run does and holds nothing frozen."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from slam_potsa import InputError, Translator
from slam_potsa.cli import main
from slam_potsa.data.manifest import read_manifest
from slam_potsa.engine import share
from slam_potsa.engine.decode import decode_to, load_run
from slam_potsa.model.checkpoint import read_checkpoint, save_checkpoint
from tests.support import tiny
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
    for said in ("BLEU|nrefs:1", "alignment.terms.ot.weight: 1.0", "6   0.00", "sha256"):
        assert said in card, said
    assert "loads nowhere else" in card and share.languages(out).spoken == ["en", "es", "ru"]


def test_it_is_decoded_and_translated_as_a_run_is(run, tmp_path, capsys):
    out = share.export_run(run, tmp_path / "out")
    manifest = load_run(run).dataset_config.train_data_path
    assert main(["decode", str(out), manifest, "--output", str(tmp_path / "x")]) == 0
    assert (tmp_path / "x_pred").read_bytes() == (run / "test_pred").read_bytes()
    audio = str(run.parent / "data/audio/en-1.wav")
    capsys.readouterr()
    assert main(["translate", audio, "--language", "en", "--run", str(out)]) == 0
    assert capsys.readouterr().out


def test_what_cannot_be_given_away_is_refused(run, tmp_path, capsys):
    for path in ("config.yaml", "best/model.pt"):
        (tmp_path / "run" / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "config.yaml", tmp_path / "run")
    shutil.copy(run / "model.pt", tmp_path / "run" / "best")
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 2
    assert "has not ended" in capsys.readouterr().err and not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(InputError, match="holds other files"):
        share.export_run(run, tmp_path / "mine")
    with pytest.raises(InputError, match="neither a transformers folder here nor a model"):
        share.export_run(run, tmp_path / "out", {"llm": "nobody/nothing"})
    with pytest.raises(InputError, match="nobody/nothing: no run directory or exported folder"):
        Translator.from_pretrained("nobody/nothing")
    assert main(["export", str(run), str(tmp_path / "out"), "--push", "me/it"]) == 2
    assert "is not uploaded" in capsys.readouterr().err


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
