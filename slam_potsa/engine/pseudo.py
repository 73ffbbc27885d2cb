"""Targets by a finished model for speech that has none: sequence-level distillation.

A recording of a language that joins gets as target what the model makes of its partner, another
recording of the sentence in a language that it knows, or of itself. Such rows are marked
`"synthetic": "target"` and train as any others.

Source: Kim and Rush, "Sequence-level knowledge distillation" (2016); from a partner's speech: ours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
    own = {row.key: row for row in rows if row.language in joining}
    heard = own if of == "own" else _partners(rows, own, partner_language)
    if not heard:
        raise InputError(
            f"{', '.join(sorted(joining))}: no sentence_id is spoken in "
            f"{partner_language or 'another'} language too; give the same sentence_id to "
            "recordings of one meaning, or translate their own recordings with --of own"
        )
    # The true texts change nothing, and are no part of what is made.
    asked = {row.key: replace(row, transcript=None, target=None) for row in heard.values()}
    for key, row in asked.items():
        if not (code := row.target_language or target_language):
            remedy = "give --target-language, such as zh"
            raise InputError(f"utterance {key!r} says no target_language: {remedy}")
        asked[key] = replace(row, target_language=code)
    to_hear, prefix = output.with_name(f"{output.stem}_heard.jsonl"), output.with_suffix("")
    write_manifest(to_hear, asked.values())
    if why_decode(prefix, config, to_hear):
        decode_to(prefix, config, to_hear, processes=processes)
    answers = read_predictions(predictions_file(prefix))
    texts = {answer.key: " ".join(answer.prediction.split()) for answer in answers}
    made = {key: row for key, row in heard.items() if texts[row.key]}
    written = []
    for row in rows:
        if source := made.get(row.key):
            mark = {"target_language": asked[source.key].target_language, "synthetic": "target"}
            row = replace(row, target=texts[source.key], **mark)
        written += [row] * (row.key not in own or row.key in made)
    write_manifest(output, written)
    counts = f"{len(made):,} with a target by the model, {len(own) - len(made):,} left out"
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
    rows: Sequence[Utterance], own: Mapping[str, Utterance], language: str | None
) -> dict[str, Utterance]:
    """By key of those that join: of its sentence the first that has a target, else the first."""
    others = [u for u in rows if u.key not in own and language in (None, u.language)]
    others = sorted(others[::-1], key=lambda u: u.target is not None)
    partners = {u.sentence_id: u for u in others}
    return {k: partners[u.sentence_id] for k, u in own.items() if u.sentence_id in partners}
