"""Prediction files: one translated utterance a line, with all that scoring it needs.

`predictions.jsonl` is this package's own form; `<decode_log>_pred` and `<decode_log>_gt`
(`key<TAB>text`) are SLAM-LLM's, which carry no language and get it from the manifest, as do plain
files of hypotheses and references, one a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from slam_potsa.data import jsonl
from slam_potsa.data.jsonl import read_lines
from slam_potsa.data.manifest import Utterance, read_manifest
from slam_potsa.data.rows import alike
from slam_potsa.errors import InputError
from slam_potsa.files import atomic_write
from slam_potsa.provenance import refuse_damaged
from slam_potsa.text import one_line, some


@dataclass(frozen=True)
class Prediction:
    """One decoded utterance; the fields are those of the file."""

    key: str  # the utterance's in its manifest
    language: str  # that is spoken, such as "fr"
    source: str  # the recording, as the manifest names it; empty: of text alone
    target_language: str  # translated into, such as "en"
    reference: str | None  # the true translation; None: it cannot be scored
    prediction: str  # what the system wrote; may be empty
    beam: int = 1  # beams it was decoded with; 1 is greedy
    transcript: str | None = None  # what was said, where known
    # What the system says it heard before it translated (cot); None where its text does not tell.
    heard: str | None = None
    sentence_id: str | None = None  # the manifest's; the same for recordings of one meaning
    cross_entropy: float | None = None  # of the reference given the speech, in nats a token
    # The n best (text, mean log probability of a token), the prediction first, where asked for.
    alternatives: tuple[tuple[str, float], ...] | None = None
    cut: bool | None = None  # did it reach max_new_tokens before it ended?
    synthetic: str | None = None  # what of the manifest's row a machine made: "target" or "audio"


_REQUIRED = ("key", "language", "source", "target_language", "prediction")
# where they are None
_LEFT_OUT = ("heard", "sentence_id", "cross_entropy", "alternatives", "cut", "synthetic")


def write_predictions(path: str | Path, predictions: Iterable[Prediction]) -> None:
    """Write JSON Lines in the order given; the same predictions give the same bytes."""
    rows = (vars(prediction).items() for prediction in predictions)
    jsonl.write_rows(
        path, ({k: v for k, v in row if v is not None or k not in _LEFT_OUT} for row in rows)
    )


def read_predictions(path: str | Path) -> list[Prediction]:
    """Read `predictions.jsonl`. Raises InputError with every bad line at once, and where the record
    of the decoding beside it speaks of another file."""
    refuse_damaged(path, str(path).removesuffix("_predictions.jsonl") + ".done.json")
    problems, predictions = jsonl.Problems(path), []
    for row in jsonl.read_rows(path, problems, "predictions as JSON Lines"):
        if jsonl.check_fields(row, _VALID, problems, _REQUIRED):
            number, values = row
            name = values["key"], values["target_language"]
            problems.once(number, name, "key, target_language")
            given = {k: values[k] for k in _VALID if values.get(k) is not None}
            if "alternatives" in given:
                given["alternatives"] = tuple(map(tuple, given["alternatives"]))
            predictions.append(Prediction(**{"reference": None, **given}))
    problems.check()
    ids = alike(pa.chunked_array([[p.sentence_id for p in predictions]], pa.string())).to_pylist()
    pairs = zip(predictions, ids, strict=True)
    return [p if p.sentence_id == own else replace(p, sentence_id=own) for p, own in pairs]


@dataclass(frozen=True)
class Origin:
    """What files of bare texts do not say of themselves."""

    target_language: str = ""
    language: str = ""  # that is spoken
    manifest: str | Path | None = None  # tells both by key, of a plain file by line
    references: str | Path | None = None  # a plain file's; of `_pred` it is its `_gt`


def read_texts(path: str | Path, origin: Origin) -> list[Prediction]:
    """SLAM-LLM's `<decode_log>_pred` with its `_gt`, or plain hypotheses with their references.

    Raises InputError where they do not belong together, or a language is not told.
    """
    keyed = origin.references is None
    truth = str(path).removesuffix("_pred") + "_gt" if keyed else origin.references
    rows = read_manifest(origin.manifest) if origin.manifest else []
    known = {row.key if keyed else str(at): row for at, row in enumerate(rows, start=1)}
    found, true = _texts(path, keyed), _texts(truth, keyed)
    if list(found) != list(true):
        told = f"found {len(found)} and {len(true)} lines, or other keys"
        raise InputError(f"{path} and {truth}: {told}; expected the same texts, in one order")
    if rows and (found.keys() - known.keys() or (not keyed and len(found) != len(rows))):
        told = some(sorted(found.keys() - known.keys())) or f"only {len(found)} of its rows"
        raise InputError(f"{path}: not of {origin.manifest}: {told}")
    nothing = Utterance("", "", "und", "")
    return [_placed(known.get(key, nothing), key, found[key], true[key], origin) for key in found]


def _placed(row: Utterance, key: str, text: str, gold: str, origin: Origin) -> Prediction:
    target = origin.target_language or row.target_language
    if not target:
        raise InputError(f"{key!r}: into which language? Give --target-language, or --manifest")
    about = {"sentence_id": row.sentence_id or None, "synthetic": row.synthetic}
    spoken = origin.language or row.language
    return Prediction(row.key or key, spoken, row.audio or "", target, gold, text, **about)


def _texts(path: str | Path, keyed: bool) -> dict[str, str]:
    """By key, or number of the line."""
    problems, found = jsonl.Problems(path), {}
    for number, line in read_lines(path, problems, "a text a line", blank=not keyed):
        key, tab, text = line.partition("\t") if keyed else (str(number), "\t", line)
        problems.once(number, key)
        found[key] = text
        if not tab:
            problems.add(number, "found no tab, expected SLAM-LLM's key<TAB>text")
    problems.check()
    return found


def write_pred_gt(decode_log: str | Path, predictions: Sequence[Prediction]) -> None:
    """Write `<decode_log>_pred` and `<decode_log>_gt` as SLAM-LLM does."""
    for suffix, name in (("pred", "prediction"), ("gt", "reference")):
        texts = ((p.key, one_line(getattr(p, name) or "")) for p in predictions)
        atomic_write(f"{decode_log}_{suffix}", "".join(f"{k}\t{text}\n" for k, text in texts))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_answers(value: Any) -> bool:
    pairs = isinstance(value, list) and all(isinstance(v, list) and len(v) == 2 for v in value)
    return pairs and all(jsonl.is_text(text) and jsonl.is_number(score) for text, score in value)


_VALID: jsonl.Fields = {field.name: (jsonl.is_text, "a string") for field in fields(Prediction)}
_VALID |= {name: (jsonl.is_line, "a line of text") for name in ("key", "language")} | {
    "source": (lambda value: value == "" or jsonl.is_line(value), "a line of text, or '' for none"),
    "beam": (_is_count, "1, 2, …"),
    "cross_entropy": (jsonl.is_number, "a number"),
    "alternatives": (_are_answers, "a list of [text, score]"),
    "cut": (lambda value: isinstance(value, bool), "true or false"),
}
