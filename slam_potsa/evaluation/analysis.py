"""Where in a trained model do languages meet? What was found: made, written, read, as table, drawn.

`analyze` needs the model; `read_analysis` and `draw` are all that a report needs. Captions of the
figures, and which columns and curves there are, stand in analysis.yaml.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import yaml

from slam_potsa import provenance
from slam_potsa.config import PotsaConfig
from slam_potsa.data.manifest import read_manifest
from slam_potsa.errors import InputError, refuse
from slam_potsa.evaluation import figures
from slam_potsa.evaluation.activations import detail_rows, read_recordings, record, tap_names
from slam_potsa.evaluation.figures import Arrow, Series
from slam_potsa.evaluation.tap_measures import MeasureSettings, host_array, measure_tap
from slam_potsa.files import atomic_write, write_json
from slam_potsa.provenance import Record, content_hash, read_record, why_outdated, write_record
from slam_potsa.text import table

if TYPE_CHECKING:
    from slam_potsa.engine.decode import Translator

FOLDER, FILE, RECORD = "analysis", "analysis.json", "analysis.record.json"
VIEWED = ("encoder", "compensated", "projector")  # the taps that are shown in the plane
SHOWN = yaml.safe_load(Path(__file__).with_name("analysis.yaml").read_text(encoding="utf-8"))
METHODS = {"pca": "PCA", "tsne": "t-SNE"}
TAPS = {  # as a reader knows them, in full and at an axis
    "encoder": ("encoder output", "enc."),
    "compensated": ("compensated encoder output", "comp."),
    "projector": ("projector output", "proj."),
}

Points = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Analysis:
    """One model on one set of recordings; plain values, as analysis.json has them.

    Taps are in the order of the forward pass; `numbers` and `pairs` are those of `measure_tap`.
    """

    name: str  # of the run, for tables and figures
    checkpoint: str
    manifests: Sequence[str]
    heard: Sequence[str]  # languages of training; empty: unknown
    recordings: Mapping[str, int]  # language -> how many
    sentences: int  # distinct ones
    settings: Mapping[str, Any]  # of the measures
    numbers: Mapping[str, Mapping[str, float]]  # tap -> measure -> one number
    pairs: Mapping[str, Mapping[str, Mapping[str, float]]]  # tap -> measure -> "fr it" -> value
    planes: Mapping[str, Points]  # "pca_<tap>", "tsne_<tap>" -> a point a recording
    shown: Sequence[str]  # the languages of those recordings

    @property
    def languages(self) -> list[str]:
        """Those heard in training first."""
        return sorted(self.recordings, key=lambda name: (name not in self.heard, name))

    def text(self) -> str:
        """What was analysed, and a row a tap."""
        spoken = ", ".join(f"{name} {self.recordings[name]}" for name in self.languages)
        heard = ", ".join(self.heard) or "unknown"
        detail = min(self.settings["detail_sentences"], self.sentences)
        rows = []
        for tap, found in self.numbers.items():
            cells = (
                f"{found[key] * factor:.{decimals}f}" if key in found else None
                for _, key, factor, decimals in SHOWN["columns"]
            )
            rows.append([tap, *cells])
        return (
            f"{self.name}: {self.sentences} sentences ({detail} for tokens and pictures), "
            f"recordings {spoken}; heard: {heard}\n"
            f"{table(['tap', *(heading for heading, *_ in SHOWN['columns'])], rows)}"
        )


def analyze(
    translator: Translator,
    manifests: Sequence[str | Path],
    *,
    name: str,
    heard: Iterable[str] = (),
    settings: MeasureSettings | None = None,
) -> Analysis:
    """Measure every tap of `tap_names` in one pass over the recordings.

    Args:
        manifests: with the same sentences in two languages or more.
        heard: languages of training; by default of the run's training manifest, if it is there.

    Raises InputError for what `read_recordings` refuses.
    """
    settings = settings or MeasureSettings()
    rows = read_recordings(manifests)
    heard = sorted({*heard}) or heard_in_training(translator.config)
    detail = detail_rows(rows, settings.detail_sentences, settings.seed)
    taps, kept = tap_names(translator.model), frozenset(detail)
    recorded = record(translator, rows, taps, keep=kept, positions=settings.tokens)
    how = {"heard": heard, "settings": settings, "device": translator.device}
    measured = {
        tap: measure_tap(tap, found, rows, detail, **how) for tap, found in recorded.items()
    }
    numbers, pairs = ({tap: each[n] for tap, each in measured.items()} for n in (0, 1))
    planes: dict[str, Points] = {}
    for tap in filter(recorded.get, VIEWED):
        found, explained = in_the_plane(recorded[tap].pooled[detail], settings)
        planes |= {f"{method}_{tap}": points for method, points in found.items()}
        numbers[tap] |= {"PCA, first": explained[0], "PCA, second": explained[1]}
    return Analysis(
        name=name,
        checkpoint=str(translator.config.ckpt_path),
        manifests=[str(path) for path in manifests],
        heard=heard,
        recordings=dict(sorted(Counter(row.language for row in rows).items())),
        sentences=len({row.sentence_id for row in rows}),
        settings=asdict(settings),
        numbers=numbers,
        pairs=pairs,
        planes=planes,
        shown=[rows[row].language for row in detail],
    )


def heard_in_training(config: PotsaConfig) -> list[str]:
    """The languages of the run's training manifest; none where it cannot be read."""
    with suppress(InputError):
        rows = read_manifest(config.dataset_config.train_data_path, needs=())
        return sorted({row.language for row in rows if row.audio})
    return []


