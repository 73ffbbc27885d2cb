"""The analysis of one trained model."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slam_potsa.config import PotsaConfig
from slam_potsa.data.manifest import read_manifest
from slam_potsa.errors import InputError
from slam_potsa.evaluation.analysis.measures import TapMeasures, measure
from slam_potsa.evaluation.analysis.recordings import Recordings, read_recordings
from slam_potsa.evaluation.analysis.result import Analysis, View
from slam_potsa.evaluation.analysis.settings import Settings
from slam_potsa.evaluation.analysis.views import views
from slam_potsa.evaluation.vectors import Recorded, record, speech_dataset, tap_names

if TYPE_CHECKING:
    from slam_potsa.engine.decode import Translator

VIEWED = ("encoder", "compensated", "projector")


def analyze(
    translator: Translator,
    manifests: str | Path | Sequence[str | Path],
    *,
    heard: Iterable[str] | None = None,
    settings: Settings | None = None,
    name: str = "",
    progress: bool = False,
) -> Analysis:
    """Measure encoder output, compensated output, every Q-Former layer and the projector's output.

    One pass over the recordings; see `measures.TapMeasures` for what is measured.

    Args:
        translator: the trained model. Recordings that its run's feature store holds are not
            encoded again.
        manifests: one or several, with the same sentences in two languages or more.
        heard: languages of training; None: those of the run's training manifest, where it is
            still there.
        name: of the run, for tables and figures.

    Raises:
        InputError: what `read_recordings` refuses, and packages that are not installed; before any
            recording is read.
    """
    require_packages()
    settings = settings or Settings()
    manifests = [manifests] if isinstance(manifests, str | Path) else list(manifests)
    given = None if heard is None else tuple(dict.fromkeys(heard))
    recordings = read_recordings(manifests, settings, given)
    if given is None:
        given = heard_in_training(translator.config, recordings)
    recorded = _record(translator, recordings, settings, progress)
    taps, seen = _measure_all(recorded, recordings, settings, given, translator.device, progress)
    detail = {recordings.sentences[row] for row in recordings.detail}
    return Analysis(
        name or Path(translator.config.ckpt_path).resolve().parent.name,
        taps,
        settings,
        tuple(map(str, recordings.manifests)),
        given,
        dict(sorted(Counter(recordings.languages).items())),
        len(set(recordings.sentences)),
        len(detail),
        tuple(seen),
    )


def require_packages() -> None:
    """InputError where scikit-learn or SciPy is missing."""
    missing = [
        package
        for package, module in (("scikit-learn", "sklearn"), ("scipy", "scipy"))
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise InputError(
            f"{' and '.join(missing)}: not installed, and the analysis needs it: "
            "pip install slam-potsa[eval]"
        )


def heard_in_training(config: PotsaConfig, recordings: Recordings) -> tuple[str, ...] | None:
    """The languages of the run's training manifest that are spoken here; None where it is gone."""
    path = config.dataset_config.train_data_path
    if not path or not Path(path).is_file():
        return None
    trained = {utterance.language for utterance in read_manifest(path)}
    return tuple(sorted(trained & set(recordings.languages)))


def _record(
    translator: Translator, recordings: Recordings, settings: Settings, progress: bool
) -> dict[str, Recorded]:
    datasets = [
        speech_dataset(translator, part, manifest.parent)
        for manifest, part in zip(recordings.manifests, recordings.parts, strict=True)
        if part
    ]
    found = record(
        translator,
        datasets,
        tap_names(translator.model),
        keep=frozenset(recordings.detail),
        positions=settings.tokens,
        progress=progress,
    )
    problems = [
        f"{tap}: the model's output holds NaN or infinity; is the checkpoint one of a run that "
        "diverged, or the precision too low (model_config.llm_dtype)?"
        for tap, rows in found.items()
        if not bool(rows.pooled.isfinite().all())
    ]
    if problems:
        raise InputError(problems)
    return found


def _measure_all(
    recorded: dict[str, Recorded],
    recordings: Recordings,
    settings: Settings,
    heard: tuple[str, ...] | None,
    device: object,
    progress: bool,
) -> tuple[dict[str, TapMeasures], list[View]]:
    from tqdm import tqdm

    taps, seen = {}, []
    languages = [recordings.languages[row] for row in recordings.detail]
    with tqdm(
        recorded.items(), desc="measuring", unit="tap", disable=not progress, leave=False
    ) as bar:
        for tap, rows in bar:
            bar.set_postfix_str(tap)
            taps[tap] = measure(tap, rows, recordings, settings, heard, device)
            if tap in VIEWED:
                seen += views(tap, rows.pooled[list(recordings.detail)], languages, settings)
    return taps, seen
