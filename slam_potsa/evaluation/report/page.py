"""The page: page.html.j2 with its style and script, filled with what was collected.

Its headline is also printed.
"""

from __future__ import annotations

import base64
import io
import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import soundfile
from markupsafe import Markup

from slam_potsa.config import flat
from slam_potsa.data.archives import split_reference
from slam_potsa.data.audio import SAMPLE_RATE, load_audio
from slam_potsa.data.manifest import read_manifest
from slam_potsa.data.predictions import Prediction
from slam_potsa.data.rows import column
from slam_potsa.errors import InputError
from slam_potsa.evaluation import figures
from slam_potsa.evaluation.analysis import differences, draw
from slam_potsa.evaluation.figures import Series
from slam_potsa.evaluation.report.collect import Report, Run
from slam_potsa.evaluation.scores import ScoreRow, SeedMean, over_seeds
from slam_potsa.files import atomic_write
from slam_potsa.text import table

BELOW = 22  # letters a line below a group of bars
AUDIO_BYTES = 3_500_000  # of base64 in one page; with all else it stays below some 6 MB
Rows = Mapping[str, Mapping[str, ScoreRow]]  # corpus -> run -> its scores
# A group of scores, and the mean of R@1 over language pairs that belongs beside it.
RECALLS = {"seen": "among heard", "zero-shot": "with an unheard", "all": "all"}
OF_A_SEED = re.compile(r"(seed|ckpt_path|teacher|language_bias\.path)$")  # options
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # control characters but tab and new line
ROW_OPTIONS = ("weights", "outcome", "answers")  # what options affect that tell runs apart


def write_page(path: str | Path, report: Report) -> Path:
    """Write the page to `path`, whole or not at all; return the path."""
    atomic_write(path, render(report))
    return Path(path)


