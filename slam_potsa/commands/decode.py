"""`slam-potsa decode | pseudo | translate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from slam_potsa.config import DecodeConfig, PotsaConfig
from slam_potsa.data.languages import language_id
from slam_potsa.data.pieces import cut, translated, written
from slam_potsa.data.tasks import task_to_decode
from slam_potsa.engine.decode import Translator, decode_to, load_run, predictions_file
from slam_potsa.engine.launch import quieten
from slam_potsa.engine.pseudo import write_pseudo_targets
from slam_potsa.engine.share import languages
from slam_potsa.errors import InputError, collecting, placed, refuse

SEARCH = {"bias", "batch_size", "task", *(option.name for option in fields(DecodeConfig))}


def decode(
    manifest: Path,
    run: Path | None = None,
    output: str = "",
    system: str = "",
    model: str = "",
    shuffle_audio: bool = False,
    processes: int = 1,
    **search: Any,
) -> None:
    if system:
        from slam_potsa.engine.peers import decode_peer

        flags = {"batch_size": "batch-size", "bias": "bias", "num_return_sequences": "n-best"}
        unread = [flag for name, flag in flags.items() if name in search]
        unread += ["shuffle-audio"] * shuffle_audio + ["processes"] * (processes > 1)
        refuse([f"{run}: no RUN with --system, whose weights --model names"] * bool(run))
        refuse(f"--{flag}: not with --system" for flag in unread)
        if not model:
            raise InputError("--system needs --model, the folder or hub name of its weights")
        prefix = output or f"outputs/{system}/{manifest.stem}"
        asked = {"task": "s2tt", "max_new_tokens": 200, **search}
        decode_peer(system, model, manifest, prefix, **asked)
    else:
        name = manifest.stem + "_blind" * shuffle_audio
        prefix = output or str((run if run.is_dir() else Path()) / name)
        how = {"shuffle_audio": shuffle_audio, "processes": processes}
        decode_to(prefix, _configured(run, **search), manifest, **how)
    print(predictions_file(prefix))


def pseudo(run: Path, manifest: Path, output: Path, **options: Any) -> None:
    """`options` are those of `_configured` and of `write_pseudo_targets`."""
    search = {name: options.pop(name) for name in SEARCH & options.keys()}
    print(write_pseudo_targets(output, _configured(run, **search), manifest, **options))


def _configured(
    run: Path, bias: Path | None = None, batch_size: int = 0, task: str = "", **search: Any
) -> PotsaConfig:
    """The run's configuration, with what the line says; `search` are options of `decode`."""
    config = load_run(run)
    config.decode = replace(config.decode, **search)
    config.train_config.val_batch_size = batch_size or config.train_config.val_batch_size
    config.dataset_config.test_task = task or config.dataset_config.test_task
    if bias is not None:
        if not config.language_bias.enabled:
            raise InputError(
                f"--bias {bias}: {run} was trained without language biases "
                "(language_bias.enabled=false) and reads none"
            )
        config.language_bias.path = str(bias)
    return config


def translate(
    recordings: Sequence[Path],
    language: str,
    target_language: str = "",
    run: Path = Path("outputs/demo/potsa"),
    bias: Path | None = None,
    format: str = "text",
) -> None:
    """All that is wrong is said before a model is loaded."""
    quieten()
    problems, spoken = [], []
    if len(recordings) > 1 and format != "text":
        problems.append(f"--format {format}: expected one recording, got several")
    for code in filter(None, (language, target_language)):
        with collecting(problems):
            language_id(code)
    with TemporaryDirectory() as folder:
        for number, path in enumerate(recordings):
            with collecting(problems):
                spoken.append(cut(path, Path(folder, str(number)), progress=True))
        refuse(problems)
        config = _configured(run, bias)
        target = target_language or target_of(run, config)
        translator = Translator(config)
        found = translated(spoken, lambda files: translator.translate(files, language, target))
    for path, pieces in zip(recordings, found, strict=True):
        text = written(pieces, format)
        print(f"{path}\t{text}" if len(found) > 1 else text)


def target_of(run: Path, config: PotsaConfig) -> str:
    """The one language that the run was trained to translate into; "" for asr."""
    data = config.dataset_config
    if task_to_decode(data.tasks, data.test_task) == "asr":
        return ""
    with placed("--target-language is not given: the run's training manifest"):
        targets = languages(run)["written"]
    if len(targets) != 1:
        raise InputError(
            "--target-language is not given and the run was trained to translate into "
            f"{', '.join(targets) or 'none'}: give it, such as zh"
        )
    return targets[0]
