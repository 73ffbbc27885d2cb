"""Targets by a text translation model: which rows get one, how languages are told, the mark."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import M2M100Config, M2M100ForConditionalGeneration, PreTrainedTokenizerFast

from slam_potsa.cli import main
from slam_potsa.data.languages import find_language
from slam_potsa.data.manifest import Utterance, read_manifest, write_manifest
from slam_potsa.data.predictions import Prediction, read_predictions, write_predictions
from slam_potsa.engine import translate_text
from slam_potsa.evaluation.scores import score
from tests.support import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random seq2seq model of the words of `tiny`."""
    folder = tmp_path_factory.mktemp("mt")
    torch.manual_seed(1)
    sizes = {"vocab_size": 24, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "init_std": 1.0}
    sizes |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 300}
    ids = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1, "decoder_start_token_id": 1}
    M2M100ForConditionalGeneration(M2M100Config(**sizes, **ids)).save_pretrained(folder)
    tiny.tokenizer(folder)
    return that_ends(folder)


def that_ends(folder):
    """Random models do not by themselves."""
    options = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(options | {"forced_eos_token_id": 1}))
    return str(folder)


def manifest(path):
    said = [("en", "one two", None), ("ru", "two three", "ready"), ("zh", "call", None)]
    said += [("en", None, None), ("en", "please call", None), ("es", "one two", None)]
    rows = [
        Utterance(f"k{n}", "a.wav", code, str(n), text, target, target and "zh")
        for n, (code, text, target) in enumerate(said)
    ]
    write_manifest(path, rows)
    return path


@pytest.mark.parametrize("kind", ["seq2seq", "causal"])
def test_what_lacks_a_target_gets_one_and_says_so(kind, model, tmp_path, monkeypatch, capsys):
    name = model if kind == "seq2seq" else that_ends(tiny.llm(tmp_path / "llm", seed=2))
    path = manifest(tmp_path / "in.jsonl")
    convert = ["prepare", "convert", str(path), str(tmp_path / "out.jsonl")]
    filled = [*convert, "--translate-with", name, "--into", "chinese"]
    assert main(filled) == 0
    rows = read_manifest(tmp_path / "out.jsonl", needs=())
    assert [row.synthetic for row in rows] == ["target", None, None, None, "target", "target"]
    assert [row.target_language for row in rows] == ["zh", "zh", None, None, "zh", "zh"]
    assert rows[1].target == "ready" and rows[0].target and "\n" not in rows[0].target
    assert "3 of 6 targets" in capsys.readouterr().out
    monkeypatch.setattr(translate_text, "_translator", None)  # all is there
    assert main(filled) == 0
    assert read_manifest(tmp_path / "out.jsonl", needs=()) == rows
    assert main([*convert, "--translate-with", name]) == 2
    assert main([*filled[:-1], "nowhere"]) == main([*filled[:-1], "zh-Hant"]) == 2


def test_languages_are_told_by_the_tokenizers_own_tokens():
    french, chinese = find_language("fr"), find_language("zh")
    for tokens, told in [
        (["eng_Latn", "fra_Latn", "zho_Hans", "zho_Hant"], ("fra_Latn", "zho_Hans")),
        (["__en__", "__fr__", "__zh__"], ("__fr__", "__zh__")),
        (["fr_XX", "zh_CN"], ("fr_XX", "zh_CN")),
        (["<2fr>", ">>cmn<<", "fr", "zh"], ("<2fr>", ">>cmn<<")),
        (["fr", "zh", "_fr"], ("", "")),
    ]:
        assert tuple(translate_text._token(tokens, one) for one in (french, chinese)) == told


@pytest.mark.parametrize(
    ("answer", "line"),
    [(" Hallo  Welt\nx", "Hallo Welt"), ("<think>\nHm", ""), ("a\x07b", ""), ("", "")],
)
def test_an_answer_is_its_first_line_or_nothing(answer, line):
    assert translate_text._line(answer) == line


class Told(PreTrainedTokenizerFast):
    """One that is told the spoken language, as NLLB's."""

    src_lang = ""


def test_a_multilingual_model_begins_with_the_token_of_the_language(model, monkeypatch):
    words = ["<unk>", "<eos>", *tiny.WORDS, "eng_Latn", "zho_Hans"]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    told = Told(tokenizer_object=core, eos_token="<eos>", unk_token="<unk>", pad_token="<eos>")
    monkeypatch.setattr(translate_text, "load_tokenizer", lambda path: told)
    translate = translate_text._translator(model, find_language("zh"))
    assert translate(["one two"], find_language("en"))[0].startswith("zho_Hans")
    assert told.src_lang == "eng_Latn"
    with pytest.raises(translate_text.InputError, match="no token of French"):
        translate_text._translator(model, find_language("fr"))


def test_scores_on_what_a_machine_made_say_so(tmp_path):
    found = Prediction("a", "en", "", "zh", "你好。", "你好。", synthetic="target")
    write_predictions(tmp_path / "p.jsonl", [found])
    assert read_predictions(tmp_path / "p.jsonl") == [found]
    assert "synthetic|target:1 rows" in score([found], bootstrap=0).text()
