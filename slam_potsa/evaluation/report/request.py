"""What a report is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slam_potsa.errors import InputError

SENTENCES = 300  # analysed where nothing else is asked for; some minutes on a laptop


@dataclass(frozen=True)
class ReportRequest:
    """How runs are reported.

    Attributes:
        title, summary, notes: the page's headline, a sentence or two, and what a reader must know
            before quoting a number; plain text.
        names: one for each run; empty: the shortest ends of their paths that tell them apart.
        heard: languages of training; None: those of the first run's training manifest.
        zero_shot: languages never heard; None: all others that were decoded.
        manifests: to analyse, and to look for recordings in; empty: those of the runs' tests.
        preset: whose way of scoring, as `slam-potsa score --preset`.
        bootstrap: resamples of the intervals and of the paired tests; 0: neither.
        samples: recordings of each language of each test to show. worst: rows of each test.
        analysis: look into the models, which takes minutes; False leaves it out.
        sentences: to analyse; 0: all; None: those of an analysis that is there, else SENTENCES.
        titles: test -> how the page calls it. retrieval_title: how the headline calls R@1.
        wall_times: phase -> seconds, to be shown.
    """

    title: str = ""
    summary: str = ""
    notes: Sequence[str] = ()
    names: Sequence[str] = ()
    heard: Sequence[str] | None = None
    zero_shot: Sequence[str] | None = None
    manifests: Sequence[Path] = ()
    preset: str | None = None
    bootstrap: int = 1000
    samples: int = 3
    worst: int = 5
    analysis: bool = True
    sentences: int | None = None
    titles: Mapping[str, str] = field(default_factory=dict)
    retrieval_title: str = "cross-lingual retrieval"
    wall_times: Mapping[str, float] = field(default_factory=dict)

    def problems(self, runs: int) -> list[str]:
        """What is wrong with it for so many runs."""
        from slam_potsa.evaluation.presets import find_preset

        found = []
        if self.names and (len(self.names) != runs or len(set(self.names)) != runs):
            found.append(f"names: found {list(self.names)}, expected {runs} that differ")
        both = sorted(set(self.heard or ()) & set(self.zero_shot or ()))
        if both:
            found.append(f"languages both heard and zero-shot: {', '.join(both)}; expected one")
        least = {"bootstrap": 0, "samples": 0, "worst": 0}
        found += [
            f"{name}: found {getattr(self, name)}, expected {low} or more"
            for name, low in least.items()
            if getattr(self, name) < low
        ]
        if self.sentences is not None and (self.sentences < 0 or self.sentences == 1):
            found.append(f"sentences: found {self.sentences}, expected 2 or more, or 0 for all")
        if self.preset:
            try:
                find_preset(self.preset)
            except InputError as error:
                found += error.problems
        return found
