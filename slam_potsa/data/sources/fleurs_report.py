"""What was made of FLEURS, in numbers: counts, the printed tables, summary.json."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slam_potsa.data.languages import language_name, short_code
from slam_potsa.data.sources.choices import BUILT_WITH
from slam_potsa.data.sources.fleurs_files import TWICE, Dropped
from slam_potsa.data.sources.fleurs_rules import LIMITED, Kept

if TYPE_CHECKING:
    from slam_potsa.data.sources.fleurs import FleursCorpus

WIDEST_MATRIX = 16  # languages; a wider one is in summary.json only
SHARED_SPLITS = ("train", "test")  # where languages are paired, and where they are compared


def counts(manifests: Mapping[str, Sequence[Kept]], kept: Sequence[Kept]) -> dict[str, dict]:
    """What a corpus counts, by field: by manifest, then language; shared: `shared_sentences`."""
    recordings, seconds, sentences, distinct = {}, {}, {}, {}
    for name, part in manifests.items():
        codes = [short_code(recording.locale) for recording in part]
        recordings[name] = dict(Counter(codes))
        total, ids = Counter(), defaultdict(set)
        for code, recording in zip(codes, part, strict=True):
            total[code] += recording.seconds
            ids[code].add(recording.row.sentence)
        seconds[name] = {code: round(value, 3) for code, value in total.items()}
        sentences[name] = {code: len(found) for code, found in ids.items()}
        distinct[name] = len(set().union(*ids.values()))
    return {
        "recordings": recordings,
        "seconds": seconds,
        "sentences": sentences,
        "distinct_sentences": distinct,
        "shared": {split: shared_sentences(kept, split) for split in SHARED_SPLITS},
    }


def shared_sentences(kept: Sequence[Kept], split: str) -> dict[str, dict[str, int]]:
    """Language -> language -> sentences that both have in `split`; on the diagonal, its own."""
    spoken: dict[str, set[int]] = defaultdict(set)
    for recording in kept:
        if recording.split == split:
            spoken[short_code(recording.locale)].add(recording.row.sentence)
    return {
        first: {second: len(spoken[first] & spoken[second]) for second in spoken}
        for first in spoken
    }


def left_out(dropped: Sequence[Dropped], split: str, locales: Sequence[str]) -> dict[str, int]:
    """Reason -> recordings of these locales' split that are in no manifest.

    Lines that repeat a file are no further recording.
    """
    mine = [entry for entry in dropped if entry.split == split and entry.locale in locales]
    return dict(Counter(entry.reason for entry in mine if entry.reason != TWICE).most_common())


def left_out_lines(corpus: FleursCorpus) -> list[str]:
    """A line each manifest that something was left out of: what its scores are on.

    test: 3 of 3,240 recordings left out (2 longer than 30 s, 1 unreadable): scores on this split
    are on 3,237
    """
    lines = []
    for name, reasons in corpus.left_out.items():
        count, there = sum(reasons.values()), sum(corpus.recordings[name].values())
        if count:
            why = ", ".join(f"{number:,} {reason}" for reason, number in reasons.items())
            line = f"{name}: {count:,} of {there + count:,} recordings left out ({why})"
            scores = f": scores on this split are on {there:,}"
            lines.append(line if name == LIMITED else line + scores)
    return lines


def text(corpus: FleursCorpus) -> str:
    """The tables, what each split lacks, the dropped by reason, the notes."""
    lines = [
        f"FLEURS into {language_name(corpus.target_language)} ({corpus.target_language})",
        "",
        *_table(corpus),
        *left_out_lines(corpus),
    ]
    for split, shared in corpus.shared.items():
        lines += ["", f"sentences of {split} that two languages share", *_matrix(shared)]
    total = sum(corpus.dropped_by_reason.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in corpus.dropped_by_reason.items())
    lines += ["", f"dropped: {total}{f' ({reasons}), listed in {corpus.dropped}' if total else ''}"]
    lines += [f"warning: {warning}" for warning in warnings(corpus)]
    return "\n".join(lines + [f"note: {note}" for note in corpus.notes])


def warnings(corpus: FleursCorpus) -> list[str]:
    """That train holds no pair: no sentence that two of its languages share."""
    shared = corpus.shared["train"]
    if any(count for one, row in shared.items() for other, count in row.items() if other != one):
        return []
    return [
        f"no sentence of train is there in two languages (it has {', '.join(shared)} only), so it "
        f"holds no pair to align: give --train-languages two or more that share sentences, or "
        f"train with dataset_config.pairing=none alignment=none"
    ]


def _table(corpus: FleursCorpus) -> list[str]:
    lines = [f"{'manifest':<11}{'language':<22}{'recordings':>11}{'hours':>8}{'sentences':>11}"]
    for name, by_language in corpus.recordings.items():
        for code, count in by_language.items():
            hours = corpus.seconds[name][code] / 3600
            lines.append(
                f"{name:<11}{f'{code} {language_name(code)}':<22}{count:>11}{hours:>8.2f}"
                f"{corpus.sentences[name][code]:>11}"
            )
        if len(by_language) > 1:
            hours = sum(corpus.seconds[name].values()) / 3600
            lines.append(
                f"{name:<11}{'all':<22}{sum(by_language.values()):>11}{hours:>8.2f}"
                f"{corpus.distinct_sentences[name]:>11}"
            )
    return lines


def _matrix(shared: Mapping[str, Mapping[str, int]]) -> list[str]:
    if len(shared) > WIDEST_MATRIX:
        return [f"{len(shared)} languages: see summary.json"]
    lines = ["".join([" " * 6, *(f"{code:>6}" for code in shared)])]
    for first, row in shared.items():
        lines.append("".join([f"{first:<6}", *(f"{count:>6}" for count in row.values())]))
    return lines


def as_json(corpus: FleursCorpus, built_with: Mapping[str, Any]) -> str:
    """summary.json: every count of the corpus, and the choices it was built with."""
    names = ("recordings", "seconds", "sentences", "distinct_sentences", "shared")
    names += ("dropped_by_reason", "left_out", "notes")
    found = {"target_language": corpus.target_language, "licence": "FLEURS, CC BY 4.0"}
    found |= {BUILT_WITH: dict(built_with)} | {name: getattr(corpus, name) for name in names}
    found["warnings"] = warnings(corpus)
    found["left_out_in_words"] = left_out_lines(corpus)
    return json.dumps(found, ensure_ascii=False, indent=2) + "\n"
