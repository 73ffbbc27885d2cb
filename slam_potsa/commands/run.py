"""`slam-potsa run recipe=NAME`: a recipe's stages, then its tests."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

from slam_potsa.errors import InputError

SCORES = "scores.json"


def add(commands) -> None:
    run = commands.add_parser(
        "run",
        help="train a recipe's stages in sequence, decode its tests, score them",
        description="Train a recipe's stages in sequence, each from the best checkpoint of the one "
        "before, then translate and score its tests. Stopped at any point, the same command "
        "continues; what is finished is not done again.",
    )
    run.add_argument(
        "assignments",
        nargs="+",
        metavar="key=value",
        help="recipe=NAME (conf/recipe/) or a file's path; then, for the recipe, output_dir=, "
        "processes=, launcher=, tests.NAME=; any other key for all stages, or STAGE.key for one",
    )
    run.add_argument(
        "--dry-run", action="store_true", help="print the commands and what is done; write nothing"
    )
    run.set_defaults(command=_run)


def _run(args) -> None:
    from slam_potsa.engine.launch import quieten
    from slam_potsa.engine.recipe import load_recipe
    from slam_potsa.engine.stages import check_recipe, described, run_stages

    quieten()
    named = [text for text in args.assignments if text.startswith("recipe=")]
    if len(named) != 1:
        raise InputError(f"expected one recipe=NAME among the arguments, got {len(named)}")
    overrides = [text for text in args.assignments if text not in named]
    recipe = load_recipe(named[0].removeprefix("recipe="), overrides)
    if args.dry_run:
        for stage in recipe.stages:
            _say("\n".join(described(recipe, stage)))
        for test, (prefix, manifest) in tests_of(recipe).items():
            _say(f"== {test}: {manifest} -> {prefix}_predictions.jsonl")
        check_recipe(recipe, recordings=False)
        return
    check_recipe(recipe)
    # A scheduler's SIGTERM ends the stage's processes too, and leaves everything resumable.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    run_stages(recipe, say=_say)
    decode_tests(recipe)
    score_tests(recipe)


def tests_of(recipe) -> dict[str, tuple[Path, str]]:
    """The prefix of each test's files, and its manifest."""
    folder = recipe.stages[-1].folder
    return {test: (folder / test, manifest) for test, manifest in recipe.tests.items()}


def decoding_config(recipe):
    """The last stage as the recipe has it now, with its best model, which carries its biases."""
    from slam_potsa.engine.run_directory import best_checkpoint

    last = recipe.stages[-1]
    bias = replace(last.config.language_bias, path=None)
    return replace(last.config, ckpt_path=str(best_checkpoint(last.folder)), language_bias=bias)


def decode_tests(recipe) -> None:
    """Translate the tests with the last stage's best model, where that has not been done yet.

    It has where weights, options, prompts, task and manifest are those of `<test>.done.json`.
    """
    from slam_potsa.engine.decode import decode_to, why_decode

    config = decoding_config(recipe)
    for test, (prefix, manifest) in tests_of(recipe).items():
        if reasons := why_decode(prefix, config, manifest):
            _say(f"== decoding {test}: {manifest} ({'; '.join(reasons)})")
            decode_to(prefix, config, manifest, processes=recipe.processes)


def score_tests(recipe) -> None:
    """Print a table a test, and write them as `scores.json` into the last stage's folder."""
    from slam_potsa.data.manifest import read_manifest
    from slam_potsa.data.predictions import read_predictions
    from slam_potsa.engine.decode import predictions_file
    from slam_potsa.evaluation.scores import score
    from slam_potsa.files import atomic_write

    last = recipe.stages[-1]
    data = last.config.dataset_config
    rows = read_manifest(data.train_data_path, needs=())
    heard = {row.language for row in rows if row.audio} - {*data.joining}
    tables = {}
    for test, (prefix, _) in tests_of(recipe).items():
        predictions = read_predictions(predictions_file(prefix))
        languages = {prediction.language for prediction in predictions}
        tables[test] = score(
            predictions, seen=sorted(languages & heard), zero_shot=sorted(languages - heard)
        )
        _say(f"\n{test}\n{tables[test].text()}")
    content = {test: table.as_dict() for test, table in tables.items()}
    path = last.folder / SCORES
    atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    _say(f"\n{path}")


def _say(text: str) -> None:
    print(text, flush=True)
