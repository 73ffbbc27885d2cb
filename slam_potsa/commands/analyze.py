"""`slam-potsa analyze | select-layers`: where in a model do languages, or speech and text, meet?"""

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

    select = commands.add_parser(
        "select-layers", help="MRR of text, found by its speech, at each layer of the LLM (AI-STA)"
    )
    option = select.add_argument
    option("run", type=Path, help="output_dir of the training; the layers go to its folder layers")
    option("manifest", type=Path, help="speech with transcripts, such as LibriSpeech's test-clean")
    option("--pairs", type=int, default=1000, help="at most, drawn at random (default 1000)")
    option("--threshold", type=float, default=0.05, help="layers above are taken (default 0.05)")
    option("--epsilon", type=float, default=0.02, help="of W, of the mean cost (default 0.02)")
    qformer = "layers of the Q-Former instead, by the same sentence in another language"
    option("--qformer", action="store_true", help=qformer)
    select.set_defaults(command=_select_layers)


def _select_layers(args) -> None:
    from slam_potsa.engine.decode import Translator, load_run
    from slam_potsa.engine.launch import quieten
    from slam_potsa.evaluation import layer_selection as layers
    from slam_potsa.evaluation.figures import require

    quieten()
    part, problems = "qformer" if args.qformer else "llm", []
    given = {name: getattr(args, name) for name in ("pairs", "threshold", "epsilon")}
    with collecting(problems):
        require("matplotlib")
    with collecting(problems):
        layers.draw_pairs(args.manifest, part, layers.SelectionSettings(**given))
    with collecting(problems):
        config = load_run(args.run)
    refuse(problems)
    folder = _home(args.run) / layers.FOLDER
    print(layers.select_layers(Translator(config), args.manifest, folder, part, **given).text())
    print(folder / f"{part}.yaml")


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
        print(f"{found[-1].text()}\n{analysis.write_analysis(_home(run), found[-1])}\n")
    write_figures(_home(args.run) / analysis.FOLDER, draw(*found))


def _home(run: Path) -> Path:
    """Where results go: a folder named user/name would be read in place of the hub's afterwards."""
    return run if run.is_dir() else Path("_".join(run.parts))