def render(report: Report) -> str:
    """The page as HTML text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    names = [run.name for run in report.runs]
    page = environment.get_template("page.html.j2").render(
        report=report,
        runs=report.runs,
        request=report.request,
        title=report.request.title or f"slam_potsa: {', '.join(names)}",
        names=names,
        figures=figures,
        players=Players(report.request.audio_roots),
        loss=loss,
        bars=bars,
        changes=changes(report) if report.runs[1:] else ([], {}),
        curves=curves,
        layer_curves=layer_curves,
        rows_of=rows_of,
        groups={": ".join(name): of_runs for name, of_runs in groups(report).items()},
        headline=headline(report),
        runs_table=runs_table(report.runs),
        samples=list(_samples(report)),
        analyses=list(_analyses(report.runs)),
        commands=_commands(report),
    )
    return UNSEEN.sub("\ufffd", page.strip()) + "\n"


# -- tables ----------------------------------------------------------------------------------------


class Table(NamedTuple):
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1  # columns that hold text
    grouped: int = 0  # of them, those that name a group of rows, which the page says once
    cards: bool = False  # on a phone, each row is a list of its cells


def headline(report: Report) -> Table:
    """A row a test, group and run, then those of R@1."""
    rows = [
        (title, group, run, row.bleu.text(), row.bleu.interval_text(), row.chrf.text(), "")
        for (title, group), of_runs in groups(report).items()
        for run, row in of_runs.items()
    ]
    rows += [
        ("cross-lingual retrieval", group, run.name, "", "", "", f"{found.text()} ({ends})")
        for group, run in product(report.groups, report.runs)
        if (found := run.recall(RECALLS.get(group, ""))) and (ends := found.interval_text())
    ]
    head = ("test", "languages", "system", "BLEU", "95 % interval", "chrF", "R@1 %")
    caption = (
        "Pooled over the languages of a group; “seen” are those of the first run’s training, "
        "where no others were named, “joined” others that a run heard without translations. R@1 "
        "beside “seen” is among the analysis’s heard languages, beside “zero-shot” with an unheard."
    )
    return Table(caption, head, rows, left=3, grouped=2)


def groups(report: Report) -> dict[tuple[str, str], dict[str, ScoreRow]]:
    """(test's title, group) -> run -> its pooled scores, or the mean over the group's languages."""
    found: dict[tuple[str, str], dict[str, ScoreRow]] = {}
    for (test, title), group in product(report.tests.items(), report.groups):
        for run, scored in report.scores(test).items():
            kinds = {row.kind: row for row in scored.rows if row.group == group}
            if row := kinds.get("pooled") or kinds.get("mean"):
                found.setdefault((title, group), {})[run] = row
    return found


def systems(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in their seeds, and the files that these start from, go together."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        options = flat(run.config, affects=ROW_OPTIONS)
        same = {name: value for name, value in options.items() if not OF_A_SEED.search(name)}
        found.setdefault(str(same), []).append(run)
    seeds = [[run.config.train_config.seed for run in own] for own in found.values()]
    pairs = zip(found.values(), seeds, strict=True)
    return [part for own, of in pairs for part in ([own] if len({*of}) == len(of) else zip(own))]


def headline_text(report: Report) -> str:
    """The headline as aligned plain text, for a terminal."""
    found = headline(report)
    return table(found.head, found.rows, found.left)


def runs_table(runs: Sequence[Run]) -> Table:
    """What each run was: the options that differ, but for names, places and speed."""
    options = [flat(run.config, affects=ROW_OPTIONS) for run in runs]
    names = dict.fromkeys(name for found in options for name in found)
    values = {name: [str(found.get(name, "–")) for found in options] for name in names}
    differing = [name for name, found in values.items() if len(set(found)) > 1]
    rows = [("directory", *(str(run.path) for run in runs)), ("loss", *map(loss, runs))]
    rows += [(name, *values[name]) for name in differing]
    head = ("", *(run.name for run in runs))
    return Table("The runs, and the options that differ", head, rows, len(head), cards=True)


def loss(run: Run) -> str:
    terms = run.config.alignment.active.items()
    return "cross-entropy" + "".join(f" + {term.weight:g} · {name}" for name, term in terms)


# -- charts ----------------------------------------------------------------------------------------


def rows_of(report: Report, test: str, *kinds: str) -> Rows:
    """The scores of a test: those of its corpora that are "pooled", "mean" or "language"."""
    found: dict[str, dict[str, ScoreRow]] = {}
    for kind in kinds:
        for run, scored in report.scores(test).items():
            for row in scored.rows:
                if row.kind == kind:
                    found.setdefault(row.name, {})[run] = row
    return found


def bars(rows: Rows, metric: str) -> tuple[list[str], dict[str, list[Any]]]:
    """(names of the corpora, run -> a bar each), of "bleu" or "chrf"."""
    runs = dict.fromkeys(run for found in rows.values() for run in found)
    return [textwrap.fill(name, BELOW) for name in rows], {
        run: [getattr(found.get(run), metric, None) for found in rows.values()] for run in runs
    }


def changes(report: Report) -> tuple[list[str], dict[str, list[Any]]]:
    """(languages, system -> a bar each): BLEU less the first system's, the mean over seeds."""
    first, *others = systems(report.runs)
    found: dict[str, dict[str, SeedMean]] = {}
    for test, title in report.tests.items():
        for language, rows in rows_of(report, test, "language").items():
            bleu = {run: row.bleu.value for run, row in rows.items()}
            for own in others:
                both = [(a.name, b.name) for a, b in zip(first, own, strict=False)]
                if values := [bleu[b] - bleu[a] for a, b in both if a in bleu and b in bleu]:
                    place = found.setdefault(textwrap.fill(f"{title}: {language}", BELOW), {})
                    place[own[0].name] = over_seeds(values)
    names = [own[0].name for own in (first, *others)]  # the first for its colour
    return list(found), {name: [of.get(name) for of in found.values()] for name in names}


def curves(runs: Sequence[Run], key: str, suffix: str = "", dash: int = 0) -> list[Series]:
    """One line a run that has this key; a run keeps its colour in all charts."""
    found = [Series(run.name + suffix, *run.series(key), n, dash) for n, run in enumerate(runs)]
    return [line for line in found if line.x]


def layer_curves(run: Run, name: str) -> list[Series]:
    """One line a layer that has values over time; a layer keeps its colour in all charts."""
    keys = {key for line in run.metrics for key in line if key.startswith("schedule/")}
    layers = sorted({int(key.split("/")[1]) for key in keys})
    found = [Series(f"layer {n}", *run.series(f"schedule/{n}/{name}"), n - 1) for n in layers]
    return [line for line in found if len(line.x) > 1]


def _samples(report: Report) -> Iterator[tuple[str, Prediction, dict[str, str]]]:
    """(test, row, run -> its text) of the first recordings of every language, by order alone."""
    for test in report.tests:
        runs = [run for run in report.runs if test in run.tests]
        texts = {run.name: {item.key: item.prediction for item in run.tests[test]} for run in runs}
        taken = Counter[str]()
        for item in runs[0].tests[test]:
            taken[item.language] += 1
            if taken[item.language] <= report.request.samples:
                found = {run: own[item.key] for run, own in texts.items() if item.key in own}
                yield test, item, found


def _analyses(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Figures and measures of every run that was analysed, each against the first of them."""
    found = [replace(run.analysis, name=run.name) for run in runs if run.analysis]
    for analysis in found[1:] or found:
        baseline = found[0] if found[1:] else None
        texts = [each.text() for each in (baseline, analysis) if each]
        if baseline and (why := differences(analysis, baseline)):
            texts, baseline = [*texts, f"not compared: {why}"], None
        drawn = draw(analysis, baseline)
        yield {"title": analysis.name, "figures": drawn, "text": "\n\n".join(texts)}


def _commands(report: Report) -> list[str]:
    """Those that decoded, that analysed, and that make this page."""
    made = [record.argv for run in report.runs for record in run.records.values()]
    found = [argv for argv in (*made, report.request.argv) if argv]
    return [shlex.join([re.sub(".*/(?=slam-potsa$)", "", argv[0]), *argv[1:]]) for argv in found]


# -- recordings ------------------------------------------------------------------------------------


class Players:
    """Players for recordings, as long as the budget lasts; a recording counts once."""

    def __init__(self, roots: Sequence[Path] = (), budget: int = AUDIO_BYTES):
        self.roots, self.left = roots, budget
        self._made: set[tuple[str, Path]] = set()

    def player(self, key: str, audio: str, manifest: Path | None) -> Markup:
        """A player, or in words why there is none; `audio` is relative to the manifest's folder.

        A page is given away: it holds what the manifest names, in its folder or a root, no more.
        """
        why = Markup('<span class="small">recording {}: {}</span>').format
        if manifest is None:
            return why(key, "its manifest was not found")
        if (audio, manifest) in self._made:
            return why(key, "plays above")
        file = Path(manifest.parent, split_reference(audio)[0]).resolve()
        if not any(file.is_relative_to(root.resolve()) for root in (manifest.parent, *self.roots)):
            return why(key, "not in its manifest's folder; allow its own by --audio-root")
        try:
            if audio not in _named(manifest):
                return why(key, "its manifest does not name it")
            mp3, samples = io.BytesIO(), load_audio(audio, manifest.parent)
            soundfile.write(mp3, samples, SAMPLE_RATE, format="MP3")
        except (InputError, OSError):
            return why(key, "not found, or not audio")
        encoded = base64.b64encode(mp3.getvalue()).decode("ascii")
        if len(encoded) > self.left:
            return why(key, "left out, the page would be too large")
        self.left -= len(encoded)
        self._made.add((audio, manifest))
        html = '<audio controls preload="metadata" aria-label="recording {}" src="{}"></audio>'
        return Markup(html).format(key, f"data:audio/mpeg;base64,{encoded}")


@lru_cache(maxsize=8)
def _named(manifest: Path) -> frozenset[str | None]:
    """The recordings that a manifest names."""
    return frozenset(column(read_manifest(manifest, needs=()), "audio"))
