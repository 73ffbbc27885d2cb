"""Our projector in SLAM-LLM's own recipes: their configuration, datasets, encoders and entries."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from slam_potsa import stand_ins
from slam_potsa.data.jsonl import read_log
from slam_potsa.errors import InputError
from slam_potsa.model.checkpoint import apply_checkpoint, read_checkpoint, save_checkpoint
from slam_potsa.model.drop_in import dataset_factory, factory, with_languages
from slam_potsa.model.language_bias import LanguageBias
from slam_potsa.model.projectors import BiasCompensatedQFormer
from tests.support import slam_llm, tiny
from tests.support.recipes import (
    FROZEN,
    RECIPES,
    SOURCE,
    languages,
    model_options,
    openai_whisper,
    recipe,
    their_batch,
    whole_whisper,
)
from tests.support.trained import one_step

PROJECTOR = {"query_len": 4, "qformer_layers": 4, "qformer_dim": 16, "qformer_heads": 2}
OFF = {"enabled": False}
READY = slam_llm.ROOT / "slam_potsa" / "model" / "drop_in_file.py"  # `slam-potsa where drop-in`
pytestmark = [
    *slam_llm.NEEDED,
    pytest.mark.skipif(
        SOURCE is not None and not (SOURCE.parent / "examples").is_dir(),
        reason="SLAM-LLM is installed without its examples",
    ),
]


@pytest.fixture(scope="module", autouse=True)
def importable():
    stand_ins.install()
    sys.path.insert(0, str(SOURCE))
    yield
    sys.path.remove(str(SOURCE))


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> SimpleNamespace:
    """Tiny LLM, openai-whisper file, transformers Whisper, recordings and biases."""
    folder = tmp_path_factory.mktemp("parts")
    bias = {code: torch.randn(16) for code in ("en", "es", "ru")}
    LanguageBias(bias).save(folder / "bias.safetensors")
    return SimpleNamespace(
        llm=str(tiny.llm(folder / "llm")),
        whisper=str(openai_whisper(folder / "whisper.pt")),
        whisper_hf=str(whole_whisper(folder / "whisper_hf")),
        manifest=str(tiny.recordings(folder / "data", sentences=3)),
        bias=str(folder / "bias.safetensors"),
    )


def built(config, options=PROJECTOR, ckpt=None, **rest):
    """The model and its tokenizer, as the recipe's entry makes them of our factory."""
    make = factory(options, **rest)
    given = {} if ckpt is None else {"ckpt_path": str(ckpt)}
    return make(config.train_config, config.model_config, **given)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_and_decodes_with_its_own_dataset(name, parts, tmp_path, monkeypatch):
    config = recipe(name, parts, tmp_path)
    make = factory(PROJECTOR, language_bias={"path": parts.bias})
    model, tokenizer = make(config.train_config, config.model_config, metric="acc")
    batch = their_batch(name, config, tokenizer, monkeypatch)
    batch["language_ids"] = languages("en", "es", "es")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(6):
        outputs, accuracy = model(**{k: v.clone() for k, v in batch.items()})
        outputs.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(outputs.loss.item())
    assert losses[-1] < losses[0] and accuracy.ndim == 0
    labels = batch.pop("labels")
    tokens = model.generate(**batch, num_beams=1, max_new_tokens=3)
    assert tokens.shape[0] == labels.shape[0] and tokens.shape[1] <= 3


@pytest.mark.parametrize("name", RECIPES)
def test_without_language_ids_a_clear_error_or_what_the_user_said(
    name, parts, tmp_path, monkeypatch
):
    config, bias = recipe(name, parts, tmp_path), {"path": parts.bias}
    model, tokenizer = built(config, language_bias=bias)
    batch = their_batch(name, config, tokenizer, monkeypatch)
    with pytest.raises(InputError, match="dataset_factory"):
        model(**batch)
    assert torch.isfinite(built(config, language_bias=OFF)[0](**batch)[0].loss)


