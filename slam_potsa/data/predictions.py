"""Prediction files: one translated utterance a line, with all that scoring it needs.

`predictions.jsonl` is this package's own form; `<decode_log>_pred` and `<decode_log>_gt`
(`key<TAB>text`) are SLAM-LLM's, which carry no language and get it from the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        heard: what the system says it heard before it translated (task cot); None where its text
            does not tell.
        alternatives: the n best (text, score), the prediction first; the score is the mean log
            probability of a token (with length_penalty 1). None where one was asked for.
    """

    key: str
    language: str
    source: str
    target_language: str
    reference: str | None
    prediction: str
    beam: int = 1
    transcript: str | None = None
    heard: str | None = None
    alternatives: tuple[tuple[str, float], ...] | None = None


_OPTIONAL = {"reference", "transcript", "heard"}  # of the texts
_LEFT_OUT = ("heard", "alternatives")  # where they are None: few files have them


def write_predictions(path: str | Path, predictions: Iterable[Prediction]) -> None:
    """Write JSON Lines in the order given; the same predictions give the same bytes."""
    lines = []
    for item in predictions:
        row = {k: v for k, v in asdict(item).items() if v is not None or k not in _LEFT_OUT}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    atomic_write(path, "".join(lines))


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


def rewrite_pred(
    decode_log: str | Path, utterances: Sequence[Utterance], read: Callable[[Utterance, str], str]
) -> None:
    """Put `read(utterance, text)` for every text of `<decode_log>_pred`; keep the file as `_raw`.

    Raises InputError for lines without a tab and keys that `utterances` lack; nothing is written.
    """
    pred_path, problems = Path(f"{decode_log}_pred"), []
    written = _keyed_lines(pred_path, problems)
    known = {utterance.key: utterance for utterance in utterances}
    problems += _absent(written, known, pred_path, "the manifest")
    if problems:
        raise InputError(problems)
    lines = [f"{key}\t{_one_line(read(known[key], text))}\n" for key, text in written.items()]
    atomic_write(f"{decode_log}_raw", pred_path.read_bytes())
    atomic_write(pred_path, "".join(lines))


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
    names = [field.name for field in fields(Prediction)]
    problems = [
        f"{place}: field {name!r}: {problem}"
        for name in names
        if (problem := _field_problem(name, values.get(name)))
    ]
    unknown = sorted(set(values) - set(names))
    if unknown:
        problems.append(f"{place}: unknown fields {', '.join(unknown)}; known: {', '.join(names)}")
    if problems:
        return problems, None
    given = {name: values[name] for name in names if values.get(name) is not None}
    if "alternatives" in given:
        given["alternatives"] = tuple((text, score) for text, score in given["alternatives"])
    return [], Prediction(**({"reference": None} | given))


def _field_problem(name: str, value: Any) -> str:
    """Why `value` cannot be the field `name`; empty where it can."""
    if value is None:
        optional = name in _OPTIONAL or name in ("beam", "alternatives")
        return "" if optional else "missing; expected a string"
    if name == "beam":
        good = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        return "" if good else f"found {value!r}, expected 1, 2, …"
    if name == "alternatives":
        good = isinstance(value, list) and all(map(_is_alternative, value))
        return "" if good else f"found {value!r}, expected a list of [text, score]"
    return "" if isinstance(value, str) else f"found {value!r}, expected a string"


def _is_alternative(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    text, score = value
    number = isinstance(score, int | float) and not isinstance(score, bool)
    return isinstance(text, str) and number


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
