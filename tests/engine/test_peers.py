"""Other systems decode a manifest: tiny random models of the very classes, and processors."""

import base64
import json
from contextlib import suppress

import pytest
import torch
import transformers

from slam_potsa.cli import main
from slam_potsa.data.manifest import read_manifest
from slam_potsa.data.predictions import read_predictions
from slam_potsa.engine.decode_processes import Answer
from slam_potsa.engine.peers import PEERS, decode_peer
from tests.support import refusal, tiny

AUDIO = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
LLM = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 64}
LLM |= {"num_attention_heads": 2, "num_key_value_heads": 2, "eos_token_id": 1, "pad_token_id": 1}
HEARS = transformers.WhisperFeatureExtractor(feature_size=8)


def tokenizer(*special: str):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<unk>", "<eos>", *special, *tiny.WORDS]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"eos_token": "<eos>", "pad_token": "<eos>", "unk_token": "<unk>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=core, **names)
    fast.add_special_tokens({"additional_special_tokens": list(special)})
    fast.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    return fast


def qwen2_audio(folder):
    words = tokenizer("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
    config = transformers.Qwen2AudioConfig(
        audio_config={**AUDIO, "num_mel_bins": 8},
        text_config=LLM | {"model_type": "qwen2"},
        audio_token_index=words.convert_tokens_to_ids("<|AUDIO|>"),
    )
    model = transformers.Qwen2AudioForConditionalGeneration(config)
    return model, transformers.Qwen2AudioProcessor(HEARS, words)


def whisper(folder):
    words = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|es|>", "<|ru|>"]
    words += ["<|translate|>", "<|transcribe|>", "<|notimestamps|>", *"abcdefgh"]
    ids = {word: index for index, word in enumerate(words)}
    names = ("bos", "eos", "pad", "unk")
    sizes = {**AUDIO, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32}
    ends = {f"{name}_token_id": 0 for name in ("bos", "eos", "pad")} | {"decoder_start_token_id": 1}
    config = transformers.WhisperConfig(**sizes, **ends, vocab_size=len(words), num_mel_bins=8)
    model = transformers.WhisperForConditionalGeneration(config)
    languages = {f"<|{code}|>": ids[f"<|{code}|>"] for code in ("en", "es", "ru")}
    tasks = {"translate": ids["<|translate|>"], "transcribe": ids["<|transcribe|>"]}
    told = {"lang_to_id": languages, "task_to_id": tasks, "is_multilingual": True}
    model.generation_config = transformers.GenerationConfig(
        **ends, **told, no_timestamps_token_id=7
    )
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokens = {f"{name}_token": "<|endoftext|>" for name in names}
    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    own = transformers.WhisperTokenizer(*files, **tokens)
    return model, transformers.WhisperProcessor(HEARS, own)


def seamless(folder):
    sizes = {"hidden_size": 16, "vocab_size": 64, "feature_projection_input_dim": 160}
    layers = {"speech_encoder_layers": 1, "decoder_layers": 1, "encoder_layers": 1}
    heads = dict.fromkeys(("speech_encoder", "decoder", "encoder"), 2)
    sizes |= layers | {f"{part}_attention_heads": n for part, n in heads.items()}
    sizes |= {"speech_encoder_intermediate_size": 32, "decoder_ffn_dim": 32, "encoder_ffn_dim": 32}
    ends = {"eos_token_id": 1, "pad_token_id": 1, "bos_token_id": 1, "decoder_start_token_id": 1}
    config = transformers.SeamlessM4Tv2Config(**sizes, **ends)
    model = transformers.SeamlessM4Tv2ForSpeechToText(config)
    codes = {"text_decoder_lang_to_code_id": {"eng": 3}}
    model.generation_config = transformers.GenerationConfig(**ends, **codes)
    hears = transformers.SeamlessM4TFeatureExtractor()
    return model, transformers.SeamlessM4TProcessor(hears, tokenizer())


def qwen25_omni(folder):
    named = {name: f"<|{name}|>" for name in ("image", "video", "vision_bos", "vision_eos")}
    named |= {"audio": "<|AUDIO|>", "audio_bos": "<|audio_bos|>", "audio_eos": "<|audio_eos|>"}
    words = tokenizer(*named.values())
    ids = {name: words.convert_tokens_to_ids(token) for name, token in named.items()}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    config = transformers.Qwen2_5OmniThinkerConfig(
        audio_config={**AUDIO, "num_mel_bins": 8, "output_dim": 16},
        vision_config={"depth": 1, "hidden_size": 16, "num_heads": 2, "out_hidden_size": 16},
        text_config=LLM | {"rope_parameters": rope},
        audio_start_token_id=ids["audio_bos"],
        audio_end_token_id=ids["audio_eos"],
        vision_start_token_id=ids["vision_bos"],
        **{f"{name}_token_index": ids[name] for name in ("audio", "image", "video")},
    )
    words.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["extra_special_tokens"] = {f"{n}_token": token for n, token in named.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return transformers.Qwen2_5OmniThinkerForConditionalGeneration(config), HEARS


def voxtral(folder):
    tekken = pytest.importorskip("mistral_common.tokens.tokenizers.tekken")
    special = [token["token_str"] for token in tekken.Tekkenizer.DEPRECATED_SPECIAL_TOKENS]
    special += [f"<SPECIAL_{n}>" for n in range(20, 24)]
    special += ["[AUDIO]", "[BEGIN_AUDIO]", "[TRANSCRIBE]"]
    sizes = {"default_vocab_size": len(special) + 256, "default_num_special_tokens": len(special)}
    spectrum = {"num_mel_bins": 8, "hop_length": 160, "window_size": 400}
    audio = {"sampling_rate": 16000, "frame_rate": 12.5, "chunk_length_s": 30.0}
    byte = [base64.b64encode(bytes([n])).decode() for n in range(256)]
    tokens = {
        "config": {"pattern": r"\S+|\s+", "num_vocab_tokens": 256, "version": "v7", **sizes},
        "vocab": [{"rank": n, "token_bytes": b, "token_str": None} for n, b in enumerate(byte)],
        "special_tokens": [
            {"rank": n, "token_str": token, "is_control": True} for n, token in enumerate(special)
        ],
        "audio": {**audio, "audio_encoding_config": spectrum},
    }
    (folder / "tekken.json").write_text(json.dumps(tokens))
    heard = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1}
    config = transformers.VoxtralConfig(
        audio_config={**heard, "num_attention_heads": 2, "num_mel_bins": 8},
        text_config=LLM | {"model_type": "llama", "vocab_size": sizes["default_vocab_size"]},
        audio_token_id=24,
    )
    model = transformers.VoxtralForConditionalGeneration(config)
    own = transformers.MistralCommonBackend.from_pretrained(folder)
    return model, transformers.VoxtralProcessor(HEARS, own)


def granite_speech(folder):
    pytest.importorskip("torchaudio", exc_type=(ImportError, OSError))
    words = tokenizer("<|audio|>")
    projector = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    projector |= {"model_type": "blip_2_qformer", "encoder_hidden_size": 16}
    config = transformers.GraniteSpeechConfig(
        text_config=LLM | {"model_type": "llama"},
        encoder_config={"input_dim": 160, "num_layers": 2, "hidden_dim": 16, "num_heads": 2},
        projector_config=projector | {"num_attention_heads": 2},
        audio_token_index=words.convert_tokens_to_ids("<|audio|>"),
        has_lora_adapter=False,
    )
    model = transformers.GraniteSpeechForConditionalGeneration(config)
    hears = transformers.GraniteSpeechFeatureExtractor()
    return model, transformers.GraniteSpeechProcessor(hears, words)


MADE = {"qwen2-audio": qwen2_audio, "whisper": whisper, "seamless-m4t": seamless}
MADE |= {"qwen2.5-omni": qwen25_omni, "voxtral": voxtral, "granite-speech": granite_speech}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return tiny.recordings(tmp_path_factory.mktemp("peers"), sentences=2)


@pytest.mark.parametrize("system", MADE)
def test_a_system_decodes_a_manifest_into_the_same_files(system, manifest, tmp_path, capsys):
    torch.manual_seed(0)
    (tmp_path / "model").mkdir()
    for part in MADE[system](tmp_path / "model"):
        part.save_pretrained(tmp_path / "model")
    line = ["decode", "--system", system, "--model", str(tmp_path / "model"), str(manifest)]
    line += ["--output", str(tmp_path / "out"), "--max-new-tokens", "5"]
    assert main(line) == 0, capsys.readouterr().err
    found = read_predictions(tmp_path / "out_predictions.jsonl")
    assert len(found) == 6 and all(item.reference for item in found)
    assert (tmp_path / "out_pred").is_file() and (tmp_path / "out.done.json").is_file()
    assert not list(tmp_path.glob("out_partial*"))


def test_a_stopped_decoding_is_held_and_goes_on_for_the_same_model_and_recordings(
    tmp_path, monkeypatch
):
    new, model, asked = tiny.recordings(tmp_path, sentences=2), tmp_path / "model", []
    keys = [row.key for row in read_manifest(new)]
    model.mkdir()

    def answer(_system, _parts, row, *_):
        assert "is decoding" in (tmp_path / "out.lock").read_text()
        asked.append(row.key)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return Answer(row.key, ["text"])

    def decoded():
        asked.clear()
        with suppress(KeyboardInterrupt):
            decode_peer("seamless-m4t", str(model), new, tmp_path / "out", "s2tt")
        return asked

    monkeypatch.setattr("slam_potsa.engine.peers.load_peer", lambda *_: None)
    monkeypatch.setattr("slam_potsa.engine.peers.answer_to", answer)
    assert decoded() == keys[:3]
    (model / "model.safetensors").write_bytes(b"others")  # at the same path
    assert decoded() == keys[:3]
    (tmp_path / "audio/es-0.wav").write_bytes((tmp_path / "audio/en-0.wav").read_bytes())
    assert decoded() == keys[:3] and decoded() == keys[2:5]


def test_what_a_system_cannot_be_asked_is_refused_before_it_is_loaded(
    manifest, monkeypatch, tmp_path
):
    def ask(system, task="s2tt"):
        return str(refusal(decode_peer, system, "nowhere", manifest, tmp_path / "out", task))

    assert "expected one of qwen2-audio, qwen2.5-omni, voxtral" in ask("gpt")
    assert "--task cot: voxtral is asked for asr, s2tt" in ask("voxtral", "cot")
    monkeypatch.setattr("slam_potsa.engine.peers.find_spec", lambda name: None)
    assert "voxtral: its processor needs mistral-common: pip install" in ask("voxtral")
    assert "granite-speech: its processor needs torchaudio" in ask("granite-speech")
    monkeypatch.setitem(PEERS, "whisper", PEERS["whisper"] | {"targets": ["zh"]})
    assert "whisper cannot translate into en: expected zh" in ask("whisper")
    monkeypatch.setitem(
        PEERS, "new", PEERS["whisper"] | {"model": "NotYetModel", "targets": ["en"]}
    )
    assert "transformers" in (said := ask("new")) and "has no NotYetModel" in said
    assert main(["decode", "--system", "whisper", str(manifest)]) == 2


def test_every_class_is_one_of_transformers():
    assert all(hasattr(transformers, found["model"]) for found in PEERS.values())