def test_the_bias_of_a_row_is_its_languages(parts, tmp_path, monkeypatch):
    config = recipe("asr_librispeech", parts, tmp_path)
    model, tokenizer = built(config, language_bias={"path": parts.bias})
    batch, found = their_batch("asr_librispeech", config, tokenizer, monkeypatch), []
    model.eval().encoder_projector.qformer.register_forward_pre_hook(
        lambda _module, _args, inputs: found.append(inputs["encoder_hidden_states"]),
        with_kwargs=True,
    )
    with torch.no_grad():
        for code in ("en", "ru"):
            model(**batch, language_ids=languages(code, code, code))
    bias = LanguageBias.load(parts.bias).biases
    expected = (bias["ru"] - bias["en"]).expand_as(found[0])
    torch.testing.assert_close(found[0] - found[1], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", RECIPES)
def test_terms_are_added_to_the_loss_in_training_only(name, parts, tmp_path):
    config = recipe(name, parts, tmp_path)
    config.dataset_config.train_data_path = parts.manifest
    inner = {"first": "llm.{layer}", "second": "llm.0", "rows": "same", "layers": [2]}
    terms = {
        "ot": {"distance": "ot", "weight": 2.0},
        "inner": {"distance": "cosine", "weight": 0.5, **inner},
    }
    sizes, rest = {**PROJECTOR, "qformer_dropout": 0.0}, {"language_bias": {"path": parts.bias}}
    model, tokenizer = built(config, sizes, alignment={"terms": terms}, **rest)
    make = dataset_factory(pairing="random", prompt="USER : ")
    data = make(config.dataset_config, tokenizer, "train")
    batch = data.collator([data[0], data[1]])
    total, line = one_step(model, batch)
    with torch.no_grad():
        plain = model(**batch)[0].loss.item()
    assert line["layers"] and line["inner"] > 0 and line["ce"] == pytest.approx(plain, abs=1e-4)
    added = 2.0 * line["ot"] + 0.5 * line["inner"]
    assert total == pytest.approx(plain + added, abs=1e-3)
    assert read_log(tmp_path / "run" / "metrics.jsonl")[0]["layers"]


def test_their_dataset_with_languages_of_its_rows(parts, tmp_path, monkeypatch):
    config = recipe("asr_librispeech", parts, tmp_path)
    model, tokenizer = built(config, language_bias={"path": parts.bias})
    _, get = their_batch("asr_librispeech", config, tokenizer, monkeypatch, function=True)
    data = with_languages(get, lambda row: row["key"][:2])(
        config.dataset_config, tokenizer, "train"
    )
    batch = data.collator([data[0], data[1], data[4]])
    expected = [data.dataset.data_list[i]["key"][:2] for i in (0, 1, 4)]
    assert batch["language_ids"].tolist() == languages(*expected).tolist()
    assert torch.isfinite(model(**batch)[0].loss)
    with pytest.raises(InputError, match="row 0: language code None"):
        with_languages(get)(config.dataset_config, tokenizer, "train")


def test_lora_is_kept_trained_and_saved(parts, tmp_path, monkeypatch):
    config = recipe("asr_librispeech", parts, tmp_path, use_peft=True)
    model, tokenizer = built(config, language_bias=OFF)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    lora = {name for name in trained if name.startswith("llm.")}
    assert lora and all("lora_" in name for name in lora)
    batch = their_batch("asr_librispeech", config, tokenizer, monkeypatch)
    model(**batch)[0].loss.backward()
    assert any(model.get_parameter(name).grad.abs().sum() > 0 for name in lora)
    with torch.no_grad():
        model.get_parameter(sorted(lora)[0]).fill_(0.5)
    save_checkpoint(model, tmp_path / "model.pt")
    again, _ = built(config, ckpt=tmp_path / "model.pt", language_bias=OFF)
    for name in trained - {n for n in trained if "schedule_state" in n}:
        torch.testing.assert_close(again.get_parameter(name), model.get_parameter(name))


def test_a_transformers_whisper(parts, tmp_path, monkeypatch):
    """st_covost2 names a transformers folder, which SLAM-LLM's own model cannot run."""
    config = recipe("st_covost2", parts, tmp_path)
    config.model_config.encoder_path_hf = parts.whisper_hf
    model, tokenizer = built(config, language_bias=OFF)
    batch = their_batch("st_covost2", config, tokenizer, monkeypatch)
    assert torch.isfinite(model(**batch)[0].loss)


def test_what_does_not_fit_is_said(parts, tmp_path, monkeypatch):
    negative = {"alignment": {"terms": {"ot": {"distance": "ot", "weight": -1}}}}
    for message, make, options in (
        ("quary_len", factory, {"projector": {"quary_len": 3}}),
        ("weight", factory, negative),
        ("pairring", dataset_factory, {"pairring": "none"}),
    ):
        with pytest.raises(InputError, match=message):
            make(**options)
    config = recipe("asr_librispeech", parts, tmp_path)
    with pytest.raises(InputError, match="slam-potsa bias"):
        built(config)
    model, tokenizer = built(config, {**PROJECTOR, "query_len": 7}, language_bias=OFF)
    batch = their_batch("asr_librispeech", config, tokenizer, monkeypatch)
    with pytest.raises(InputError, match="fix_length_audio=7"):
        model(**batch)


class SlamProjector(dict):
    """A configuration as SLAM-LLM's projector class reads it."""

    __getattr__ = dict.__getitem__


def cot_st_checkpoint(path: Path, **sizes: int) -> torch.nn.Module:
    """What SLAM-LLM's st_covost2 recipe (CoT-ST) saves, by SLAM-LLM's own projector class.

    The published file cannot be reached from here.
    """
    from slam_llm.models.projector import EncoderProjectorQFormer

    theirs = EncoderProjectorQFormer(SlamProjector(sizes)).eval()
    state = {f"encoder_projector.{name}": p for name, p in theirs.named_parameters()}
    torch.save(state, path)
    return theirs


def test_a_checkpoint_of_cot_st_loads_and_gives_their_output(tmp_path):
    sizes = {"encoder_dim": 1280, "llm_dim": 3584, "qformer_layers": 8, "query_len": 80}
    theirs = cot_st_checkpoint(tmp_path / "model.pt", **sizes)
    ours = BiasCompensatedQFormer(1280, 3584).eval()
    holder = torch.nn.Module()
    holder.encoder_projector = ours
    apply_checkpoint(holder, read_checkpoint(tmp_path / "model.pt"), "model.pt")
    features, mask = torch.randn(1, 12, 1280), torch.ones(1, 12)
    with torch.no_grad():
        torch.testing.assert_close(ours(features, mask), theirs(features, mask))


def test_their_checkpoint_loads_into_both_hosts_and_a_width_mismatch_names_both(parts, tmp_path):
    from slam_potsa.engine.decode import Translator

    path = tmp_path / "model.pt"
    sizes = {"encoder_dim": 16, "llm_dim": tiny.WIDTH, "qformer_layers": 2, "query_len": 4}
    theirs = cot_st_checkpoint(path, **sizes)
    config = recipe("st_covost2", parts, tmp_path)
    options = {"query_len": 4, "qformer_layers": 2}
    model, _ = built(config, options, path, language_bias=OFF)
    torch.testing.assert_close(model.encoder_projector.query, theirs.query)
    with pytest.raises(InputError, match=r"\[1, 4, 768\].*\[1, 5, 768\]"):
        built(config, {**options, "query_len": 5}, path, language_bias=OFF)

    native = tiny.world(tmp_path / "native", sentences=2)
    native.model_config.qformer_layers = 2
    native.model_config.qformer_dim, native.model_config.qformer_heads = 768, 12
    native.language_bias.enabled, native.ckpt_path = False, str(path)
    decoded = Translator(native).decode(native.dataset_config.train_data_path, progress=False)
    assert len(decoded) == 6


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_own_entries_run(name, parts, tmp_path):
    """SLAM-LLM's own scripts, as documented: DDP, validation, checkpoint, decode.

    st_covost2's own decoder names Qwen2-7B and its widths in its code: asr_librispeech's serves.
    """
    precision = {"asr_librispeech": ["++train_config.use_fp16=true"]}.get(
        name, ["++fsdp_config.pure_bf16=true", f"++model_config.encoder_path={parts.whisper_hf}"]
    )
    run, ddp = tmp_path / "run", "++train_config.enable_ddp=true"
    launch(name, "finetune_asr.py", parts, tmp_path, *TRAIN, ddp, *precision)
    lines = read_log(run / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(6))  # the last two as well
    assert all(line["layers"] for line in lines)
    checkpoint = sorted(run.glob("asr_epoch_*/model.pt"))[-1]

    decode = [f"++ckpt_path={checkpoint}", f"++decode_log={tmp_path}/test", *precision[1:]]
    decode += ["++dataset_config.inference_mode=true", "++train_config.val_batch_size=3"]
    launch("asr_librispeech", "inference_asr_batch.py", parts, tmp_path, *decode)
    assert len((tmp_path / "test_pred").read_text().splitlines()) == 9


@pytest.mark.slow
@pytest.mark.distributed
def test_the_recipes_deepspeed_entry_runs(parts, tmp_path):
    """ZeRO-3 as its own settings have it, in bf16: DeepSpeed has no fp16 on a CPU."""
    pytest.importorskip("deepspeed")
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": 3},
    }
    (tmp_path / "zero.json").write_text(json.dumps(settings))
    overrides = ["++train_config.enable_deepspeed=true", f"++deepspeed_config={tmp_path}/zero.json"]
    launch("asr_librispeech", "deepspeed_finetune_asr.py", parts, tmp_path, *overrides, *TRAIN)
    lines = read_log(tmp_path / "run" / "metrics.jsonl")
    assert len(lines) >= 2 and all(line["layers"] for line in lines)
    checkpoint = sorted((tmp_path / "run").glob("asr_epoch_*/pytorch_model.bin"))[-1]
    model, _ = built(recipe("asr_librispeech", parts, tmp_path), ckpt=checkpoint)
    carried = model.encoder_projector.language_bias.biases["es"]
    torch.testing.assert_close(carried, LanguageBias.load(parts.bias).biases["es"])


