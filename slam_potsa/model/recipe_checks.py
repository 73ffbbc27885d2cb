"""What cannot work in a recipe of SLAM-LLM's, told before a model is loaded."""

from __future__ import annotations

import os
import re
import runpy
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slam_potsa.config import AlignmentConfig, DatasetConfig
from slam_potsa.config.alignment import TEXT
from slam_potsa.config.check import paired_terms
from slam_potsa.data.manifest import read_manifest
from slam_potsa.errors import collecting
from slam_potsa.model.language_bias import LanguageBias

KNOWS_LANGUAGES = re.compile("slam_potsa|language_ids")  # text of a dataset's file


def calling_pipeline() -> Mapping[str, Any]:
    """The variables of SLAM-LLM's pipeline that calls (its factory is not told dataset_config and
    fsdp_config), and `trains`; {} where none does."""
    frame = sys._getframe()
    while frame := frame.f_back:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("slam_llm.pipeline."):
            return {**frame.f_locals, "trains": "finetune" in module}
    return {}


def recipe_problems(
    train: Any,
    recipe: Any,
    pipeline: Mapping[str, Any],
    *,
    queries: int,
    bias: LanguageBias | None,
    alignment: AlignmentConfig,
) -> Iterator[str]:
    """What is wrong with a recipe's sections for a projector of `queries` tokens an utterance.

    `pipeline` is what `calling_pipeline` found.
    """
    strategy, processes = train.batching_strategy, int(os.environ.get("WORLD_SIZE", "1"))
    if pipeline.get("trains") and strategy in ("padding", "packing"):
        yield (
            f"train_config.batching_strategy={strategy!r}: SLAM-LLM then ignores the dataset's own "
            "collator, and pairs and languages are lost; set it to custom"
        )
    if pipeline.get("trains") and strategy == "dynamic" and processes > 1:
        yield (
            "train_config.batching_strategy='dynamic': ranks get unequal numbers of batches, and "
            f"one of these {processes} would wait for the others for ever; set it to custom"
        )
    casts = getattr(pipeline.get("fsdp_config"), "pure_bf16", False)
    if casts and "whisper" in str(recipe.encoder_name) and not recipe.encoder_path_hf:
        yield (
            "fsdp_config.pure_bf16=true: openai-whisper's LayerNorm fails in bfloat16; give the "
            "folder of a transformers Whisper as ++model_config.encoder_path"
        )
    if (data := pipeline.get("dataset_config")) is not None:
        terms = alignment if pipeline.get("trains") else AlignmentConfig(terms={})
        yield from _dataset(data, queries, bias, terms, train)


def _dataset(
    data: Any, queries: int, bias: LanguageBias | None, alignment: AlignmentConfig, train: Any
) -> Iterator[str]:
    file, _, name = str(data.file).partition(":")
    text = Path(file).read_text(encoding="utf-8") if Path(file).is_file() else ""
    if text and bias is not None and not KNOWS_LANGUAGES.search(text):
        yield (
            f"dataset_config.file={str(data.file)!r}: its batches hold no language_ids, which the "
            "biases need: name a file with drop_in.dataset_factory or drop_in.with_languages, or "
            'switch compensation off with language_bias={"enabled": False}'
        )
    problems: list[str] = []
    with collecting(problems):
        ours = runpy.run_path(file).get(name) if "slam_potsa" in text else None
        settings = ours.settings(data) if hasattr(ours, "settings") else None
        found = vars(settings) if settings else data
        if (slots := found.get("fix_length_audio")) != queries:
            told = f"dataset_config.fix_length_audio={slots}, one a query token: give ++"
            problems.append(f"{told}dataset_config.fix_length_audio={queries}")
        if bias is not None:  # SLAM-LLM's own datasets mark the whole window
            bias.check_frames(found.get("attend_padding", True))
        problems += _terms(alignment, settings, train.batch_size_training)
    yield from problems


def _terms(alignment: AlignmentConfig, data: DatasetConfig | None, size: int) -> Iterator[str]:
    """What alignment compares must be in the batches: pairs, and transcripts; None: not ours."""
    has_text = any(side.startswith(TEXT) for side in alignment.sides)
    if data is None and has_text:
        yield "alignment: terms over text.* need our dataset, which holds transcripts"
    elif has_text:
        read_manifest(data.train_data_path, needs=["transcript"])
    for problem in paired_terms(alignment, data or DatasetConfig(pairing="none"), size):
        yield f"{problem}; in potsa.yaml `dataset: {{pairing: …}}` or `alignment: {{terms: {{}}}}`"
