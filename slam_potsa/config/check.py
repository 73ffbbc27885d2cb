"""Whether the values of a configuration are in their ranges and fit each other.

The ranges stand beside the options in their sections; what two options must have in common is here.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from slam_potsa.config.alignment import ANSWER, SPEECH, TEACHER, TEXT, AlignmentConfig
from slam_potsa.config.option import options
from slam_potsa.config.sections import (
    COT_ANSWER,
    ENCODER_PART,
    PARTS,
    PLACEHOLDER,
    TASKS,
    TEMPLATES,
    DatasetConfig,
    PotsaConfig,
)
from slam_potsa.errors import refuse

AMONG_ROWS = ("contrastive", "n_pair")  # variants that need two rows
# Distances of scores, each of the one pair of activations that are such, in the rows of `rows`.
SCORES = {"ctc": ("ctc", f"{TEXT}ids", "same"), "kl": (ANSWER, f"{TEACHER}{ANSWER}", "pairs")}
WINDOW = 1500  # encoder frames of 30 s


def check(config: Any) -> None:
    """Raise InputError with every value of `config` that is out of its range, and cross-checks."""
    problems = list(_out_of_range(config))
    if isinstance(config, AlignmentConfig):
        problems += _terms(config)
    if isinstance(config, DatasetConfig):
        problems += _task_problems(config)
    if isinstance(config, PotsaConfig):
        problems += [*_terms(config.alignment), *_cross_checks(config)]
    refuse(problems)


def _cross_checks(config: PotsaConfig) -> Iterator[str]:
    train, model, data = config.train_config, config.model_config, config.dataset_config
    if train.warmup_steps >= train.total_steps:
        yield (
            f"train_config.warmup_steps={train.warmup_steps} must be below total_steps="
            f"{train.total_steps}: the rate falls to 0 between the two"
        )
    if model.qformer_heads and model.qformer_dim % model.qformer_heads:
        yield (
            f"model_config.qformer_heads={model.qformer_heads} must divide qformer_dim="
            f"{model.qformer_dim}"
        )
    if data.fix_length_audio != model.query_len:
        yield (
            f"dataset_config.fix_length_audio={data.fix_length_audio} must equal "
            f"model_config.query_len={model.query_len}: a row has one slot a query token"
        )
    for name in ("frames_per_token", "encoder_window"):
        if getattr(data, name) != getattr(model, name):
            yield f"dataset_config.{name} must equal model_config.{name}"
    follows = {"q-former": False, "transformer-cnn": True, "window-q-former": True}
    follows = follows.get(model.encoder_projector)
    if follows is not None and follows != (model.frames_per_token > 0):
        told = f"model_config.frames_per_token={model.frames_per_token}"
        yield f"{told}: q-former reads none, set it to 0; the others need one, such as 8 or 17"
    if 0 < model.query_len * model.frames_per_token < WINDOW:
        most = f"{-(-WINDOW // model.frames_per_token)} tokens of frames_per_token"
        yield f"model_config.query_len={model.query_len}: 30 s are up to {most}"
    by_token = (".ids", "ctc", "projector")  # whose masks follow the audio
    sides = [s for s in config.alignment.sides if "llm." not in s and not s.endswith(by_token)]
    if sides and model.frames_per_token:
        yield f"alignment over {sides[0]}: its length is the audio's there; compare llm.* instead"
    yield from paired_terms(config.alignment, data, train.batch_size_training)
    yield from _joining_problems(config)
    yield from _bias_problems(config)
    yield from _task_problems(data)
    yield from _part_problems(config)
    if train.enable_deepspeed or config.engine == "slam_llm":
        yield from native_only(config)
    stored = data.feature_store is not None
    if stored and data.attend_padding:
        yield "dataset_config.attend_padding=true needs audio: a feature store holds no padding"
    if stored and not train.freeze_encoder:
        yield (
            "dataset_config.feature_store is what the encoder gave before it trained: set it to "
            "null, or take the encoder out of train_config.train_parts"
        )
    if not stored and not model.load_encoder:
        yield "model_config.load_encoder=false needs dataset_config.feature_store"
    if config.decode.num_return_sequences > config.decode.num_beams:
        yield (
            f"decode.num_return_sequences={config.decode.num_return_sequences}: expected at most "
            f"num_beams={config.decode.num_beams}, the answers that beam search compares"
        )
    if train.use_fp16 and config.native.bf16:
        yield "train_config.use_fp16 and native.bf16: choose one"
    if train.quantization and not train.freeze_llm:
        yield "train_config.quantization=true: int8 is fixed; llm in train_parts is llm.lora then"
    if "/" not in config.log_config.log_file:
        yield f"log_config.log_file={config.log_config.log_file!r} must contain a folder"
    if not train.freeze_encoder and config.language_bias.enabled:
        yield (
            "language_bias.enabled=true while the encoder trains (train_config.train_parts): its "
            "biases go stale at every step; set it to false, and to true in a later stage"
        )


def _part_problems(config: PotsaConfig) -> Iterator[str]:
    """What trains: something, nothing twice; what is new, and rates of what trains alone."""
    train, parts = config.train_config, config.train_config.train_parts
    where = f"train_config.train_parts={parts}"
    for part in parts:
        if part not in PARTS and not ENCODER_PART.fullmatch(part):
            yield f"{where}: found {part!r}, expected some of {', '.join(PARTS)}, encoder.last_N"
    families = [part.partition(".")[0] for part in parts]
    if not parts:
        yield f"{where}: nothing would train; name some of {', '.join(PARTS)}, encoder.last_N"
    if len(set(families)) < len(families):
        yield f"{where}: expected each of projector, encoder and llm once"
    if parts and "projector" not in parts and not config.ckpt_path:
        yield f"{where}: a new projector would stay random; train it, or give ckpt_path"
    moved_by = {"encoder": {"encoder"}, "teacher": set(), "text": set(), "llm": {*families}}
    for name, term in config.alignment.active.items():
        sides = (term.first, term.second) if term.detach == "none" else (term.first,)
        taps = [side.removeprefix(SPEECH).partition(".")[0] for side in sides]
        if not any({*families} & moved_by.get(tap, {"projector", "encoder"}) for tap in taps):
            yield f"alignment.terms.{name} moves nothing: {where}; add projector, or alignment=none"
    for name, frozen in (("encoder", train.freeze_encoder), ("llm", "llm" not in families)):
        if getattr(train, f"{name}_lr") is not None and frozen:
            yield f"train_config.{name}_lr is not read: {name} is not in train_parts; null it"


def native_only(config: PotsaConfig) -> Iterator[str]:
    """What is set that SLAM-LLM's loops have nothing for."""
    train, bias = config.train_config, config.language_bias
    rates = {"train_config.encoder_lr": train.encoder_lr, "train_config.llm_lr": train.llm_lr}
    rates |= {"language_bias.lr": bias.lr}
    if given := [name for name, rate in rates.items() if rate is not None]:
        told = f"{', '.join(given)}: SLAM-LLM has one rate for all that trains"
        yield f"{told}; null it, or set engine=native"
    if train.quantization:
        yield (
            "train_config.quantization=true needs engine=native: SLAM-LLM would cast the model, "
            "which an LLM in 8 bits does not survive"
        )


