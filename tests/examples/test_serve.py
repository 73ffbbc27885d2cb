"""The endpoint: OpenAI's answers, and everything wrong named; one recording at a time."""

import importlib.util
import io
import json
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from slam_potsa.cli import main
from slam_potsa.config import PotsaConfig
from slam_potsa.config.compose import examples_dir
from tests.support import tiny, trained

pytest.importorskip("gradio", reason="pip install slam-potsa[serve] brings the page")
spec = importlib.util.spec_from_file_location("serve", examples_dir() / "serve.py")
serve = importlib.util.module_from_spec(spec)
spec.loader.exec_module(serve)


@pytest.fixture(scope="module")
def client():
    from fastapi.testclient import TestClient

    busy = threading.Lock()

    def translate(files, language, target_language):
        assert busy.acquire(blocking=False)  # nobody else's turn
        busy.release()
        sizes = [len(soundfile.read(file)[0]) for file in files]
        return [f"{language} to {target_language}: {size}" for size in sizes]

    translator = SimpleNamespace(translate=translate, config=PotsaConfig())
    app = serve.application(translator, ["en", "es"], "zh", minutes=0.1)
    return TestClient(app)


def sound(seconds=1):
    file = io.BytesIO()
    soundfile.write(file, 0.1 * np.sin(np.arange(16000 * seconds)), 16000, format="WAV")
    return file.getvalue()


def ask(client, seconds=1, content=None, **form):
    file = {"file": ("speech.wav", content or sound(seconds))}
    return client.post("/v1/audio/translations", files=file, data={"model": "it", **form})


def test_openais_formats(client):
    assert ask(client, language="es").json() == {"text": "es to zh: 16000"}
    found = ask(client, language="ky", target_language="de", response_format="verbose_json").json()
    segment = {"id": 0, "start": 0.0, "end": 1.0, "text": "ky to de: 16000"}
    assert found["segments"] == [segment] and (found["language"], found["duration"]) == ("ky", 1.0)
    assert ask(client, language="es", response_format="text").text == "es to zh: 16000"
    assert "00:00:00,000 --> 00:00:01,000" in ask(client, language="es", response_format="srt").text
    page = client.get("/")
    assert page.status_code == 200 and "(not heard in training)" in page.text


def whole_whisper(folder):
    """Tiny and random, with a language head of three languages."""
    torch.manual_seed(0)
    sizes = {"d_model": 16, "num_mel_bins": 80, "vocab_size": 40, "decoder_start_token_id": 1}
    sizes |= {f"{part}_layers": 1 for part in ("encoder", "decoder")}
    sizes |= {f"{part}_attention_heads": 2 for part in ("encoder", "decoder")}
    ends = {f"{name}_token_id": 2 for name in ("pad", "bos", "eos")}
    whisper = WhisperForConditionalGeneration(WhisperConfig(**sizes, **ends))
    whisper.generation_config._from_model_config = False  # as the published ones
    whisper.generation_config.lang_to_id = {"<|fr|>": 30, "<|it|>": 31, "<|es|>": 32}
    whisper.save_pretrained(folder)


def test_the_language_is_heard_and_words_come_as_they_are_decoded(tmp_path):
    from fastapi.testclient import TestClient

    config = tiny.world(tmp_path, sentences=2)
    assert serve.language_head(config.model_config.encoder_path_hf) is None  # an encoder alone
    whole_whisper(config.model_config.encoder_path_hf)
    config.decode.num_beams, config.decode.max_new_tokens = 1, 6
    translator = trained.save_run(config, compensated=False)
    head = serve.language_head(config.model_config.encoder_path_hf)
    with TestClient(serve.application(translator, ["en", "es"], "en", head=head)) as client:
        found = ask(client, response_format="verbose_json").json()
        assert found["language"] in ("fr", "it", "es")
        (path,) = client.post("/gradio_api/upload", files={"files": ("a.wav", sound())}).json()
        speech = {"path": path, "meta": {"_type": "gradio.FileData"}}
        asked = {"data": [speech, "detect", "en"]}
        event = client.post("/gradio_api/call/shown", json=asked).json()["event_id"]
        text = client.get(f"/gradio_api/call/shown/{event}").text
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    *growing, last = [json.loads(line)[0] for line in lines if line != "null"]
    assert last["value"] == found["text"] and last["label"].startswith("Translation from ")
    texts = [text for text in growing if isinstance(text, str)]
    assert texts[-1].strip() == found["text"] and 0 < len(texts[1]) < len(texts[-1])


@pytest.mark.parametrize(
    "form, said",
    [
        ({"language": "es", "content": b"%PDF-1.7"}, "speech.wav: broken, truncated or no audio"),
        ({"language": "es", "seconds": 7}, "0.1 minutes long, expected 0.1 or less"),
        ({"language": "español"}, "language code 'español'"),
        ({}, "expected language=en, es or another"),
        ({"language": "es", "response_format": "xml"}, "response_format=json, text"),
    ],
)
def test_what_is_wrong_is_said(client, form, said):
    answer = ask(client, **form)
    assert answer.status_code == 400 and said in answer.json()["error"]["message"]
    assert "/tmp" not in answer.text


def test_what_is_too_large_is_not_read(client, monkeypatch):
    monkeypatch.setattr(serve, "MEGABYTES", 0)
    assert ask(client, language="es").status_code == 413


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["serve", "outputs/mine"]) == 2
    assert "pip install slam-potsa[serve]" in capsys.readouterr().err
