"""Any Hugging Face dataset, on disk or by name, as manifests: columns mapped to fields.

Rows are streamed; a recording is kept as it is stored. Interrupt and repeat the call: what was read
is not read again. `hf.yaml` has the mappings that are known by name, and how one is written.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

from slam_potsa.data.jsonl import Log
from slam_potsa.data.languages import short_code
from slam_potsa.data.manifest import Utterance, text_sentence_id
from slam_potsa.data.rows import FIELDS
from slam_potsa.data.sources import corpus
from slam_potsa.data.sources.corpus import Corpus, Recording
from slam_potsa.errors import InputError
from slam_potsa.files import atomic_write

MAPPINGS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def build(
    output: str | Path,
    *,
    dataset: str,
    config: str = "",
    splits: Sequence[str] = ("train", "validation", "test"),
    mapping: str | None = None,
    columns: Sequence[str] = (),
    language: str = "",
    target_language: str = "",
    max_dropped: float = corpus.MOST,
    replace: bool = False,
    progress: bool = True,
) -> Corpus:
    """Write `output`/{train,dev,test}.jsonl, audio/, dropped.jsonl and summary.json.

    Raises InputError for a dataset that is not there, a mapping that is not known, and columns that
    the dataset does not have, with those that it has.
    """
    output, named = Path(output), dict(column.partition("=")[::2] for column in columns)
    fields = MAPPINGS.get(mapping, {}) | {name: f"{{{column}}}" for name, column in named.items()}
    if "audio" not in fields or set(fields) - set(FIELDS) or mapping not in (None, *MAPPINGS):
        known = (
            f"one of {', '.join(MAPPINGS)}, or --columns audio=COLUMN ..., of {', '.join(FIELDS)}"
        )
        raise InputError(f"mapping {mapping!r}, columns {[*columns]}: expected --mapping, {known}")
    codes = {"language": language, "target_language": target_language}
    fields |= {name: short_code(code) for name, code in codes.items() if code}
    fields = {name: text.replace("TARGET", target_language) for name, text in fields.items()}
    choices = {"dataset": dataset, "config": config, "fields": fields, "splits": [*splits]}
    corpus.refuse_another(output, choices, replace)
    found: list[Recording] = []
    for split in splits:
        name = "dev" if split.startswith(("val", "dev")) else split.partition("[")[0]
        rows = opened(dataset, config, split, fields)
        with Log(output / f"rows_{zlib.crc32(repr((choices, split)).encode()):08x}.jsonl") as log:
            new: list[dict[str, Any]] = []
            try:
                for number, row in enumerate(rows.skip(len(log.rows)), start=len(log.rows)):
                    place = output / "audio" / name / f"{number // 1000:04d}" / str(number)
                    about = {"key": f"{name}-{number:07d}", **filled(fields, row, config)}
                    new.append(about | {"audio": _kept(row[_columns(fields["audio"])[0]], place)})
                    if len(new) >= corpus.BATCH:
                        log.add(new)
                        new = []
            finally:
                log.add(new)
        found += (_recording(name, f"{split}:{at}", row) for at, row in enumerate(log.rows))
    corpus.measure(found, output, progress=progress)
    return corpus.write(output, found, choices, max_dropped=max_dropped)


def opened(dataset: str, config: str, split: str, fields: Mapping[str, str]) -> Any:
    """The rows of a split, streamed, recordings as they are stored; all columns are there."""
    try:
        from datasets import Audio, load_dataset, load_from_disk
    except ImportError as error:
        raise InputError(f"{error}: pip install 'slam-potsa[hf]'") from None
    try:
        if any(Path(dataset, name).is_file() for name in ("state.json", "dataset_dict.json")):
            held = load_from_disk(dataset)
            # One that was saved without splits is the training set, not every split.
            held = held if isinstance(held, dict) else {str(held.split or "train"): held}
            if split not in held:
                raise ValueError(f"there are {', '.join(held)}")
            rows = held[split].to_iterable_dataset()
        else:
            rows = load_dataset(dataset, config or None, split=split, streaming=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        told = f"cannot be opened ({error!r}); check name and --splits"
        raise InputError(f"{dataset} {config}".rstrip() + f", {split}: {told}") from None
    there = list(rows.column_names or next(iter(rows.take(1)), {}))
    for field, template in fields.items():
        for column in set(_columns(template)) - {*there, "config", "config_0", "config_1"}:
            told = f"no column {column!r} for {field}; there are {', '.join(there)}"
            raise InputError(f"{dataset}: {told}: give --columns {field}=COLUMN")
    return rows.cast_column(*_columns(fields["audio"]), Audio(decode=False))


def _columns(template: str) -> list[str]:
    return [name.partition("[")[0] for _, name, _, _ in Formatter().parse(template) if name]


def filled(fields: Mapping[str, str], row: Mapping[str, Any], config: str) -> dict[str, str]:
    """The fields that a row has a text for; not the recording."""
    parts, found = config.split("_"), {}
    told = {**row, "config": config, "config_0": parts[0], "config_1": parts[-1]}
    for field, template in fields.items():
        if field != "audio" and all(told.get(name) is not None for name in _columns(template)):
            found[field] = " ".join(template.format(**told).split())
    return {field: text for field, text in found.items() if text}


def _kept(audio: Mapping[str, Any] | None, place: Path) -> str:
    """The path of a recording that the dataset names or holds; "" where it has none."""
    path = (audio or {}).get("path") or ""
    if not audio or audio.get("bytes") is None:
        return path and str(Path(path).resolve())
    file = place.with_suffix(Path(path).suffix or ".audio").resolve()
    atomic_write(file, audio["bytes"])
    return str(file)


def _recording(name: str, place: str, row: dict[str, str]) -> Recording:
    said, meant = row.get("transcript"), row.get("target")
    try:
        language = short_code(row.get("language", ""))
        target = short_code(row.get("target_language", "")) if meant else None
    except InputError as error:
        return Recording(name, place, None, "language not known", str(error))
    text = (said, language) if said else (meant, target)
    sentence = row.get("sentence_id") or (text_sentence_id(*text) if all(text) else row["key"])
    about = Utterance(row["key"], row["audio"], language, sentence, said, meant, target)
    there = "" if Path(row["audio"]).is_file() else "no recording"
    return Recording(name, place, about, there or ("" if any(text) else "no text"))
