"""Other systems decode a manifest: tiny random models of the very classes, and processors."""

from __future__ import annotations

import base64
import json

import pytest
import torch

from slam_potsa import InputError
from slam_potsa.cli import main
from slam_potsa.data.predictions import read_predictions
from slam_potsa.engine.peers import PEERS, decode_peer
from tests.support import tiny

AUDIO = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
LLM = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 64}
EN = {"targets": ["en"]}
LLM |= {"num_attention_heads": 2, "num_key_value_heads": 2, "eos_token_id": 1, "pad_token_id": 1}


def tokenizer(*special: str):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<eos>", *special, *tiny.WORDS]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"eos_token": "<eos>", "pad_token": "<eos>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=core, **names)
    fast.add_special_tokens({"additional_special_tokens": list(special)})
    fast.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    return fast


def qwen2_audio(folder) -> None:
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    words = tokenizer("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
    index = words.convert_tokens_to_ids("<|AUDIO|>")
    sizes = {
        "audio_config": {**AUDIO, "num_mel_bins": 8},
        "text_config": LLM | {"model_type": "qwen2"},
    }
    model = Qwen2AudioForConditionalGeneration(Qwen2AudioConfig(audio_token_index=index, **sizes))
    model.save_pretrained(folder)
    Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=8), words).save_pretrained(folder)


def whisper(folder) -> None:
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    words = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|es|>", "<|ru|>"]
    words += ["<|translate|>", "<|transcribe|>", "<|notimestamps|>", *"abcdefgh"]
    ids = {word: index for index, word in enumerate(words)}
    names = ("bos", "eos", "pad", "unk")
    sizes = {**AUDIO, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32}
    ends = {f"{name}_token_id": 0 for name in ("bos", "eos", "pad")} | {"decoder_start_token_id": 1}
    config = WhisperConfig(**sizes, **ends, vocab_size=len(words), num_mel_bins=8)
    model = WhisperForConditionalGeneration(config)
    languages = {f"<|{code}|>": ids[f"<|{code}|>"] for code in ("en", "es", "ru")}
    tasks = {"translate": ids["<|translate|>"], "transcribe": ids["<|transcribe|>"]}
    model.generation_config = GenerationConfig(
        **ends,
        lang_to_id=languages,
        task_to_id=tasks,
        no_timestamps_token_id=7,
        is_multilingual=True,
    )
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokens = {f"{name}_token": "<|endoftext|>" for name in names}
    own = WhisperTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), **tokens)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=8), own).save_pretrained(folder)


def seamless(folder) -> None:
    from transformers import (
        GenerationConfig,
        SeamlessM4TFeatureExtractor,
        SeamlessM4TProcessor,
        SeamlessM4Tv2Config,
        SeamlessM4Tv2ForSpeechToText,
    )

    sizes = {"hidden_size": 16, "vocab_size": 64, "feature_projection_input_dim": 160}
    layers = {"speech_encoder_layers": 1, "decoder_layers": 1, "encoder_layers": 1}
    heads = dict.fromkeys(("speech_encoder", "decoder", "encoder"), 2)
    sizes |= layers | {f"{part}_attention_heads": n for part, n in heads.items()}
    sizes |= {"speech_encoder_intermediate_size": 32, "decoder_ffn_dim": 32, "encoder_ffn_dim": 32}
    ends = {"eos_token_id": 1, "pad_token_id": 1, "bos_token_id": 1, "decoder_start_token_id": 1}
    model = SeamlessM4Tv2ForSpeechToText(SeamlessM4Tv2Config(**sizes, **ends))
    codes = {"text_decoder_lang_to_code_id": {"eng": 3}}
    model.generation_config = GenerationConfig(**ends, **codes)
    model.save_pretrained(folder)
    SeamlessM4TProcessor(SeamlessM4TFeatureExtractor(), tokenizer()).save_pretrained(folder)


