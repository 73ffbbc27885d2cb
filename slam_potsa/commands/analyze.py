"""`slam-potsa analyze`: where in a trained model do languages meet?"""

from __future__ import annotations

from pathlib import Path

from slam_potsa.errors import InputError


def add(commands) -> None:
    analyze = commands.add_parser(
        "analyze", help="R@1, 1-JSD, language probe, transport costs and rank, layer by layer"
    )
    analyze.add_argument("run", type=Path, help="output_dir of the training, or a checkpoint in it")
    analyze.add_argument(
        "manifests", nargs="+", type=Path, help="the same sentences in two languages or more"
    )
    analyze.add_argument("--against", type=Path, help="run to compare with, on the same recordings")
    analyze.add_argument("--output", type=Path, help="folder; default: analysis in the run's")
    analyze.add_argument(
        "--heard", nargs="+", help="languages of training; default: its manifest's"
    )
    analyze.add_argument("--sentences", type=int, help="analyse so many, drawn by --seed")
    analyze.add_argument("--seed", type=int, default=0)
    analyze.set_defaults(command=_analyze)


def _analyze(args) -> None:
    from slam_potsa.engine.decode import Translator
    from slam_potsa.engine.launch import quieten
    from slam_potsa.evaluation.analysis import (
        Settings,
        analyze,
        differences_text,
        figures,
        heard_in_training,
        write_analysis,
        write_figures,
    )

    quieten()
    settings = Settings(seed=args.seed, sentences=args.sentences)
    runs = [run for run in (args.run, args.against) if run is not None]
    recordings, configs = _check(runs, args, settings)
    # Both runs are grouped by what the first one heard.
    trained = (heard_in_training(config, recordings) for config in configs)
    heard = args.heard or next((languages for languages in trained if languages is not None), None)
    found = []
    for name, config in zip(_names(runs), configs, strict=True):
        translator = Translator(config)
        options = {"heard": heard, "settings": settings, "name": name}
        found.append(analyze(translator, args.manifests, progress=True, **options))
        print(f"{found[-1].text()}\n")
    if args.against:
        print(f"{differences_text(*found)}\n")
    output = args.output or _folder(args.run) / "analysis"
    write_analysis(output / "analysis.json", *found)
    write_figures(output, figures(*found))
    print(output / "analysis.json")


def _check(runs: list[Path], args, settings):
    """(recordings, configurations); InputError with all that is wrong, before a model is loaded."""
    from slam_potsa.evaluation.analysis import read_recordings, require_packages

    problems, found = [], []
    for check in (
        require_packages,
        lambda: read_recordings(args.manifests, settings, args.heard),
        *(lambda run=run: _config(run) for run in runs),
    ):
        try:
            found.append(check())
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return found[1], found[2:]


def _config(run: Path):
    """The configuration of a run directory, or of the run that a checkpoint lies in."""
    from slam_potsa.engine.decode import load_run
    from slam_potsa.engine.run_directory import MODEL

    folder = _folder(run)
    if run.is_file():
        return load_run(folder, ckpt_path=str(run))
    checkpoint = run / MODEL
    if (folder / "config.yaml").is_file() and not checkpoint.is_file():
        raise InputError(f"{run}: no {MODEL} there; expected a finished run, or its checkpoint")
    return load_run(folder, ckpt_path=str(checkpoint))


def _folder(run: Path) -> Path:
    """The run directory that `run` is or lies in: the nearest with a config.yaml."""
    from slam_potsa.engine.run_directory import CONFIG

    nearest = run.absolute()
    found = (p for p in (nearest, *list(nearest.parents)[:2]) if (p / CONFIG).is_file())
    return next(found, run)


def _names(runs: list[Path]) -> list[str]:
    """A run is called as its directory; two of one name as their paths."""
    names = [_folder(run).resolve().name for run in runs]
    return names if len(set(names)) == len(names) else list(map(str, runs))
