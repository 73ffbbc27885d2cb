"""The model of a configuration: its parts, and the controller with schedule and terms (eq. 3-7).

`model_factory` has the signature that SLAM-LLM calls.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slam_potsa import config
from slam_potsa.data.pairs import EpochCounter
from slam_potsa.errors import InputError
from slam_potsa.model.carried_state import CARRIED, carried_names
from slam_potsa.model.checkpoint import (
    BIAS,
    apply_checkpoint,
    carried_bias,
    choose_bias,
    continue_from,
    read_checkpoint,
    require_parts,
)
from slam_potsa.model.controller import AlignmentController
from slam_potsa.model.encoder import adapt_encoder, load_encoder
from slam_potsa.model.language_bias import LanguageBias
from slam_potsa.model.llm import llm_dtype, load_llm, load_tokenizer, unwrapped
from slam_potsa.model.metrics import METRICS, MetricsLog
from slam_potsa.model.speech_llm import SpeechLLM
from slam_potsa.model.taps import Teacher, llm_blocks
from slam_potsa.objective.distances import Distance, build_distance
from slam_potsa.objective.layer_schedule import LayerSchedule, candidate_layers
from slam_potsa.objective.terms import AlignmentObjective, AlignmentTerm
from slam_potsa.objective.transport import TransportOptions
from slam_potsa.objective.variants import build_variant
from slam_potsa.registry import PROJECTORS, resolve

# Keys of model_config that are a projector's arguments.
PROJECTOR_OPTIONS = ["query_len", "qformer_layers", "qformer_dim", "qformer_heads"]
PROJECTOR_OPTIONS += ["qformer_dropout", "frames_per_token"]
_BUILT: list[SpeechLLM] | None = None


def model_factory(train_config: Any, model_config: Any, **rest: Any) -> tuple[nn.Module, Any]:
    """SLAM-LLM's factory: `(model, tokenizer)` from its two sections and the top-level keys.

    Of `rest`, `language_bias`, `alignment`, `decode`, `deepspeed_config`, `ckpt_path` and
    `continue_schedule` (see `continue_from`) are read. Raises InputError on unknown keys in these
    sections and on checkpoints or biases that do not fit.
    """
    ignored = [*config.SLAM_ONLY["train_config"], *config.SLAM_SWITCHES]
    train = config.defaults(config.TrainConfig, train_config, ignored)
    for name in config.SLAM_SWITCHES:
        if getattr(train_config, name, own := getattr(train, name)) != own:
            raise InputError(f"train_config.{name}={not own}, but train_parts={train.train_parts}")
    model = config.defaults(config.ModelConfig, model_config)
    state = read_checkpoint(rest["ckpt_path"]) if rest.get("ckpt_path") else None
    require_parts(state or {}, train, rest.get("ckpt_path"))
    tokenizer = load_tokenizer(model.llm_path)
    llm = load_llm(train, model)
    encoder = load_encoder(model.encoder_path_hf, model.encoder_window, state)
    encoder.fingerprint()  # of the weights as they were before anything casts them
    bias = choose_bias(config.defaults(config.LanguageBiasConfig, rest.get("language_bias")), state)
    widths = {"encoder_dim": encoder.width, "llm_dim": llm.config.hidden_size}
    projector = build_projector(model, **widths, language_bias=bias)
    encoder = adapt_encoder(encoder, train.encoder_layers, llm_dtype(model.llm_dtype))
    adapt_projector(projector, train)
    decode = vars(config.defaults(config.DecodeConfig, rest.get("decode")))
    del decode["cross_entropy"]  # the decoder's, not generate's
    kept = encoder if model.load_encoder else None
    built = SpeechLLM(kept, projector, llm, tokenizer, decode)
    alignment = config.defaults(config.AlignmentConfig, rest.get("alignment"))
    if alignment.averages:
        built.teacher = Teacher(deepcopy(projector), alignment.teacher_decay)
    elif teacher := alignment.teacher_path(rest.get("ckpt_path")):
        built.teacher = load_teacher(teacher, model, **widths)
    for each in filter(None, (built, built.teacher)):
        if (table := each.encoder_projector.language_bias) is not None:
            table.check_fingerprint(encoder.fingerprint())
    attach(built, alignment, train, rest.get("deepspeed_config"))
    if state is not None:
        continue_from(built, state, rest["ckpt_path"], rest.get("continue_schedule", True))
    if alignment.averages:
        built.teacher.follow(projector, 0.0)
    if _BUILT is not None:
        _BUILT.append(built)
    return built, tokenizer


def attach(
    model: nn.Module, alignment: config.AlignmentConfig, train: Any, deepspeed_config: Any = None
) -> None:
    """Give a model, ours or SLAM-LLM's, its controller, count of epochs and, on rank 0, its log.

    `train` is our train_config or that of a recipe of SLAM-LLM's, `deepspeed_config` the path of
    DeepSpeed's own settings.
    """
    by_deepspeed = bool(getattr(train, "enable_deepspeed", False))
    accumulation = train.gradient_accumulation_steps
    if by_deepspeed and deepspeed_config:  # its own file rules where its launcher runs
        accumulation = micro_steps(json.loads(Path(str(deepspeed_config)).read_text()))
    model.controller = build_controller(
        model,
        alignment,
        seed=train.seed,
        accumulation=accumulation,
    )
    model.epochs = EpochCounter(after_validation_trains=by_deepspeed)
    if os.environ.get("RANK", "0") == "0":
        model.controller.listeners.append(MetricsLog(Path(train.output_dir) / METRICS))
    # SLAM-LLM's DDP (its Join) would overwrite buffers with the last rank's at every forward.
    model._ddp_params_and_buffers_to_ignore = carried_names(model)


def micro_steps(settings: dict[str, Any]) -> int:
    """Micro-steps an optimizer step, as DeepSpeed works them out of its file."""
    names = ("gradient_accumulation_steps", "train_batch_size", "train_micro_batch_size_per_gpu")
    steps, whole, micro = (settings.get(name) for name in names)
    if "auto" in (steps, whole, micro):
        told = f'none of {", ".join(names)} may be "auto", which only examples/potsa/ fills in'
        raise InputError(f"deepspeed_config: {told}: give numbers")
    if not steps and whole and micro:
        steps = whole // (micro * int(os.environ.get("WORLD_SIZE", "1")))
    return int(steps or 1)


@contextmanager
def models_built() -> Iterator[Sequence[SpeechLLM]]:
    """Within: the models that `model_factory` makes, where a trainer keeps them to itself."""
    global _BUILT
    _BUILT = []
    try:
        yield _BUILT
    finally:
        _BUILT = None


def build_projector(
    model: config.ModelConfig, encoder_dim: int, llm_dim: int, **options: Any
) -> nn.Module:
    """The projector registered as `model_config.encoder_projector`; `options` are its own."""
    kind = resolve(PROJECTORS, model.encoder_projector, "model_config.encoder_projector")
    taken = inspect.signature(kind).parameters
    sizes = {name: getattr(model, name) for name in PROJECTOR_OPTIONS if name in taken}
    return kind(encoder_dim, llm_dim, **sizes, **options)


def adapt_projector(projector: nn.Module, train: config.TrainConfig) -> None:
    """Freeze it where it does not train; what it carries stays among what trainers save."""
    if "projector" not in train.train_parts:
        for name, parameter in projector.named_parameters():
            parameter.requires_grad_(name.endswith(CARRIED))


def load_teacher(path: str, model: config.ModelConfig, **widths: int) -> Teacher:
    """The projector of a checkpoint, with the biases that it carries.

    A language without a bias of its own has the mean of all: it was not trained on it.

    Raises InputError where the checkpoint is of a projector of other sizes.
    """
    part, state = "encoder_projector", read_checkpoint(path)
    payload = carried_bias(state)
    bias = None if payload is None else LanguageBias.from_bytes(payload, unseen_language="mean")
    projector = build_projector(model, **widths, language_bias=bias)
    own = {n: t for n, t in state.items() if n.startswith(part) and not n.startswith(BIAS)}
    apply_checkpoint(nn.ModuleDict({part: projector}), own, f"{path} (alignment.teacher)")
    return Teacher(projector)


def build_controller(
    model: nn.Module, alignment: config.AlignmentConfig, *, seed: int = 0, **options: int
) -> AlignmentController:
    """Eq. 3-7 as configured; without terms a controller that only measures cross-entropy.

    Raises InputError where the options do not fit each other or the model's layers.
    """
    projector, llm = model.encoder_projector, unwrapped(model.llm)
    if "ctc" in alignment.sides and not hasattr(projector, "ctc_head"):
        sizes = llm.config.get_text_config()
        # Of its own, the vocabulary and a blank (AI-STA 6.3); trained and saved with the projector.
        where = next(projector.parameters()).device
        projector.ctc_head = nn.Linear(sizes.hidden_size, sizes.vocab_size + 1, device=where)
    try:
        terms = build_terms(alignment, llm)
        layers = len(projector.layers), len(llm_blocks(model.llm))
        schedule = build_schedule(alignment.schedule, terms, *layers, seed)
        return AlignmentController(
            model,
            AlignmentObjective(terms, alignment.cross_entropy_weight),
            schedule,
            diagnose_interval=alignment.diagnose_interval,
            reward=alignment.schedule.reward,
            every=alignment.schedule.every,
            **options,
        )
    except ValueError as error:
        raise InputError(f"alignment: {error}") from error


def build_schedule(
    plan: config.ScheduleConfig,
    terms: Sequence[AlignmentTerm],
    qformer_layers: int,
    llm_layers: int,
    seed: int = 0,
) -> LayerSchedule | None:
    """Eq. 5-7, or one of the rivals of Table 3; None where no term leaves its layers to it."""
    scheduled = [term for term in terms if term.is_layered and term.layers is None]
    of_llm = {"llm.{layer}" in term.first + term.second for term in scheduled}
    if not of_llm:
        return None
    if len(of_llm) > 1:
        raise ValueError(
            "terms: the schedule chooses layers of the Q-Former or of the LLM, not of both; give "
            "the terms over one of them their layers, alignment.terms.NAME.layers=[0,1]"
        )
    numbered = (llm_layers, 0) if of_llm == {True} else (qformer_layers, 1)
    candidates = candidate_layers(plan.candidates, *numbered)
    options = {**vars(plan), "candidates": candidates}
    del options["reward"], options["every"]  # which loss is reported, and when: the controller's
    return LayerSchedule(**options, seed=seed)


def build_terms(
    alignment: config.AlignmentConfig, llm: nn.Module | None = None
) -> list[AlignmentTerm]:
    """The terms that have a weight, in the configuration's order; without `llm`, to be checked."""
    same = ("first", "second", "weight", "warmup_steps", "rows", "detach", "reduction")
    return [
        AlignmentTerm(
            name=name,
            distance=_distance(term),
            layers=tuple(term.layers) or None,
            **_tokens(term, llm),
            variant=build_variant(term.variant, term.contrast_temperature),
            **{option: getattr(term, option) for option in same},
        )
        for name, term in alignment.active.items()
    ]


def _tokens(term: config.TermConfig, llm: nn.Module | None) -> dict[str, Any]:
    if term.tokens != "embedding":
        return {"tokens": term.tokens}
    if llm is None or (weight := llm.get_input_embeddings().weight.detach()).is_meta:
        return {}
    size = torch.linalg.vector_norm(weight, dtype=torch.float32)
    return {"scale": float(size) / weight.numel() ** 0.5}


def _distance(term: config.TermConfig) -> Distance:
    options = {}
    if term.distance == "ot":  # with those of its options that a term has under the same name
        names = {spec.name for spec in fields(TransportOptions)}
        options = {name: value for name, value in vars(term).items() if name in names}
        options["debias"] = term.variant == "debiased"
    return build_distance(term.distance, **options)