def in_the_plane(
    vectors: Any, settings: MeasureSettings
) -> tuple[dict[str, Points], Sequence[float]]:
    """({"pca" and "tsne": points}, the share of the variance along PCA's two) of vectors [n, D].

    By scikit-learn; t-SNE starts at the principal components of the first 50 of them. Who is near
    whom means something there, distances across the picture and sizes of clusters do not.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    points = host_array(vectors)
    if not np.linalg.norm(points - points.mean(axis=0)) > 1e-6 * np.linalg.norm(points):
        return dict.fromkeys(("pca", "tsne"), [[0.0, 0.0]] * len(points)), (0.0, 0.0)
    pca = PCA(min(50, *points.shape), svd_solver="full")
    flat = pca.fit_transform(points)
    perplexity = min(settings.perplexity, (len(points) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=settings.seed, n_jobs=1)
    planes = {"pca": _rounded(flat[:, :2]), "tsne": _rounded(tsne.fit_transform(flat))}
    return planes, pca.explained_variance_ratio_[:2].tolist()


def differences(analysis: Analysis, baseline: Analysis) -> str:
    """Other recordings or settings, which keep the two from being compared; "" without any."""
    names = ("manifests", "recordings", "sentences", "settings", "heard")
    both = ({name: getattr(run, name) for name in names} for run in (baseline, analysis))
    return "; ".join(provenance.differences(*both))


def write_analysis(run: Path, found: Analysis) -> Path:
    """Into the run's directory: its fields as JSON, and the record of what it was made from."""
    path = run / FOLDER / FILE
    write_json(path, asdict(found))
    made_from = _hashes((found.checkpoint, *found.manifests))
    write_record(path.with_name(RECORD), made_from, [path])
    return path


