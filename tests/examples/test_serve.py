"""The endpoint: OpenAI's answers, and everything wrong named; one recording at a time."""

import importlib.util
import io
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from slam_potsa.cli import main
from slam_potsa.config.compose import examples_dir

pytest.importorskip("gradio", reason="pip install slam-potsa[serve] brings the page")
spec = importlib.util.spec_from_file_location("serve", examples_dir() / "serve.py")
serve = importlib.util.module_from_spec(spec)
spec.loader.exec_module(serve)


@pytest.fixture(scope="module")
def client():
    from fastapi.testclient import TestClient

    busy = threading.Lock()

    def translate(files, language, into):
        assert busy.acquire(blocking=False)  # nobody else's turn
        busy.release()
        return [f"{language} to {into}: {len(soundfile.read(file)[0])}" for file in files]

    app = serve.application(SimpleNamespace(translate=translate), ["en", "es"], "zh", minutes=0.1)
    return TestClient(app)


def ask(client, seconds=1, content=None, **form):
    sound = io.BytesIO()
    soundfile.write(sound, 0.1 * np.sin(np.arange(16000 * seconds)), 16000, format="WAV")
    file = {"file": ("speech.wav", content or sound.getvalue())}
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