def _bias_problems(config: PotsaConfig) -> Iterator[str]:
    bias, train = config.language_bias, config.train_config
    if bias.lr is not None and not bias.trained:
        yield "language_bias.lr is not read: set language_bias.trained=true, or null it"
    if bias.trained and not (bias.enabled and "projector" in train.train_parts):
        yield (
            "language_bias.trained=true: the table is a part of the projector; it needs "
            "language_bias.enabled=true and projector in train_config.train_parts"
        )


def _task_problems(data: DatasetConfig) -> Iterator[str]:
    for task in dict.fromkeys(data.tasks):
        if task not in TASKS:
            yield f"dataset_config.tasks: found {task!r}, expected some of {', '.join(TASKS)}"
    if not data.tasks:
        yield f"dataset_config.tasks=[]: expected some of {', '.join(TASKS)}"
    shares, where = data.task_shares, f"dataset_config.task_shares={data.task_shares}"
    if shares and (len(shares) != len(data.tasks) or len(set(data.tasks)) < len(data.tasks)):
        yield f"{where}: expected one share for each of tasks={data.tasks}, none listed twice"
    if shares and min(shares) <= 0:
        yield f"{where}: expected numbers above 0; leave a task out of tasks that is to have none"
    if shares and data.joining:
        yield f"{where}: not with dataset_config.joining, whose joining_share it would break"
    yield from _template_problems(data)


def _template_problems(data: DatasetConfig) -> Iterator[str]:
    """What is wrong with prompts and answer, each with what is allowed there."""
    for name, allowed in TEMPLATES.items():
        known = ", ".join(f"{{{placeholder}}}" for placeholder in allowed)
        for found in dict.fromkeys(PLACEHOLDER.findall(getattr(data, name))):
            if found not in allowed:
                told = f"unknown placeholder {{{found}}}; known are {known}"
                yield f"dataset_config.{name}: {told}"
    answer = data.cot_answer
    once = all(answer.count(f"{{{name}}}") == 1 for name in ("transcript", "target"))
    if not (once and COT_ANSWER.fullmatch(answer)):
        yield (
            f"dataset_config.cot_answer={answer!r}: expected {{transcript}}, a marker, then "
            "{target}, each once: decoding splits the model's text at the marker"
        )


