"""`slam-potsa analyze`: where in a trained model do languages meet?"""

from __future__ import annotations

from pathlib import Path

from slam_potsa.errors import collecting, refuse


def add(commands) -> None:
    analyze = commands.add_parser(
        "analyze", help="R@1, 1-JSD, language probe, transport costs and rank, layer by layer"
    )
    option = analyze.add_argument
    option("run", type=Path, help="output_dir of the training; figures go to its folder analysis")
    option("manifests", nargs="+", type=Path, help="the same sentences in two languages or more")
    option("--against", type=Path, help="run to compare with, analysed on the same recordings")
    option("--heard", nargs="+", help="languages of training; default: its manifest's")
    option("--sentences", type=int, help="analyse so many, drawn at random; default: all")
    analyze.set_defaults(command=_analyze)


def _analyze(args) -> None:
    """All that is wrong is said before a model is loaded."""
    from slam_potsa.engine.decode import Translator, load_run
    from slam_potsa.engine.launch import quieten
    from slam_potsa.evaluation import analysis
    from slam_potsa.evaluation.activations import read_recordings
    from slam_potsa.evaluation.analysis_figures import draw, write_figures
    from slam_potsa.evaluation.figures import require
    from slam_potsa.evaluation.tap_measures import MeasureSettings

    quieten()
    runs, problems, configs = [args.run, *([args.against] if args.against else [])], [], []
    with collecting(problems):
        require("matplotlib", "scipy", "sklearn")
    with collecting(problems):
        read_recordings(args.manifests, sentences=args.sentences, heard=args.heard or ())
    for run in runs:
        with collecting(problems):
            # The best by validation, as `decode` takes it, so that R@1 and BLEU are of one model.
            configs.append(load_run(run))
    refuse(problems)
    heard, found = args.heard or analysis.heard_in_training(configs[0]), []
    how = {"heard": heard, "settings": MeasureSettings(sentences=args.sentences)}
    for run, config in zip(runs, configs, strict=True):
        how["name"] = run.resolve().name
        found.append(analysis.analyze(Translator(config), args.manifests, **how))
        print(f"{found[-1].text()}\n{analysis.write_analysis(run, found[-1])}\n")
    write_figures(args.run / analysis.FOLDER, draw(*found))