TRAIN = [
    "++train_config.num_epochs=1",
    "++train_config.warmup_steps=1",
    "++train_config.validation_interval=2",
    "++train_config.batch_size_training=1",
    "++train_config.val_batch_size=2",
]


def launch(name: str, script: str, parts, tmp_path: Path, *overrides: str) -> None:
    """The recipe's own script, with our model and dataset by the ready file and its options."""
    options = {"projector": PROJECTOR, "language_bias": {"path": parts.bias}}
    options["dataset"] = {"prompt": "USER : ", "check_audio": False}
    (tmp_path / "potsa.yaml").write_text(json.dumps(options))  # JSON is YAML
    runner = tmp_path / "runner.py"
    # What `torchrun -m slam_potsa.stand_ins` runs.
    runner.write_text("import sys; from slam_potsa.stand_ins import run; run(sys.argv[1:])")
    data = {"train_data_path": parts.manifest, "val_data_path": parts.manifest}
    train = {"output_dir": f"{tmp_path}/run", "model_name": "asr", "batching_strategy": "custom"}
    given = {
        "model_config": {"file": f"{READY}:model_factory", **model_options(parts)},
        "dataset_config": {"file": f"{READY}:get_speech_dataset", **data, "input_type": "mel"}
        | {"fix_length_audio": 4},
        "train_config": {**train, **FROZEN, "num_workers_dataloader": 0},
        "log_config": {"log_file": f"{tmp_path}/log/train.log"},
    }
    line = [SOURCE.parent / "examples" / name / script, "--config-path", "conf"]
    line += ["--config-name", "prompt.yaml", f"hydra.run.dir={tmp_path}/hydra"]
    line += [f"++{place}.{k}={v}" for place, own in given.items() for k, v in own.items()]
    slam_llm.launch(runner, [*line, *overrides], cwd=tmp_path)
