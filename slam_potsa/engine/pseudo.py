"""Targets by a finished model for speech that has none: sequence-level distillation.

A recording of a language that joins gets as target what the model makes of its partner, another
recording of the sentence in a language that it knows, or of itself. Such rows are marked
`"synthetic": "target"` and train as any others.

Source: Kim and Rush, "Sequence-level knowledge distillation" (2016); from a partner's speech: ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from slam_potsa.config import PotsaConfig
from slam_potsa.data.convert import rebased
from slam_potsa.data.manifest import Utterance, read_manifest, write_manifest
from slam_potsa.data.predictions import read_predictions
from slam_potsa.data.tasks import task_to_decode
from slam_potsa.engine.decode import decode_to, predictions_file, why_decode
from slam_potsa.errors import InputError, refuse


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
) -> str:
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

    Returns what was done, in words: rows without a partner, or with an empty answer, are left out
    and counted. Raises InputError for rows that have a target already, and for no row to translate.
    """
    output, data = Path(output), config.dataset_config
    if task_to_decode(data.tasks, data.test_task) == "asr":
        raise InputError("the run transcribes (dataset_config.tasks): expected one that translates")
    if output.resolve() == Path(manifest).resolve():
        raise InputError(f"{output}: is the input too; give another output")
    found = read_manifest(manifest, joining=tuple(languages))
    rows = [replace(u, audio=rebased(u.audio, Path(manifest).parent, output)) for u in found]
    joining = _joining(rows, languages)
    partners = {} if of == "own" else _partners(rows, joining, partner_language)
    own = [row for row in rows if row.language in joining]
    heard = {row.key: row if of == "own" else partners.get(row.sentence_id) for row in own}
    if not any(heard.values()):
        raise InputError(
            f"{', '.join(sorted(joining))}: no sentence_id is spoken in "
            f"{partner_language or 'another'} language too; give the same sentence_id to "
            "recordings of one meaning, or translate their own recordings with --of own"
        )
    asked = {row.key: _without_text(row, target_language) for row in heard.values() if row}
    to_hear, prefix = output.with_name(f"{output.stem}_heard.jsonl"), output.with_suffix("")
    write_manifest(to_hear, asked.values())
    if why_decode(prefix, config, to_hear):
        decode_to(prefix, config, to_hear, processes=processes)
    answers = read_predictions(predictions_file(prefix))
    texts = {answer.key: " ".join(answer.prediction.split()) for answer in answers}
    written, told = [], Counter()
    for row in rows:
        if row.key in heard:
            source = heard[row.key]
            text = source and texts[source.key]
            told["with a target by the model" if text else "left out"] += 1
            if not text:
                continue
            code = asked[source.key].target_language
            row = replace(row, target=text, target_language=code, synthetic="target")
        written.append(row)
    write_manifest(output, written)
    counts = ", ".join(f"{count:,} {what}" for what, count in sorted(told.items()))
    return f"{output}: of the rows in {', '.join(sorted(joining))} {counts}"


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
    """By sentence: the first that has a target, else the first."""
    others = [u for u in rows if u.language not in joining and language in (None, u.language)]
    return {u.sentence_id: u for u in sorted(others[::-1], key=lambda u: u.target is not None)}


def _without_text(row: Utterance, target_language: str | None) -> Utterance:
    """The row as it is decoded: the true texts change nothing, and are no part of what is made."""
    target_language = row.target_language or target_language
    if target_language is None:
        raise InputError(
            f"utterance {row.key!r} says no target_language: give --target-language, such as zh"
        )
    return replace(row, transcript=None, target=None, target_language=target_language)
