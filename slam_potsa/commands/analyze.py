"""`slam-potsa analyze | select-layers`: where in a model do languages, or speech and text, meet?

All that is wrong is said before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slam_potsa.engine.decode import Translator, load_run
from slam_potsa.engine.launch import quieten
from slam_potsa.errors import collecting, refuse
from slam_potsa.evaluation import layer_selection as layers
from slam_potsa.evaluation.figures import require


def select_layers(run: Path, manifest: Path, qformer: bool = False, **settings: Any) -> None:
    quieten()
    part, problems = "qformer" if qformer else "llm", []
    with collecting(problems):
        require("matplotlib")
    with collecting(problems):
        layers.draw_pairs(manifest, part, layers.SelectionSettings(**settings))
    with collecting(problems):
        config = load_run(run)
    refuse(problems)
    folder = _home(run) / layers.FOLDER
    print(layers.select_layers(Translator(config), manifest, folder, part, **settings).text())
    print(folder / f"{part}.yaml")


def analyze(
    run: Path,
    manifests: Sequence[Path],
    against: Path | None = None,
    heard: Sequence[str] = (),
) -> None:
    from slam_potsa.evaluation import analysis
    from slam_potsa.evaluation.activations import read_recordings

    quieten()
    runs, problems, configs = [run, *([against] if against else [])], [], []
    with collecting(problems):
        require("matplotlib", "scipy", "sklearn")
    with collecting(problems):
        read_recordings(manifests, heard)
    for path in runs:
        with collecting(problems):
            # The best by validation, as `decode` takes it, so that R@1 and BLEU are of one model.
            configs.append(load_run(path))
    refuse(problems)
    heard, found = heard or analysis.heard_in_training(configs[0]), []
    for path, config in zip(runs, configs, strict=True):
        how = {"heard": heard, "name": path.resolve().name}
        found.append(analysis.analyze(Translator(config), manifests, **how))
        print(f"{found[-1].text()}\n{analysis.write_analysis(_home(path), found[-1])}\n")
    analysis.write_figures(_home(run) / analysis.FOLDER, analysis.draw(*found))


def _home(run: Path) -> Path:
    """Where results go: a folder named user/name would be read in place of the hub's afterwards."""
    return run if run.is_dir() else Path("_".join(run.parts))
