"""Where in a trained model do languages meet? What was found: made, written, read and as tables.

`analyze` needs the model; `read_analysis` is all that a report needs.
"""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from slam_potsa.config import PotsaConfig
from slam_potsa.data.manifest import Utterance, read_manifest
from slam_potsa.errors import InputError, refuse
from slam_potsa.evaluation.activations import detail_rows, read_recordings, record, tap_names
from slam_potsa.evaluation.measures import MeasureSettings, TapMeasures, measure_tap
from slam_potsa.evaluation.retrieval import host_array
from slam_potsa.evaluation.transport_view import TransportView, choose_pairs, transport_view
from slam_potsa.files import atomic_write
from slam_potsa.provenance import content_hash, read_record, why_outdated, write_record
from slam_potsa.text import table

if TYPE_CHECKING:
    from slam_potsa.engine.decode import Translator

FOLDER, FILE, RECORD = "analysis", "analysis.json", ".record.json"
VIEWED = ("encoder", "compensated", "projector")
NEEDED = {"scikit-learn": "sklearn", "scipy": "scipy", "matplotlib": "matplotlib"}
SHOWN = yaml.safe_load(Path(__file__).with_name("analysis.yaml").read_text(encoding="utf-8"))
# Of two runs these differ by chance together: the table of differences has their ratio alone.
ONLY_TOGETHER = ("1-JSD", "±", "ceiling")


@dataclass(frozen=True)
class View:
    """Pooled vectors at a tap in the plane (POTSA Fig. 1, Fig. 3 top), a point a recording."""

    tap: str
    method: str  # "pca" or "tsne"
    points: Sequence[Sequence[float]]
    languages: Sequence[str]
    explained: Sequence[float] = ()  # of PCA, the share of the variance that each axis shows


@dataclass(frozen=True)
class Analysis:
    """One model on one set of recordings."""

    name: str  # of the run, for tables and figures
    checkpoint: str
    manifests: Sequence[str]
    heard: Sequence[str] | None  # languages of training, where they are known
    recordings: Mapping[str, int]  # language -> how many
    sentences: int  # distinct ones
    settings: MeasureSettings
    taps: Mapping[str, TapMeasures]  # in the order of the forward pass
    views: Sequence[View] = field(default=(), repr=False)
    plans: Sequence[TransportView] = field(default=(), repr=False)

    @property
    def languages(self) -> list[str]:
        """Those heard in training first."""
        heard = self.heard or ()
        return sorted(self.recordings, key=lambda name: (name not in heard, name))

    def text(self) -> str:
        """What was analysed, and a row a tap."""
        spoken = ", ".join(f"{name} {self.recordings[name]}" for name in self.languages)
        heard = "unknown" if self.heard is None else ", ".join(self.heard)
        rows = {tap: found.numbers for tap, found in self.taps.items()}
        return (
            f"{self.name}: {self.sentences} sentences, recordings {spoken}; heard: {heard}\n"
            f"{_table(rows)}\nprobe: chance {100 / len(self.recordings):.1f} %"
        )


def analyze(
    translator: Translator,
    manifests: Sequence[str | Path],
    *,
    heard: Iterable[str] | None = None,
    settings: MeasureSettings | None = None,
    name: str = "",
    plan_layer: int = 2,
    progress: bool = False,
) -> Analysis:
    """Measure every tap of `tap_names` in one pass over the recordings.

    Args:
        manifests: with the same sentences in two languages or more.
        heard: languages of training; None: those of the run's training manifest, if it is there.
        plan_layer: of the transport plans, numbered from 1.

    Raises InputError for what `read_recordings` refuses.
    """
    settings = settings or MeasureSettings()
    rows = read_recordings(
        manifests, sentences=settings.sentences, seed=settings.seed, heard=heard or ()
    )
    heard = heard_in_training(translator.config, rows) if heard is None else sorted(set(heard))
    detail = detail_rows(rows, settings.detail_sentences, settings.seed)
    kept = {"keep": frozenset(detail), "positions": settings.tokens, "progress": progress}
    recorded = record(translator, rows, tap_names(translator.model), **kept)
    how = {"heard": heard, "settings": settings, "device": translator.device}
    shown, pairs = [rows[row].language for row in detail], choose_pairs(rows, heard or ())
    return Analysis(
        name=name or Path(translator.config.ckpt_path).resolve().parent.name,
        checkpoint=str(translator.config.ckpt_path),
        manifests=[str(path) for path in manifests],
        heard=heard,
        recordings=dict(sorted(Counter(row.language for row in rows).items())),
        sentences=len({row.sentence_id for row in rows}),
        settings=settings,
        taps={tap: measure_tap(tap, recorded[tap], rows, detail, **how) for tap in recorded},
        views=[
            view
            for tap in VIEWED
            if tap in recorded
            for view in in_the_plane(tap, recorded[tap].pooled[detail], shown, settings)
        ],
        plans=[transport_view(translator, *pair, plan_layer) for pair in pairs],
    )


def require_packages() -> None:
    """InputError where one of NEEDED is missing."""
    refuse(
        f"{name}: not installed, and the analysis needs it: pip install slam-potsa[eval]"
        for name, module in NEEDED.items()
        if importlib.util.find_spec(module) is None
    )


