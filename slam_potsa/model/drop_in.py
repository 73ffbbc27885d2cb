"""Our projector and objective inside SLAM-LLM's own recipes: base class `slam_model`, its encoders.

The recipes refuse unknown keys, so options come through a short file of the user's, which the
recipe loads by `model_config.file=potsa.py:model_factory` (and, where pairs are wanted,
`dataset_config.file=potsa.py:get_speech_dataset`):

    from slam_potsa.model.drop_in import dataset_factory, factory
    model_factory = factory(language_bias={"path": "language_bias.safetensors"})
    get_speech_dataset = dataset_factory(tasks=["s2tt"], prompt="USER: Translate.\n ASSISTANT: ")

`slam-potsa where drop-in` names such a file that takes the options from potsa.yaml (`from_yaml`).
"""

from __future__ import annotations

import atexit
import inspect
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from slam_potsa import config, stand_ins
from slam_potsa.config.check import check
from slam_potsa.data import dataset as datasets
from slam_potsa.data.languages import language_id
from slam_potsa.data.tasks import USES
from slam_potsa.errors import InputError, collecting, placed, refuse
from slam_potsa.files import alone
from slam_potsa.model.checkpoint import choose_bias, continue_from, read_checkpoint
from slam_potsa.model.encoder import SpeechEncoder
from slam_potsa.model.factory import PROJECTOR_OPTIONS, attach, build_projector
from slam_potsa.model.llm import load_llm
from slam_potsa.model.recipe_checks import calling_pipeline, recipe_problems
from slam_potsa.model.speech_llm import IGNORE_INDEX, Aligned

# Keys of a recipe's dataset_config that mean the same in ours.
RECIPE_DATA = ("train_data_path", "val_data_path", "mel_size", "fix_length_audio", "inference_mode")
AUDIO_SLOT = -1


def factory(
    projector: Mapping[str, Any] | None = None,
    alignment: Mapping[str, Any] | None = None,
    language_bias: Mapping[str, Any] | None = None,
    ckpt_path: str | None = None,
) -> Callable[..., tuple[nn.Module, Any]]:
    """A `model_factory` for a recipe of SLAM-LLM's; what is not given keeps its default.

    Args:
        projector: some of `factory.PROJECTOR_OPTIONS`. `query_len` and `qformer_layers` default to
            those of the recipe's model_config where it has them.
        alignment, language_bias: the sections of our configuration; `{"terms": {}}` and
            `{"enabled": False}` turn them off.
        ckpt_path: a start, where the recipe names none (those for DeepSpeed refuse the key).

    Raises InputError on unknown options and on values out of range: here, before a model is loaded;
    and when SLAM-LLM calls it, for what cannot work in the recipe (`recipe_checks`).
    """
    projector = dict(projector or {})
    unknown = ", ".join(sorted(projector.keys() - set(PROJECTOR_OPTIONS)))
    if unknown:
        raise InputError(f"projector: unknown {unknown}; known are {', '.join(PROJECTOR_OPTIONS)}")
    alignment = config.defaults(config.AlignmentConfig, alignment)
    biased = config.defaults(config.LanguageBiasConfig, language_bias)
    if alignment.teacher:
        raise InputError("alignment.teacher is ours alone: a language joins by examples/potsa/")
    if biased.trained or biased.lr is not None:
        raise InputError("language_bias.trained and lr are ours alone: see examples/potsa/")
    for section in (alignment, biased, config.defaults(config.ModelConfig, projector)):
        check(section)

    def model_factory(train_config: Any, model_config: Any, **rest: Any) -> tuple[nn.Module, Any]:
        stand_ins.install()
        from slam_llm.models.slam_model import setup_llm, setup_tokenizer, slam_model
        from slam_llm.utils.train_utils import print_model_size

        if biased.enabled and not train_config.freeze_encoder:
            raise InputError(
                "language biases of a trained encoder go stale: set "
                'train_config.freeze_encoder=true, or factory(language_bias={"enabled": False})'
            )
        recipe, checkpoint = _completed(model_config), rest.get("ckpt_path") or ckpt_path
        state = read_checkpoint(checkpoint) if checkpoint else None
        bias, pipeline = choose_bias(biased, state), calling_pipeline()
        taken = [name for name in ("query_len", "qformer_layers") if recipe.get(name) is not None]
        sizes = {name: int(recipe[name]) for name in taken}
        sized = config.defaults(config.ModelConfig, sizes | projector)
        asked = {"queries": sized.query_len, "bias": bias}
        refuse(recipe_problems(train_config, recipe, pipeline, alignment=alignment, **asked))
        if pipeline.get("trains") and os.environ.get("RANK", "0") == "0":
            held = ExitStack()
            held.enter_context(alone(train_config.output_dir))
            atexit.register(held.close)
        tokenizer = setup_tokenizer(train_config, recipe, **rest)
        encoder = _their_encoder(train_config, recipe, **rest)
        load = setup_llm if int(version("transformers").split(".")[0]) < 5 else _setup_llm
        llm = load(train_config, recipe, **rest)
        llm_dim = llm.get_input_embeddings().weight.shape[1]
        built = build_projector(sized, recipe.encoder_dim, llm_dim, language_bias=bias)
        kind = type("AlignedSlamModel", (AlignedForward, slam_model), {})
        model = kind(encoder, llm, built, tokenizer, train_config, recipe, **rest)
        attach(model, alignment, train_config, rest.get("deepspeed_config"))
        if state is not None:
            continue_from(model, state, checkpoint)
        if pipeline.get("trains"):  # nothing tells the end: the last steps are still to be read
            atexit.register(model.controller.flush)
        print_model_size(model, train_config, int(os.environ.get("RANK", "0")))
        return model, tokenizer

    return model_factory