def read_analysis(run: Path) -> Analysis:
    """What `write_analysis` left in a run's directory.

    Raises InputError where it is something else, or outdated: of another model or other manifests
    than lie there now. What is no longer there says nothing.
    """
    path = run / FOLDER / FILE
    known = (read_record(path.with_name(RECORD)) or Record({})).made_from
    refuse(f"{path}: {why}" for why in why_outdated(path.with_name(RECORD), known | _hashes(known)))
    try:
        return Analysis(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: {error}; expected what `slam-potsa analyze` writes") from None


def _rounded(points: Iterable[Iterable[float]]) -> list[list[float]]:
    """To five digits."""
    return [[float(f"{x:.5g}") for x in place] for place in points]


def _hashes(paths: Iterable[str]) -> dict[str, str]:
    """File -> hash of its content, of those that are there."""
    return {path: content_hash(path) for path in paths if Path(path).is_file()}


# -- figures ---------------------------------------------------------------------------------------


class Figure(NamedTuple):
    """`svg` is a chart of `figures`; `caption` is plain text."""

    name: str
    title: str
    svg: str
    caption: str


def draw(analysis: Analysis, baseline: Analysis | None = None) -> list[Figure]:
    """Views in the plane, arrows, and curves of each measure over the taps.

    Of a baseline too what is of the projector's output; its names begin with "baseline_".
    """
    runs, views = [analysis], [(analysis, name, name) for name in analysis.planes]
    if baseline is not None:
        runs.insert(0, baseline)
        views += [(baseline, f"{m}_projector", f"baseline_{m}_projector") for m in METHODS]
    found = [_view(*view) for view in views]
    return [*found, _arrows(runs), *(_curve(runs, name) for name in SHOWN["curves"])]


def write_figures(folder: Path, drawn: Sequence[Figure]) -> None:
    """Each figure as `<name>.svg`, a file of its own."""
    for figure in drawn:
        atomic_write(folder / f"{figure.name}.svg", figures.standalone(figure.svg))


def _view(run: Analysis, plane: str, name: str) -> Figure:
    method, tap = plane.split("_")
    shares = run.numbers[tap]["PCA, first"], run.numbers[tap]["PCA, second"]
    axes = [f"component {n} ({100 * s:.0f} %)" for n, s in enumerate(shares, start=1)]
    how = {"order": run.languages, "components": axes if method == "pca" else ()}
    title = f"{METHODS[method]}, {TAPS[tap][0]}, {run.name}"
    svg = figures.scatter_chart(run.planes[plane], run.shown, title=title, **how)
    return Figure(name, title, svg, SHOWN["captions"][method])


def _arrows(runs: Sequence[Analysis]) -> Figure:
    """From the baseline, or else from the encoder's output, to the projector's (Fig. 3 bottom).

    1 − JSD is drawn relative to its ceiling: the raw one falls where its ceiling falls, although
    the languages came closer to it. The paper does not say at which tap.
    """
    run, start = runs[-1], "projector" if runs[1:] else "encoder"
    title = f"From {runs[0].name if runs[1:] else TAPS[start][0]} to {run.name}, projector output"

    def place(of: Mapping[str, Mapping[str, float]], pair: str) -> tuple[float, float]:
        recalls = of["R@1"][pair], of["R@1"][" ".join(reversed(pair.split()))]
        return 50 * sum(recalls), of["1-JSD"][pair] / (of["1-JSD ceiling"][pair] or math.nan)

    arrows = []
    for pair in run.pairs["projector"]["1-JSD"]:
        ends = place(runs[0].pairs[start], pair), place(run.pairs["projector"], pair)
        group = "both heard" if {*pair.split()} <= {*run.heard} else "with an unheard"
        arrows.append(Arrow(pair.replace(" ", "–"), *ends, group if run.heard else ""))
    arrows.sort(key=lambda arrow: arrow.group)
    how = {"x_label": "R@1, mean of both directions, %", "y_label": "1 − JSD / ceiling"}
    svg = figures.arrow_chart(arrows, title=title, **how)
    return Figure("arrows_projector", title, svg, SHOWN["captions"]["arrows"])


def _curve(runs: Sequence[Analysis], name: str) -> Figure:
    """A measure over the taps; of two runs the first is the baseline."""
    curve = SHOWN["curves"][name]
    taps = list(max((run.numbers for run in runs), key=len))  # who has biases has a tap more
    lines, factor = curve["lines"], 100 if curve["axis"].endswith("%") else 1
    if not runs[-1].heard:
        lines = curve.get("heard_unknown", lines)

    def line(run: Analysis, key: str, name: str, color: int, dash: int) -> Series:
        values = [factor * run.numbers.get(tap, {}).get(key, math.nan) for tap in taps]
        return Series(name or run.name, range(len(taps)), values, color, dash)

    series = [
        line(run, key, f"{run.name}, {name}" if name and runs[1:] else name, color, dash)
        for color, run in enumerate(runs)
        for dash, (key, name) in enumerate(lines.items())
    ]
    if "chance" in curve:
        series.append(line(runs[0], curve["chance"], "chance", 7, 2))
    svg = figures.line_chart(
        series,
        title=curve["title"],
        x_label="encoder output, after compensation, Q-Former layers, projector",
        y_label=curve["axis"],
        x_names=[TAPS[tap][1] if tap in TAPS else tap.removeprefix("qformer.") for tap in taps],
        log=name == "transport_costs",
    )
    return Figure(name, curve["title"], svg, curve["caption"])
