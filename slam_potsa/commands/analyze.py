"""`slam-potsa analyze`: where in a trained model do languages meet?"""

from __future__ import annotations

from pathlib import Path

from slam_potsa.errors import collecting, refuse


def add(commands) -> None:
    analyze = commands.add_parser(
        "analyze", help="R@1, 1-JSD, language probe, transport costs and rank, layer by layer"
    )
    option = analyze.add_argument
    option("run", type=Path, help="output_dir of the training, or a checkpoint in it")
    option("manifests", nargs="+", type=Path, help="the same sentences in two languages or more")
    option("--against", type=Path, help="run to compare with, on the same recordings")
    option("--output", type=Path, help="folder; default: analysis in the run's")
    option("--heard", nargs="+", help="languages of training; default: its manifest's")
    option("--sentences", type=int, help="analyse so many, drawn by --seed")
    option("--seed", type=int, default=0)
    analyze.set_defaults(command=_analyze)


def _analyze(args) -> None:
    from slam_potsa.engine.launch import quieten
    from slam_potsa.evaluation.analysis import FILE, FOLDER, differences_text, write_analysis
    from slam_potsa.evaluation.analysis_figures import draw, write_figures

    quieten()
    found = analyze_runs([args.run, args.against] if args.against else [args.run], args)
    if args.against:
        print(f"{differences_text(*found)}\n")
    output = args.output or _folder(args.run) / FOLDER
    write_figures(output, draw(*found))
    write_analysis(output / FILE, *found)
    print(output / FILE)


def analyze_runs(runs: list[Path], args) -> list:
    """One of each run, by what the first of them heard, with plans at the layer aligned most.

    InputError with all that is wrong, before a model is loaded.
    """
    from slam_potsa.engine.decode import Translator
    from slam_potsa.evaluation.activations import read_recordings
    from slam_potsa.evaluation.analysis import analyze, heard_in_training, require_packages
    from slam_potsa.evaluation.measures import MeasureSettings
    from slam_potsa.evaluation.transport_view import aligned_layer

    drawn, problems, configs = {"sentences": args.sentences, "seed": args.seed}, [], []
    with collecting(problems):
        require_packages()
    with collecting(problems):
        rows = read_recordings(args.manifests, heard=args.heard or (), **drawn)
    for run in runs:
        with collecting(problems):
            configs.append(_config(run))
    refuse(problems)
    trained = (heard_in_training(config, rows) for config in configs)
    layers = min(config.model_config.qformer_layers for config in configs)
    how = {
        "heard": args.heard or next((known for known in trained if known is not None), None),
        "settings": MeasureSettings(**drawn),
        "plan_layer": aligned_layer(map(_folder, runs), layers),
    }
    found = []
    for name, config in zip(_names(runs), configs, strict=True):
        found.append(analyze(Translator(config), args.manifests, name=name, progress=True, **how))
        print(f"{found[-1].text()}\n")
    return found


def _config(run: Path):
    """The configuration of a run directory, or of the run that a checkpoint lies in."""
    from slam_potsa.engine.decode import load_run

    # The best by validation, as `decode` takes it, so that R@1 and BLEU are of one model.
    return load_run(_folder(run), **({"ckpt_path": str(run)} if run.is_file() else {}))


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