def _terms(alignment: AlignmentConfig) -> Iterator[str]:
    """What is wrong with each term, and with the schedule, by itself."""
    schedule = alignment.schedule
    if schedule.temperature_decay < 1 and not schedule.temperature_floor:
        yield (
            f"alignment.schedule.temperature_decay={schedule.temperature_decay} needs "
            "temperature_floor > 0: the temperature would fall to 0"
        )
    if not alignment.active and not alignment.cross_entropy_weight:
        yield "alignment.cross_entropy_weight=0 and no term: there is nothing to train on"
    for name, term in alignment.terms.items():
        where = f"alignment.terms.{name}"
        if not term.distance:
            yield (
                f"{where}.distance is not set: choose a term by its file (alignment={name}, or "
                f"alignment=[ot,{name}]) before one of its options, or give it a distance"
            )
        elif term.weight is None and alignment.cross_entropy_weight > 1:
            yield (
                f"alignment.cross_entropy_weight={alignment.cross_entropy_weight}: expected "
                f"AI-STA's alpha, at most 1, where {where}.weight is null; or give that a number"
            )
        elif term.variant == "debiased" and term.weight != 0 and term.distance != "ot":
            yield f"{where}.variant=debiased needs distance=ot: it is a Sinkhorn divergence"
        elif term.variant == "debiased" and term.weight != 0 and term.marginal_penalty is not None:
            yield f"{where}.variant=debiased needs marginal_penalty=null"
        elif term.solver == "triton" and find_spec("triton") is None:
            yield f"{where}.solver=triton: pip install triton, or set it to torch"
        for distance, (*sides, rows) in SCORES.items():
            over = sides == [term.first, term.second] and rows == term.rows
            if over != (term.distance == distance):
                told = f"first={sides[0]}, second={sides[1]} and rows={rows}"
                yield f"{where}: distance={distance}, {told} belong together"
            elif term.distance == distance and (term.variant, term.tokens) != ("plain", "raw"):
                yield f"{where}.distance={distance} needs variant=plain and tokens=raw"


def paired_terms(alignment: AlignmentConfig, data: DatasetConfig, size: int) -> Iterator[str]:
    """Terms that compare a row with its partner's, against the pairs of a batch of `size` items."""
    for name, term in alignment.active.items():
        where, of = f"alignment.terms.{name}", "pair" if term.rows == "pairs" else "row"
        alone = size < 2 and (of == "pair" or data.pairing == "none")
        if term.variant in AMONG_ROWS and alone:
            yield (
                f"{where}.variant={term.variant} compares the {of}s of a micro-step, and "
                f"train_config.batch_size_training={size} is one {of}: set it to 2 or more"
            )
        if of == "row":
            continue
        if data.pairing == "none":
            yield f"{where} needs pairs: dataset_config.pairing=random, or alignment=none"
        if term.detach == "second" and data.pairing not in ("anchor", "joining"):
            yield f"{where}.detach=second needs dataset_config.pairing=anchor, or joining"


def _joining_problems(config: PotsaConfig) -> Iterator[str]:
    """Languages without targets need something to learn from: pairs, and a term over them."""
    data = config.dataset_config
    if data.pairing == "joining" and not data.joining:
        yield "dataset_config.pairing=joining needs the languages: dataset_config.joining=[it]"
    if data.joining and data.pairing == "none":
        yield "dataset_config.joining needs pairs: set dataset_config.pairing=joining"
    if data.joining and not any(term.rows == "pairs" for term in config.alignment.active.values()):
        yield (
            f"dataset_config.joining={data.joining}: without targets only alignment teaches these "
            "languages, and no term of alignment compares pairs: choose one, such as alignment=join"
        )
    batch = config.train_config.batch_size_training
    if data.bucket not in (0, batch):
        yield f"dataset_config.bucket={data.bucket}: expected 0 or batch_size_training={batch}"
    if data.bucket and (data.joining or data.task_shares):
        yield "dataset_config.bucket: not with joining or task_shares, which order items themselves"
    if data.joining_share and not data.joining:
        yield f"dataset_config.joining_share={data.joining_share} needs dataset_config.joining"
    alignment = config.alignment
    if any(side.startswith(TEACHER) for side in alignment.sides) != bool(alignment.teacher):
        yield (
            "alignment.teacher and terms over teacher.* belong together: give the checkpoint that "
            "such a term compares with, or a term such as alignment=join"
        )
    trains_llm = any(part.startswith("llm") for part in config.train_config.train_parts)
    joins = data.joining and data.pairing == "joining"
    if ANSWER in alignment.sides and (trains_llm or not joins):
        yield (
            "alignment over answer: its teacher is a projector before an LLM that stays as it is, "
            "for languages that join: take llm out of train_config.train_parts, and set "
            "dataset_config.joining and pairing=joining"
        )
    if alignment.teacher == "ckpt_path" and not config.ckpt_path:
        yield "alignment.teacher=ckpt_path needs ckpt_path, the model.pt of a finished training"
    if alignment.teacher_decay != AlignmentConfig().teacher_decay and not alignment.averages:
        yield f"alignment.teacher_decay={alignment.teacher_decay} needs alignment.teacher=ema"


def _out_of_range(config: Any) -> Iterator[str]:
    for name, value, limits in options(config):
        choices, low, high = limits["choices"], limits["low"], limits["high"]
        if choices and value not in choices:
            yield f"{name}={value!r}: expected one of {', '.join(map(repr, choices))}"
        elif value is not None and low is not None and not value >= low:
            yield f"{name}={value!r}: expected at least {low} ({limits['help']})"
        elif value is not None and high is not None and not value <= high:
            yield f"{name}={value!r}: expected at most {high} ({limits['help']})"
