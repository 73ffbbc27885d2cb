"""Prediction files: one translated utterance a line, with all that scoring it needs.

`predictions.jsonl` is this package's own form; `<decode_log>_pred` and `<decode_log>_gt`
(`key<TAB>text`) are SLAM-LLM's, which carry no language and get it from the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from slam_potsa.errors import InputError
from slam_potsa.files import atomic_write

if TYPE_CHECKING:
    from slam_potsa.data.manifest import Utterance


@dataclass(frozen=True)
class Prediction:
    """One decoded utterance.

    Attributes:
        key: the utterance's key in its manifest.
        language: the language that is spoken, such as "fr".
        source: the recording, as the manifest names it.
        target_language: the language translated into, such as "en".
        reference: the reference translation; None where there is none (it cannot be scored then).
        prediction: what the system wrote; may be empty.
        beam: the number of beams it was decoded with; 1 is greedy.
        transcript: what was said, where known.
    """

    key: str
    language: str
    source: str
    target_language: str
    reference: str | None
    prediction: str
    beam: int = 1
    transcript: str | None = None


_OPTIONAL = {"reference", "transcript"}


def write_predictions(path: str | Path, predictions: Iterable[Prediction]) -> None:
    """Write JSON Lines in the order given; the same predictions give the same bytes."""
    lines = [json.dumps(asdict(item), ensure_ascii=False) for item in predictions]
    atomic_write(path, "".join(line + "\n" for line in lines))


def read_predictions(path: str | Path) -> list[Prediction]:
    """Read `predictions.jsonl`. Raises InputError with every bad line at once."""
    problems: list[str] = []
    predictions: list[Prediction] = []
    first_line: dict[tuple[str, str], int] = {}
    for number, line in _lines(path):
        found, record = _parse(line, f"{path}:{number}")
        problems += found
        if record is None:
            continue
        identity = (record.key, record.target_language)
        if identity in first_line:
            problems.append(
                f"{path}:{number}: field 'key': {record.key!r} into {record.target_language!r} is "
                f"already on line {first_line[identity]}; expected one prediction an utterance"
            )
        first_line.setdefault(identity, number)
        predictions.append(record)
    if problems:
        raise InputError(problems)
    return predictions


def read_pred_gt(
    pred_path: str | Path,
    gt_path: str | Path,
    *,
    utterances: Sequence[Utterance] | None = None,
    language: str | None = None,
    target_language: str | None = None,
    beam: int = 1,
) -> list[Prediction]:
    """Join SLAM-LLM's two decoding files by key, in the order of the predictions.

    Args:
        pred_path, gt_path: `<decode_log>_pred` and `<decode_log>_gt`, lines of `key<TAB>text`.
        utterances: the manifest that was decoded; gives languages, recordings and transcripts.
        language, target_language: for all lines alike, where there is no manifest; with one, they
            fill in what it leaves out.
        beam: the number of beams, which the files do not tell.

    Raises:
        InputError: every line without a tab, repeated key, key that only one of the files has or
            that the manifest lacks, and a language that nothing tells.
    """
    problems: list[str] = []
    predicted = _keyed_lines(pred_path, problems)
    references = _keyed_lines(gt_path, problems)
    known = {utterance.key: utterance for utterance in utterances or ()}
    problems += _absent(predicted, references, pred_path, gt_path)
    problems += _absent(references, predicted, gt_path, pred_path)
    if known:
        problems += _absent(predicted, known, pred_path, "the manifest")
    joined = []
    for key in predicted if not problems else ():
        utterance = known.get(key)
        spoken = getattr(utterance, "language", None) or language
        written = getattr(utterance, "target_language", None) or target_language
        if not spoken or not written:
            problems.append(
                f"{pred_path}: key {key!r}: the {'target' if spoken else 'spoken'} language is not "
                "known; give the manifest that was decoded, or the language for all lines"
            )
            continue
        source, transcript = getattr(utterance, "audio", ""), getattr(utterance, "transcript", None)
        texts = references[key], predicted[key], beam, transcript
        joined.append(Prediction(key, spoken, source, written, *texts))
    if problems:
        raise InputError(problems)
    return joined


def write_pred_gt(decode_log: str | Path, predictions: Iterable[Prediction]) -> tuple[Path, Path]:
    """Write `<decode_log>_pred` and `<decode_log>_gt` as SLAM-LLM does; return both paths."""
    predictions = list(predictions)
    pred_path, gt_path = Path(f"{decode_log}_pred"), Path(f"{decode_log}_gt")
    atomic_write(pred_path, "".join(f"{p.key}\t{_one_line(p.prediction)}\n" for p in predictions))
    atomic_write(
        gt_path, "".join(f"{p.key}\t{_one_line(p.reference or '')}\n" for p in predictions)
    )
    return pred_path, gt_path


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


def _lines(path: str | Path) -> list[tuple[int, str]]:
    """Numbered lines that are not blank. Split at \\n only: a translation may hold U+2028."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; expected a text file") from None
    numbered = enumerate(text.split("\n"), start=1)
    return [(number, line.rstrip("\r")) for number, line in numbered if line.strip()]


def _parse(line: str, place: str) -> tuple[list[str], Prediction | None]:
    """A line of predictions.jsonl as (problems, record)."""
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        return [f"{place}: not JSON ({error.msg} at column {error.colno})"], None
    if not isinstance(values, dict):
        return [f"{place}: found {type(values).__name__}, expected a JSON object"], None
    problems = []
    names = [field.name for field in fields(Prediction)]
    for name in names:
        value = values.get(name)
        missing = value is None
        if missing and name not in _OPTIONAL | {"beam"}:
            problems.append(f"{place}: field {name!r}: missing; expected a string")
        elif not missing and name == "beam":
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                problems.append(f"{place}: field 'beam': found {value!r}, expected 1, 2, …")
        elif not missing and not isinstance(value, str):
            problems.append(f"{place}: field {name!r}: found {value!r}, expected a string")
    unknown = sorted(set(values) - set(names))
    if unknown:
        problems.append(f"{place}: unknown fields {', '.join(unknown)}; known: {', '.join(names)}")
    if problems:
        return problems, None
    given = {name: values[name] for name in names if values.get(name) is not None}
    return [], Prediction(**({"reference": None} | given))


def _keyed_lines(path: str | Path, problems: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in _lines(path):
        key, tab, text = line.partition("\t")
        if not tab:
            problems.append(f"{path}:{number}: found no tab; expected key<TAB>text")
        elif key in found:
            problems.append(f"{path}:{number}: key {key!r} again; expected each key once")
        else:
            found[key] = text
    return found


def _absent(keys: dict, there: dict, here_name: object, there_name: object) -> list[str]:
    missing = [key for key in keys if key not in there]
    return [f"key {key!r} is in {here_name} and not in {there_name}" for key in missing]