def qwen25_omni(folder) -> None:
    from transformers import (
        Qwen2_5OmniThinkerConfig,
        Qwen2_5OmniThinkerForConditionalGeneration,
        WhisperFeatureExtractor,
    )

    named = {name: f"<|{name}|>" for name in ("image", "video", "vision_bos", "vision_eos")}
    named |= {"audio": "<|AUDIO|>", "audio_bos": "<|audio_bos|>", "audio_eos": "<|audio_eos|>"}
    words = tokenizer(*named.values())
    ids = {name: words.convert_tokens_to_ids(token) for name, token in named.items()}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    config = Qwen2_5OmniThinkerConfig(
        audio_config={**AUDIO, "num_mel_bins": 8, "output_dim": 16},
        vision_config={"depth": 1, "hidden_size": 16, "num_heads": 2, "out_hidden_size": 16},
        text_config=LLM | {"rope_parameters": rope},
        audio_start_token_id=ids["audio_bos"],
        audio_end_token_id=ids["audio_eos"],
        vision_start_token_id=ids["vision_bos"],
        **{f"{name}_token_index": ids[name] for name in ("audio", "image", "video")},
    )
    Qwen2_5OmniThinkerForConditionalGeneration(config).save_pretrained(folder)
    words.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["extra_special_tokens"] = {f"{n}_token": token for n, token in named.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    WhisperFeatureExtractor(feature_size=8).save_pretrained(folder)


def voxtral(folder) -> None:
    tekken = pytest.importorskip("mistral_common.tokens.tokenizers.tekken")
    from transformers import (
        MistralCommonBackend,
        VoxtralConfig,
        VoxtralForConditionalGeneration,
        VoxtralProcessor,
        WhisperFeatureExtractor,
    )

    special = [token["token_str"] for token in tekken.Tekkenizer.DEPRECATED_SPECIAL_TOKENS]
    special += [
        *(f"<SPECIAL_{n}>" for n in range(20, 24)),
        "[AUDIO]",
        "[BEGIN_AUDIO]",
        "[TRANSCRIBE]",
    ]
    sizes = {"default_vocab_size": len(special) + 256, "default_num_special_tokens": len(special)}
    spectrum = {"num_mel_bins": 8, "hop_length": 160, "window_size": 400}
    audio = {"sampling_rate": 16000, "frame_rate": 12.5, "chunk_length_s": 30.0}
    byte = [base64.b64encode(bytes([n])).decode() for n in range(256)]
    model = {
        "config": {"pattern": r"\S+|\s+", "num_vocab_tokens": 256, "version": "v7", **sizes},
        "vocab": [{"rank": n, "token_bytes": b, "token_str": None} for n, b in enumerate(byte)],
        "special_tokens": [
            {"rank": n, "token_str": token, "is_control": True} for n, token in enumerate(special)
        ],
        "audio": {**audio, "audio_encoding_config": spectrum},
    }
    (folder / "tekken.json").write_text(json.dumps(model))
    heard = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1}
    config = VoxtralConfig(
        audio_config={**heard, "num_attention_heads": 2, "num_mel_bins": 8},
        text_config=LLM | {"model_type": "llama", "vocab_size": sizes["default_vocab_size"]},
        audio_token_id=24,
    )
    VoxtralForConditionalGeneration(config).save_pretrained(folder)
    own = MistralCommonBackend.from_pretrained(folder)
    VoxtralProcessor(WhisperFeatureExtractor(feature_size=8), own).save_pretrained(folder)


def granite_speech(folder) -> None:
    pytest.importorskip("torchaudio", exc_type=(ImportError, OSError))
    from transformers import (
        GraniteSpeechConfig,
        GraniteSpeechFeatureExtractor,
        GraniteSpeechForConditionalGeneration,
        GraniteSpeechProcessor,
    )

    words = tokenizer("<|audio|>")
    config = GraniteSpeechConfig(
        text_config=LLM | {"model_type": "llama"},
        encoder_config={"input_dim": 160, "num_layers": 2, "hidden_dim": 16, "num_heads": 2},
        projector_config={
            "model_type": "blip_2_qformer",
            "encoder_hidden_size": 16,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
        },
        audio_token_index=words.convert_tokens_to_ids("<|audio|>"),
        has_lora_adapter=False,
    )
    GraniteSpeechForConditionalGeneration(config).save_pretrained(folder)
    GraniteSpeechProcessor(GraniteSpeechFeatureExtractor(), words).save_pretrained(folder)


MADE = {"qwen2-audio": qwen2_audio, "whisper": whisper, "seamless-m4t": seamless}
MADE |= {"qwen2.5-omni": qwen25_omni, "voxtral": voxtral, "granite-speech": granite_speech}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return tiny.recordings(tmp_path_factory.mktemp("peers"), sentences=2)


@pytest.mark.parametrize("system", MADE)
def test_a_system_decodes_a_manifest_into_the_same_files(system, manifest, tmp_path, capsys):
    torch.manual_seed(0)
    (tmp_path / "model").mkdir()
    MADE[system](tmp_path / "model")
    line = ["decode", "--system", system, "--model", str(tmp_path / "model"), str(manifest)]
    line += ["--output", str(tmp_path / "out"), "--max-new-tokens", "5"]
    assert main(line) == 0, capsys.readouterr().err
    found = read_predictions(tmp_path / "out_predictions.jsonl")
    assert len(found) == 6 and all(item.reference for item in found)
    assert (tmp_path / "out_pred").is_file() and (tmp_path / "out.done.json").is_file()
    assert not list(tmp_path.glob("out_partial*"))
    capsys.readouterr()
    assert main(["score", str(tmp_path / "out_predictions.jsonl"), "--bootstrap", "0"]) == 0
    assert "BLEU" in capsys.readouterr().out


def test_what_a_system_cannot_be_asked_is_refused_before_it_is_loaded(
    manifest, monkeypatch, tmp_path
):
    def ask(system, task="s2tt"):
        with pytest.raises(InputError) as error:
            decode_peer(system, "nowhere", manifest, tmp_path / "out", task)
        return str(error.value)

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
    import transformers

    assert all(hasattr(transformers, found["model"]) for found in PEERS.values())