def dataset_factory(**options: Any) -> Callable[..., datasets.SpeechTranslationDataset]:
    """A dataset function with parallel pairs and language ids for a recipe of SLAM-LLM's.

    The recipe's RECIPE_DATA are kept, and its `prompt`, in the frame that SLAM-LLM puts around it,
    asks for the one task that `tasks` names. `options` are keys of our dataset_config and win.
    """
    config.defaults(config.DatasetConfig, options)  # unknown keys are refused here

    def settings(dataset_config: Any) -> config.DatasetConfig:
        if dataset_config.get("input_type", "mel") != "mel":
            raise InputError("slam_potsa's dataset makes mel: dataset_config.input_type=mel")
        kept = {name: dataset_config.get(name) for name in RECIPE_DATA}
        kept = {name: value for name, value in kept.items() if value is not None}
        kept |= _recipes_prompt(dataset_config.get("prompt"), options)
        data = config.defaults(config.DatasetConfig, {**kept, **options})
        if data.encoder_window != "30s":
            raise InputError("SLAM-LLM's encoders get no mask: use encoder_window=30s")
        check(data)
        return data

    def get_speech_dataset(dataset_config: Any, tokenizer: Any, split: str):
        return datasets.get_speech_dataset(settings(dataset_config), tokenizer, split)

    get_speech_dataset.settings = settings  # for `recipe_problems`, before models are loaded
    return get_speech_dataset


def _recipes_prompt(prompt: str | None, options: Mapping[str, Any]) -> dict[str, str]:
    """The option that the recipe's prompt becomes: that of the one task that is trained."""
    asked = [
        USES[task][0] for task in dict.fromkeys(options.get("tasks", ["s2tt"])) if task in USES
    ]
    open_ = [name for name in asked if name not in options]
    if not prompt or not open_:
        return {}
    if len(asked) > 1 or "tasks" not in options:
        raise InputError(
            f"the recipe's prompt is {prompt!r}: say what it asks for, tasks: [asr] (answered by "
            f"transcripts) or [s2tt] (by targets), or give prompts of your own: {', '.join(open_)}"
        )
    return {open_[0]: f"USER: {prompt}\n ASSISTANT:"}


def with_languages(
    get_dataset: Callable[..., Any], key: str | Callable[[Any], str] = "language"
) -> Callable[..., Dataset]:
    """A recipe's own dataset function, made to batch `language_ids`.

    `get_dataset` makes a dataset that holds its rows as `data_list`, as SLAM-LLM's do; `key` is the
    field of a row with its language's code, or makes the code of a row. Raises InputError, when the
    dataset is made, with rows that have none.
    """
    code = key if callable(key) else lambda row: row.get(key)
    return lambda *arguments: _WithLanguages(get_dataset(*arguments), code)


class _WithLanguages(Dataset):
    def __init__(self, dataset: Any, code: Callable[[Any], str]):
        problems, self.dataset, self.languages = [], dataset, []
        for number, row in enumerate(dataset.data_list):
            with collecting(problems, f"row {number}"):
                self.languages.append(language_id(code(row)))
        refuse(problems[:20])

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.dataset[index], self.languages[index]

    def collator(self, samples: Any) -> dict[str, Any]:
        rows, languages = zip(*samples, strict=True)
        return {**self.dataset.collator(list(rows)), "language_ids": torch.tensor(languages)}