def heard_in_training(config: PotsaConfig, rows: Iterable[Utterance]) -> list[str] | None:
    """The languages of the run's training manifest that are spoken here; None where it is gone."""
    path = Path(config.dataset_config.train_data_path or "")
    if not path.is_file():
        return None
    return sorted({row.language for row in read_manifest(path)} & {row.language for row in rows})


def in_the_plane(
    tap: str, vectors: Any, languages: Sequence[str], settings: MeasureSettings
) -> list[View]:
    """PCA and t-SNE (scikit-learn) of vectors [n, D]; coordinates with five digits.

    t-SNE starts at the principal components of the first 50 of them. Who is near whom means
    something there, distances across the picture and sizes of clusters do not.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    points, bent, explained = host_array(vectors), np.zeros((len(vectors), 2)), [0.0, 0.0]
    flat = bent
    if np.linalg.norm(points - points.mean(axis=0)) > 1e-6 * np.linalg.norm(points):
        pca = PCA(min(50, *points.shape), svd_solver="full")
        flat = pca.fit_transform(points)
        explained = [round(float(share), 5) for share in pca.explained_variance_ratio_[:2]]
        perplexity = min(settings.perplexity, (len(points) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init="pca", random_state=settings.seed, n_jobs=1)
        bent = tsne.fit_transform(flat)

    def view(method: str, places: np.ndarray, explained: Sequence[float]) -> View:
        rounded = [[float(f"{x:.5g}") for x in place] for place in places]
        return View(tap, method, rounded, languages, explained)

    return [view("pca", flat[:, :2], explained), view("tsne", bent, [])]


def differences_text(analysis: Analysis, baseline: Analysis) -> str:
    """analysis − baseline at the taps that both have; of 1 − JSD its share of the ceiling only.

    Raises InputError where the two were not made of the same recordings with the same settings.
    """
    names = ("manifests", "recordings", "sentences", "settings", "heard")
    refuse(
        f"{name}: {getattr(analysis, name)} and {getattr(baseline, name)}; expected the same, so "
        "analyse both runs anew on the same manifests"
        for name in names
        if getattr(analysis, name) != getattr(baseline, name)
    )
    rows = {
        tap: {key: value - theirs.numbers[key] for key, value in found.numbers.items()}
        for tap, found in analysis.taps.items()
        if (theirs := baseline.taps.get(tap))
    }
    return f"{analysis.name} − {baseline.name}\n{_table(rows, '+', ONLY_TOGETHER)}"


def _table(
    rows: Mapping[str, Mapping[str, float]], sign: str = "", leave_out: Sequence[str] = ()
) -> str:
    measured = {key for numbers in rows.values() for key in numbers}
    shown = [c for c in SHOWN["columns"] if c[0] not in leave_out and c[1] in measured]

    def cells(tap: str, numbers: Mapping[str, float]) -> Iterator[str | None]:
        yield tap
        for _, key, factor, decimals in shown:
            found = numbers.get(key)
            yield None if found is None else f"{found * factor:{sign}.{decimals}f}"

    return table(["tap", *(c[0] for c in shown)], [[*cells(*row)] for row in rows.items()])


def write_analysis(path: Path, *found: Analysis) -> None:
    """{"runs": [the fields of `Analysis`, …]}, and beside it the record of what it was made from.

    Of two, the second is the baseline of the first.
    """
    content = {"runs": [asdict(analysis) for analysis in found]}
    atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_record(path.with_suffix(RECORD), _made_from(found), [path])


def read_analysis(path: Path) -> list[Analysis]:
    """What `write_analysis` wrote; InputError where it is something else."""
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
        for run in runs:
            run["settings"] = MeasureSettings(**run["settings"])
            run["taps"] = {tap: TapMeasures(**found) for tap, found in run["taps"].items()}
            run["views"] = [View(**view) for view in run["views"]]
            run["plans"] = [TransportView(**plan) for plan in run["plans"]]
        return [Analysis(**run) for run in runs]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: {error!r}; expected what `slam-potsa analyze` writes") from None


def analyses_of(runs: Iterable[Path]) -> dict[Path, Analysis]:
    """run directory -> what lies there, or what it was the baseline of in another of them."""
    files = {run: run / FOLDER / FILE for run in runs}
    found = {run: read_analysis(file) for run, file in files.items() if file.is_file()}
    baselines = [each for _, *rest in found.values() for each in rest]
    known = {Path(each.checkpoint).resolve().parent: each for each in baselines}
    known |= {run.resolve(): own for run, (own, *_) in found.items()}
    return {run: known[run.resolve()] for run in files if run.resolve() in known}


def why_analysis_is_outdated(run: Path) -> list[str]:
    """Why the analysis in a run directory is to be made anew, if there is one.

    A model or a manifest that is no longer there says nothing.
    """
    path = run / FOLDER / FILE
    if not path.is_file():
        return []
    record = read_record(path.with_suffix(RECORD))
    gone = record.made_from if record else {}
    return why_outdated(path.with_suffix(RECORD), gone | _made_from(read_analysis(path)))


def _made_from(found: Sequence[Analysis]) -> dict[str, str]:
    """File -> hash of its content, of those that are there."""
    paths = {path for each in found for path in (each.checkpoint, *each.manifests)}
    return {path: content_hash(path) for path in sorted(paths) if Path(path).is_file()}
