"""The endpoint: OpenAI's answers, and everything wrong named; one recording at a time."""

import importlib.util
import io
import json
import os
import re
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from slam_potsa.cli import main
from slam_potsa.config import PotsaConfig
from slam_potsa.config.compose import examples_dir
from slam_potsa.data.pieces import Piece
from tests.support import browser, tiny, trained

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
    with TestClient(app) as client:
        yield client


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


def test_another_sites_page_may_not_ask(client):
    own = client.get("/").url
    for origin, status in ((f"{own.scheme}://{own.host}", 200), ("https://elsewhere.example", 403)):
        file, headers = {"file": ("speech.wav", sound())}, {"origin": origin}
        asked = {"files": file, "data": {"language": "es"}, "headers": headers}
        assert client.post("/v1/audio/translations", **asked).status_code == status


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


def shown(client, content=None, language="es", into="en"):
    """What the page shows one after another, [transcript, text, answers, picture]; or an error."""
    file = content or sound()
    (path,) = client.post("/gradio_api/upload", files={"files": ("a.wav", file)}).json()
    speech = {"path": path, "meta": {"_type": "gradio.FileData"}} if content != b"" else None
    asked = {"data": [speech, language, into]}
    event = client.post("/gradio_api/call/shown", json=asked).json()["event_id"]
    lines = client.get(f"/gradio_api/call/shown/{event}").text.splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


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
        *growing, last = filter(None, shown(client, language="detect"))
    assert last[1]["value"] == found["text"] and last[1]["label"].startswith("Translation from ")
    texts = [text for _, text, *_ in growing if isinstance(text, str)]
    assert texts == sorted(texts, key=len) and len({*texts}) > 2 and texts[-1] == found["text"]
    assert "<svg" in last[3]


@pytest.fixture(scope="module")
def cot(tmp_path_factory):
    """A tiny model that happens to write two words, another for a marker, and one more."""
    config = tiny.world(tmp_path_factory.mktemp("cot"), sentences=2)
    config.dataset_config.tasks, config.dataset_config.cot_prompt = ["cot"], "USER : "
    translator = trained.save_run(config, compensated=False, seed=1)
    audio = config.dataset_config.train_data_path.replace("manifest.jsonl", "audio/es-1.wav")
    first, second, marker, translation = translator.translate([audio], "es", "en")[0].split()
    translator.config.dataset_config.cot_answer = f"{{transcript}} {marker} {{target}}"
    return translator, Path(audio), f"{first} {second}", translation


@pytest.fixture(params=[1, 3], ids=["greedy", "beam"])
def beams(cot, request, monkeypatch):
    translator, *_ = cot
    monkeypatch.setattr(translator.config.decode, "num_beams", request.param)
    monkeypatch.setitem(translator.model.decode, "num_beams", request.param)
    return request.param


def test_transcript_answers_of_the_beam_and_where_it_looked(cot, beams):
    from fastapi.testclient import TestClient

    translator, audio, heard, translation = cot
    (known,) = translator.predictions([audio], "es", "en", num_return_sequences=beams)
    with TestClient(serve.application(translator, ["es"], "en")) as client:
        answer = ask(client, content=audio.read_bytes(), language="es").json()
        *growing, last = filter(None, shown(client, audio.read_bytes()))
    assert (known.heard, known.prediction) == (heard, translation) and answer["text"] == translation
    assert last[0] == heard and last[1]["value"] == translation and "<svg" in last[3]
    scores = re.findall(r"<td>(-\d\.\d{3})<td>", last[2])
    assert scores == [f"{score:.3f}" for _, score in known.alternatives or ()]
    transcripts = [text for text, translated, *_ in growing if not translated]
    assert heard in transcripts or beams > 1  # before its translation


def test_a_page_that_was_closed_is_not_waited_for(cot):
    translator, audio, *_ = cot
    ended = threading.Event()

    def hear(path, language, into, one):
        try:
            while True:  # a recording without an end
                one(Piece(0, 1, path), language=language, target_language=into)
        finally:
            ended.set()

    page = serve.page_of(translator, hear, ["es"], "en", detects=False)
    growing = next(iter(page.fns.values())).fn(str(audio), "es", "en")
    assert next(growing) and next(growing)
    growing.close()
    assert ended.wait(60)


@pytest.mark.parametrize(
    "asked, said",
    [
        ({"content": b""}, "record speech, or upload a file"),
        ({"language": None}, "choose the spoken language"),
        ({"content": b"%PDF-1.7"}, "a.wav: broken, truncated or no audio"),
        ({"content": sound(7)}, "0.1 minutes long, expected 0.1 or less: serve with"),
        ({"into": ""}, "language code ''"),
    ],
)
def test_the_page_says_what_is_wrong(client, asked, said):
    error = shown(client, **asked)[-1]
    assert said in error["error"] and "/tmp" not in error["error"]


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


@pytest.fixture
def page(cot, beams):
    """Where it is served."""
    import uvicorn

    app = serve.application(cot[0], ["es"], "en")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@browser.needed
def test_somebody_speaks_into_the_page(cot, page, beams):
    _, audio, heard, translation = cot
    flags = "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"
    with browser.opened(*flags, f"--use-file-for-fake-audio-capture={audio}") as driver:
        first = partial(browser.first, driver)
        driver.get(page)
        first("button[aria-label='Upload file']").click()
        first("input[type=file]", shown=False).send_keys(str(audio))
        first("button[aria-label='Download']")  # it is there
        first("button", "Translate").click()
        first("figure svg")
        fields = [first("label:has(textarea)", name) for name in ("Transcript", "Translation from")]
        values = [
            each.find_element("tag name", "textarea").get_attribute("value") for each in fields
        ]
        assert values == [heard, translation]
        if beams > 1:
            first("button", "Answers of the beam").click()
            assert first("table.answers").text.count("-") == beams
        assert bool(driver.find_elements("css selector", "table.answers tr")) == (beams > 1)
        for width in (1200, 390):
            browser.resize(driver, width)
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            if folder := os.environ.get("SCREENSHOTS"):
                driver.save_screenshot(f"{folder}/serve-{beams}-{width}.png")

        driver.get(page)
        first("button", "Record").click()
        time.sleep(1)
        first("button", "Stop").click()
        first("button[aria-label='Download']")
        first("button", "Translate").click()
        assert first("figure svg")
        sent = [message for message in browser.requested(driver) if '"url":"http' in message]
        assert sent and all(f'"url":"{page}' in message for message in sent)
