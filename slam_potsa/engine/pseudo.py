"""Targets by a finished model for speech that has none: sequence-level distillation.

A recording of a language that joins gets as target what the model makes of its partner, another
recording of the sentence in a language that it knows, or of itself. Such rows are marked
`"synthetic": "target"` and train as any others.

Source: Kim and Rush, "Sequence-level knowledge distillation" (2016); from a partner's speech: ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slam_potsa.config import PotsaConfig
from slam_potsa.data.convert import rebased
from slam_potsa.data.manifest import Utterance, read_manifest, write_manifest
from slam_potsa.data.predictions import read_predictions
from slam_potsa.data.tasks import task_to_decode
from slam_potsa.engine.decode import decode_to, predictions_file, why_decode
from slam_potsa.errors import InputError, refuse
from slam_potsa.text import one_line


@dataclass(frozen=True)
class PseudoTargets:
    """What was written: a count of rows a language, and of those that had to be left out."""

    path: Path
    made: Counter[str]  # by language
    left_out: Counter[str]  # by reason

    @property
    def summary(self) -> str:
        rows = ", ".join(f"{count:,} of {code}" for code, count in sorted(self.made.items()))
        lacking = "".join(f"; left out: {n:,} {why}" for why, n in sorted(self.left_out.items()))
        return f"{self.path}: {rows or 'no rows'} with targets by the model{lacking}"


def write_pseudo_targets(
    output: str | Path,
    config: PotsaConfig,
    manifest: str | Path,
    *,
    of: str = "partner",
    languages: Collection[str] = (),
    partner_language: str | None = None,
    target_language: str | None = None,
    processes: int = 1,
) -> PseudoTargets:
    """Write `output`: the rows of `manifest`, those of the joining languages with made targets.

    What is decoded stays beside it (`<output>_heard.jsonl`, `<output>_predictions.jsonl`, without
    its suffix); an interrupted call goes on where it stopped, a repeated one decodes nothing.

    Args:
        config: of a finished run, see `decode.load_run`; its `decode` rules the search.
        of: "partner" or "own": whose recording is translated. A partner that has a target is
            preferred to one without, then the first of the manifest is taken.
        languages: those that join; none: all of which no row has a target.
        partner_language: of the partners; None: any that does not join.
        target_language: where the recordings that are translated do not say it.

    Rows without a partner, or whose answer is empty, are left out and counted. Raises InputError
    for rows that have a target already, and where no row is left to translate.
    """
    output, data = Path(output), config.dataset_config
    if task_to_decode(data.tasks, data.test_task) == "asr":
        raise InputError("the run transcribes (dataset_config.tasks): expected one that translates")
    if output.resolve() == Path(manifest).resolve():
        raise InputError(f"{output}: is the input too; give another output")
    rows = [
        replace(u, audio=rebased(u.audio, Path(manifest).parent, output))
        for u in read_manifest(manifest, joining=tuple(languages))
    ]
    joining = _joining(rows, languages)
    if of == "partner":
        heard = _partners(rows, joining, partner_language)
    else:
        heard = {u.key: u for u in rows if u.language in joining}
    asked = {u.key: _without_text(u, target_language) for u in heard.values()}
    to_hear, prefix = output.with_name(f"{output.stem}_heard.jsonl"), output.with_suffix("")
    write_manifest(to_hear, asked.values())
    if why_decode(prefix, config, to_hear):
        decode_to(prefix, config, to_hear, processes=processes)
    made = {found.key: found for found in read_predictions(predictions_file(prefix))}
    kept, counts, left_out = [], Counter(), Counter()
    for row in rows:
        if row.language not in joining:
            kept.append(row)
        elif row.key not in heard:
            left_out["without a partner"] += 1
        elif text := one_line(made[heard[row.key].key].prediction).strip():
            language = asked[heard[row.key].key].target_language
            marks = {"target": text, "target_language": language, "synthetic": "target"}
            kept.append(replace(row, **marks))
            counts[row.language] += 1
        else:
            left_out["with an empty answer"] += 1
    write_manifest(output, kept)
    return PseudoTargets(output, counts, left_out)


def _joining(rows: Sequence[Utterance], languages: Collection[str]) -> set[str]:
    spoken = {row.language for row in rows}
    joining = set(languages) or spoken - {row.language for row in rows if row.target}
    there = f"the manifest has {', '.join(sorted(spoken))}"
    refuse(f"language {code!r} is to get targets: {there}" for code in sorted(joining - spoken))
    if not joining:
        raise InputError("every language of the manifest has targets: there are none to make")
    return joining


def _partners(
    rows: Sequence[Utterance], joining: Collection[str], language: str | None
) -> dict[str, Utterance]:
    """By the key of a row that joins, the recording that is translated for it."""
    others = [u for u in rows if u.language not in joining and language in (None, u.language)]
    first: dict[str, Utterance] = {}
    for other in sorted(others, key=lambda u: u.target is None):
        first.setdefault(other.sentence_id, other)
    own = [u for u in rows if u.language in joining]
    found = {u.key: first[u.sentence_id] for u in own if u.sentence_id in first}
    if not found:
        raise InputError(
            f"{', '.join(sorted(joining))}: no sentence_id is spoken in {language or 'another'} "
            "language too; give the same sentence_id to recordings of one meaning, or translate "
            "their own recordings with --of own"
        )
    return found


def _without_text(row: Utterance, target_language: str | None) -> Utterance:
    """The row as it is decoded: the true texts change nothing, and are no part of what is made."""
    target_language = row.target_language or target_language
    if target_language is None:
        raise InputError(
            f"utterance {row.key!r} says no target_language: give --target-language, such as zh"
        )
    return replace(row, transcript=None, target=None, target_language=target_language)