def from_yaml(path: str = "potsa.yaml") -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(model_factory, dataset function) by the options of a file in the working directory: the
    arguments of `factory`, and as `dataset` those of `dataset_factory`."""
    import yaml

    known, place = [*inspect.signature(factory).parameters, "dataset"], Path(path).absolute()
    try:
        given = yaml.safe_load(place.read_text(encoding="utf-8")) or {}
        unknown = sorted(given.keys() - set(known))
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise InputError(f"{place}: {error}; expected YAML, some of {', '.join(known)}") from None
    with placed(place):
        refuse(f"unknown {name}; known are {', '.join(known)}" for name in unknown)
        data = dataset_factory(**given.pop("dataset", None) or {})
        return factory(**given), data


class AlignedForward(Aligned):
    """What is put before SLAM-LLM's `slam_model`: languages in, the loss of eq. 4 out."""

    _slots_checked = False

    def forward(self, **batch: Any) -> tuple[Any, Any]:
        """As `slam_model.forward`, by keyword, with `language_ids`, `pairs` and `sentence_ids`."""
        batch, labels = self._fitted(batch), batch.get("labels")
        training = self._is_training_step(labels)
        languages, pairs = batch.get("language_ids"), batch.get("pairs")
        about = ("sentence_ids", "modality_mask", "transcript_ids")
        self.controller.begin(languages, pairs, training, *map(batch.get, about))
        outputs, accuracy = super().forward(**batch)
        if batch.get("inference_mode"):
            return outputs, accuracy  # embeddings and mask, for `generate`
        if training:
            targets = (labels[:, 1:] != IGNORE_INDEX).sum()
            tokens = batch["attention_mask"].sum()
            outputs.loss = self.controller.end(outputs.loss, targets, tokens, batch.get("keys", ()))
        return outputs, torch.as_tensor(accuracy, device=outputs.logits.device)

    def _fitted(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A copy with inputs in the encoder's precision and the audio slots marked."""
        batch = dict(batch)
        speech = [name for name in ("audio_mel", "audio") if batch.get(name) is not None]
        reader = self.encoder_projector if self.encoder is None else self.encoder
        for name in speech:
            batch[name] = batch[name].to(next(reader.parameters()).dtype)
        if speech and batch.get("modality_mask") is None:
            # st_covost2's dataset leaves them as -1 for a model that counts on 80 in front.
            batch["modality_mask"] = batch["input_ids"] == AUDIO_SLOT
        if batch.get("input_ids") is not None:
            batch["input_ids"] = batch["input_ids"].clone()  # slam_model edits them in place
        if speech and not self._slots_checked:
            self._check_slots(batch["modality_mask"])
        return batch

    def _check_slots(self, modality_mask: Tensor) -> None:
        """Once: later batches come from the same dataset, and a look at them waits for the GPU."""
        self._slots_checked = True
        slots, queries = int(modality_mask.sum(1).max()), self.encoder_projector.query.shape[1]
        if slots != queries:
            raise InputError(
                f"the batch has {slots} audio slots a row, the projector {queries} query tokens: "
                f"set dataset_config.fix_length_audio={queries}"
            )


def _their_encoder(train_config: Any, recipe: Any, **rest: Any) -> nn.Module | None:
    """SLAM-LLM's encoder; a bare transformers one gets the method that `slam_model` calls."""
    from slam_llm.models.slam_model import setup_encoder

    encoder = setup_encoder(train_config, recipe, **rest)
    is_bare = not hasattr(encoder, "extract_variable_length_features")
    if encoder is not None and recipe.encoder_path_hf and is_bare:
        return SpeechEncoder(encoder)
    return encoder


def _completed(model_config: Any) -> Any:
    """A copy with the keys that SLAM-LLM reads and its recipes' typed sections lack.

    A folder as `encoder_path` is a transformers one: asr_librispeech knows no `encoder_path_hf`.
    `encoder_projector` is "q-former" whatever the recipe says: by this name `slam_model` hands the
    projector the mask.
    """
    from omegaconf import OmegaConf

    lacking = {"whisper_decode": False, "encoder_path_hf": None, "encoder_path": None}
    given = OmegaConf.to_container(OmegaConf.create(model_config), resolve=True)
    if Path(given.get("encoder_path") or "-").is_dir():
        lacking["encoder_path_hf"] = given["encoder_path"]
    given = {name: value for name, value in given.items() if value is not None}
    return OmegaConf.create({**lacking, **given, "encoder_projector": "q-former"})


def _setup_llm(train_config: Any, model_config: Any, **rest: Any) -> nn.Module:
    """SLAM-LLM's setup_llm passes arguments that transformers 5 refuses; this does the same job."""
    from peft import PeftModel, get_peft_model
    from slam_llm.utils.config_utils import generate_peft_config

    name = model_config.llm_name.lower()
    if train_config.quantization or "aya" in name or "vallex" in name:
        raise InputError(
            "train_config.quantization, Aya and VALL-E X need SLAM-LLM's own loading of the LLM: "
            "install transformers 4.57"
        )
    parts = ["projector", *([] if train_config.freeze_llm else ["llm"])]
    train = config.TrainConfig(train_parts=parts)
    # float32 as transformers 4 loads it there: SLAM-LLM's autocast or pure_bf16 decide the rest.
    llm = load_llm(train, config.ModelConfig(llm_path=model_config.llm_path, llm_dtype="float32"))
    if train_config.enable_ddp or train_config.enable_fsdp:
        llm.config.use_cache = False
    if rest.get("peft_ckpt"):
        return PeftModel.from_pretrained(llm, rest["peft_ckpt"], is_trainable=True)
    return get_peft_model(llm, generate_peft_config(train_config)) if train_config.use_peft else llm
