"""Manifests from the files of other projects: `convert`, and READERS, the known formats.

All are JSON Lines (`.gz` too); what a row does not say, options of `convert` do.

slam_llm, SLAM-LLM's asr_librispeech: one text, the transcript, or with --target-language the
translation. ms_swift too: one recording and one answer a row; system messages are passed over.

    {"key": "1001-134707-0000_ASR", "source": "/data/1001-134707-0000.wav", "target": "1 little..."}
    {"messages": [{"role": "user", "content": "<audio>Translate the speech to Chinese:"},
                  {"role": "assistant", "content": "你好。"}], "audios": ["/data/a.wav"]}

cot_st, SLAM-LLM's `st_covost2`: the prompt ends in the language to write, whose tag divides the
texts; `source` ends in the spoken and the target language. Rows that prompt with the transcript
repeat others and are left out. llm_srt (github.com/yxduir/LLM-SRT) has the spoken language too, in
ISO 639-3; its result files say `audio_path`. One tag is a transcription.

    {"audio": "a.mp3", "prompt": "<|zh|>", "gt": "Hello.<|zh|>你好。", "source": "covost_enzh"}
    {"audio": "eng/test/139.wav", "source": "fleurs_eng_cmn", "prompt": "<|eng|><|cmn|>",
     "gt": "They have feet.<|eng|><|cmn|>它们有脚。"}

nemo, NVIDIA NeMo with Canary's fields: `text` is what the model shall write, the translation where
`target_lang` is another language or the task says so. Manifests of speech LLMs have it in `answer`
("na": none), next to the transcript in `text`. Rows with an `offset` are refused: parts of a
recording. key, sentence_id and, of a translation, transcript may be there too.

    {"audio_filepath": "a.wav", "duration": 3.5, "text": "hallo", "source_lang": "en",
     "target_lang": "de", "taskname": "ast", "pnc": "yes"}

lhotse, Lhotse's cuts, one recording and one supervision a cut: the key is the cut's id, transcript
and language are the supervision's, whose custom fields may be `translation`, `target_language` and
`sentence_id`, or `translated_text` (`{language: text}`, of the IWSLT recipe). Cuts that are a part
of their recording, one of its channels, changed, mixed or features are refused. Shar's folders are
read too, as are those of webdataset (`shards.py`), whose `text` is the only one, as slam_llm's.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from slam_potsa.data import manifest
from slam_potsa.data.archives import split_reference
from slam_potsa.data.jsonl import Problems, Row, check_fields, read_rows, wrong_field
from slam_potsa.data.languages import short_code
from slam_potsa.data.manifest import Utterance
from slam_potsa.data.rows import FIELDS, VALID
from slam_potsa.data.shards import samples, shar_audio, shards
from slam_potsa.errors import InputError, each

REMEDIES = {  # what a row may lack, and an option gives
    "language": "give --language, such as fr",
    "target_language": "give --target-language, such as zh",
    "sentence_id": "give --sentence-id transcript|target|key|audio: what tells sentences apart",
}
TRANSLATION = ("ast", "s2t_translation")  # NeMo's `taskname`; NeMo 1.23 knows the second only
LENGTH_TOLERANCE = 0.01  # seconds by which a cut may be shorter than its recording
CUT_REMEDY = "write its audio with CutSet.save_audios first"
_TAG = re.compile(r"<\|([A-Za-z]{2,3}(?:[-_][A-Za-z]+)*)\|>")
_TAGS_AT_END = re.compile(rf"(?:{_TAG.pattern})*$")
Values = dict[str, Any]  # of a row, by its format's names; manifest fields, as far as it has them


class Fill(NamedTuple):
    """What the user says about rows that do not say it themselves."""

    language: str | None
    target_language: str | None
    sentence_id: str | None
    file: Path = Path()

    @property
    def one_text(self) -> str:
        """Which field the only text of a row is."""
        return "target" if self.target_language else "transcript"


def convert(
    source: str | Path,
    output: str | Path,
    *,
    source_format: str = "manifest",
    language: str | None = None,
    target_language: str | None = None,
    sentence_id: str | None = None,
    audio_root: str | Path | None = None,
) -> str:
    """Write the manifest `output`; the options are those of `slam-potsa prepare convert --help`.

    Where a format has one text and nothing says which, a target language means that it is the
    translation. Relative audio paths are re-based so that they stay right.

    Returns what was done, in words. Raises InputError for an unknown format and with every bad line
    of `source`.
    """
    source, output = Path(source), Path(output)
    formats = ("manifest", *READERS)
    if source_format not in formats:
        raise InputError(f"format {source_format!r}: expected one of {', '.join(formats)}")
    if os.path.realpath(source) == os.path.realpath(output):
        raise InputError(f"{output}: is the input too; give another output")
    codes = [value and short_code(value) for value in (language, target_language)]
    fill = Fill(*codes, sentence_id)
    base = Path(audio_root or (source if source.is_dir() else source.parent))
    if source_format != "manifest":
        reader = partial(read_foreign, name=source_format, fill=fill)
        read = each(reader, shards(source, source_format), workers=1).values()
        utterances, repeated = [u for own, _ in read for u in own], sum(n for _, n in read)
    elif any(fill[:3]):
        raise InputError(
            f"{source}: a manifest says its languages and sentence ids itself: leave the options "
            f"out, or say with --from what format the input is in"
        )
    else:
        utterances, repeated = manifest.read_manifest(source, needs=()), 0
    moved = (replace(u, audio=u.audio and rebased(u.audio, base, output)) for u in utterances)
    manifest.write_manifest(output, moved)
    summary = f"{output}: {len(utterances)} utterances"
    summary += f"; left out: {repeated} rows that tell nothing new" * bool(repeated)
    paths = (base / split_reference(u.audio)[0] for u in utterances if u.audio)
    if absent := sum(not path.is_file() for path in paths):
        summary += f"\nwarning: {absent} recordings are not where the paths point; relative paths "
        summary += "are looked up from the folder of the input, or from --audio-root"
    return summary


def rebased(audio: str, base: Path, output: Path) -> str:
    """A path relative to `base` as one relative to the manifest `output`. Absolute ones stay.

    Links in both folders are followed: `..` out of a linked folder goes to where it really is.
    """
    path, member = split_reference(audio)
    if not os.path.isabs(path):
        path = os.path.relpath(base.resolve() / path, output.parent.resolve())
    return path if member is None else f"{path}:{member}"


def read_foreign(path: Path, name: str, fill: Fill) -> tuple[list[Utterance], int]:
    """The utterances of a file in the format `name`, and how many rows tell nothing new; relative
    audio paths are as in the file.

    Raises InputError with every bad row, as those of manifests; what is missing in rows is said
    with the option that gives it.
    """
    problems, rows, fill = Problems(path), [], fill._replace(file=path)
    for number, row in (samples if name == "webdataset" else read_rows)(path, problems):
        try:
            rows.append(Row(number, READERS[name](row, fill)))
        except InputError as error:
            problems.add(number, str(error))
    count, seen = len(rows), Counter[str]()
    rows = without_repetitions(rows) if name in OF_TASKS else rows
    utterances = [_complete(row, fill, seen, problems) for row in rows]
    problems.check()
    if not rows:
        raise InputError(f"{path}: found no row")
    return utterances, count - len(rows)


def without_repetitions(rows: Sequence[Row]) -> list[Row]:
    """Some files hold tasks, manifests hold recordings: a row that tells nothing new goes, such as
    the task that prompts with the transcript, or transcription of a recording that has the same
    transcript and a translation in another row."""
    told = {(v["audio"], v["transcript"]) for _, v in rows if v.get("target")}
    kept: dict[tuple, Row] = {}
    for row in rows:
        name = row.values["audio"], row.values["transcript"], row.values.get("target")
        if name[2] or name[:2] not in told:
            kept.setdefault(name, row)
    return list(kept.values())


def _complete(row: Row, fill: Fill, seen: Counter, problems: Problems) -> Utterance:
    """With what the row lacks filled in; what is wrong with it goes to `problems`.

    Keys that are not there are the recordings' paths, numbered from the second that is alike;
    `seen` counts them.
    """
    values = dict.fromkeys(FIELDS) | row.values
    path = PurePosixPath(values["audio"])
    if not values["key"]:
        name = (path.with_suffix("") if path.name else path).as_posix().strip("/.")
        seen[name] += 1
        values["key"] = f"{name}-{seen[name]}" if seen[name] > 1 else name
    values["language"] = values["language"] or fill.language
    if values["target"]:
        values["target_language"] = values["target_language"] or fill.target_language
    ids = {"key": values["key"], "audio": path.stem}
    for text, language in (("transcript", "language"), ("target", "target_language")):
        if fill.sentence_id == text and values[text] and values[language]:
            ids[text] = manifest.text_sentence_id(values[text], values[language])
    values["sentence_id"] = values["sentence_id"] or ids.get(fill.sentence_id)
    for name, remedy in REMEDIES.items():
        if not values[name] and (name != "target_language" or values["target"]):
            problems.add(row.number, f"no {name}; {remedy}")
    problems.once(row.number, values["key"])
    check_fields(Row(row.number, values), VALID, problems)
    return Utterance(**values)


# --- fields of a row ---


def text(row: Values, *names: str) -> str | None:
    """The first of these fields that is there, on one line: manifests hold one line a text. None
    for null and "". Raises InputError where it is no text."""
    for name in names:
        value = row.get(name)
        if value is not None and not isinstance(value, str):
            raise wrong(name, value, "text")
        if value and value.strip():
            return " ".join(value.split()) if re.search(r"[\t\n\r]", value) else value.strip()
    return None


def needed(row: Values, *names: str) -> str:
    """`text`. Raises InputError where there is none."""
    if not (found := text(row, *names)):
        raise wrong(names[0], row.get(names[0]), "text")
    return found


def code(row: Values, *names: str) -> str | None:
    """`text` that names a language in any spelling, as the manifest's code. Raises InputError."""
    return (found := text(row, *names)) and short_code(found)


def wrong(name: str, found: Any, expected: str) -> InputError:
    """The error that tells what a row's field holds and what it should."""
    return InputError(wrong_field(name, found, expected))


# --- a reader for each format: a row -> manifest fields; raises InputError ---


def _slam_llm(row: Values, fill: Fill) -> Values:
    if row.get("audio"):
        raise wrong("audio", row["audio"], "none beside 'source', as cot_st and llm_srt have it")
    values = {"key": text(row, "key"), "audio": needed(row, "source")}
    return values | {fill.one_text: text(row, "target")}


def _ms_swift(row: Values, fill: Fill) -> Values:
    audios, turns = row.get("audios", row.get("audio")), row.get("messages")
    if row.get("query") and not turns and not row.get("history"):
        turns = [{"role": "user"}, {"role": "assistant", "content": row.get("response")}]
    if isinstance(turns, list):
        spoken = [m for m in turns if not (isinstance(m, dict) and m.get("role") == "system")]
        match [audios] if isinstance(audios, str) else audios, spoken:
            case [str(audio)], [{"role": "user"}, {"role": "assistant", "content": str()}]:
                return {"audio": audio, fill.one_text: text(spoken[1], "content")}
    expected = "one message of the user and one of the assistant, and one path in 'audios'"
    raise wrong("messages", turns, expected)


def _tagged(row: Values, fill: Fill, spoken_too: bool) -> Values:
    """llm_srt, whose tags say the spoken language too, and cot_st."""
    audio = needed(row, "audio", *["audio_path"] * spoken_too)
    prompt, answer = needed(row, "prompt"), needed(row, "gt")
    marker = _TAGS_AT_END.search(prompt)[0]
    tags = _TAG.findall(marker)
    if len(tags) not in (1, 1 + spoken_too):
        expected = "'<|eng|><|cmn|>'" if spoken_too else "one language, such as '<|zh|>'"
        raise wrong("prompt", prompt, f"at its end {expected}")
    codes = [short_code(tag) for tag in tags]
    transcript, divided, target = answer.partition(marker)
    values = {"key": text(row, "key"), "audio": audio, "transcript": transcript.strip()}
    if not divided:
        if len(codes) == 2:
            raise wrong("gt", answer, f"transcript{marker}translation")
        return values | {"language": codes[0]}
    spoken = codes[0] if spoken_too else _spoken(text(row, "source") or "", tags[0])
    return values | {"target": target.strip(), "target_language": codes[-1], "language": spoken}


def _spoken(source: str, target: str) -> str | None:
    """`covost_enzh` and `covost_enenzh` with target `zh` -> `en`; None where it cannot be told."""
    match = re.fullmatch(rf".*_([A-Za-z-]+?)\1?{target}", source)
    return short_code(match[1]) if match else None


def _nemo(row: Values, fill: Fill) -> Values:
    if row.get("conversations"):
        remedy = "none: write a row of audio_filepath and text for each answer"
        raise wrong("conversations", row["conversations"], remedy)
    if row.get("offset"):
        raise wrong("offset", row["offset"], "0: cut the recording into files first")
    values: Values = {
        "key": text(row, "key"),
        "audio": needed(row, "audio_filepath"),
        "language": code(row, "source_lang", "lang"),
        "sentence_id": text(row, "sentence_id"),
        "duration": row.get("duration"),
    }
    said, answer = text(row, "text"), text(row, "answer")
    answer = None if answer == "na" else answer
    written = code(row, "target_lang") or fill.target_language
    translated = written != (values["language"] or fill.language)
    if written is None or not (translated or text(row, "taskname", "task") in TRANSLATION):
        return values | {"transcript": answer or said}
    transcript = text(row, "transcript") or (said if answer and answer != said else None)
    values |= {"transcript": transcript, "target": answer or said}
    # Without a target it is a manifest for inference.
    return values | {"target_language": written if values["target"] else None}


def _webdataset(row: Values, fill: Fill) -> Values:
    values = {name: text(row, name) for name in ("key", "transcript", "target", "sentence_id")}
    values |= {name: code(row, name) for name in ("language", "target_language")}
    one_text = values[fill.one_text] or text(row, "text")
    return values | {"audio": needed(row, "audio"), fill.one_text: one_text}


def _lhotse(row: Values, fill: Fill) -> Values:
    try:
        (supervision,), recording = row["supervisions"], row["recording"]
        (source,) = [one for one in recording["sources"] if one["type"] in ("file", "shar")]
        custom = (row.get("custom") or {}) | (supervision.get("custom") or {})
        ours = {custom.get("target_language"): custom.get("translation")}
        ((written, target),) = custom.get("translated_text", ours).items()
        whole = row["start"] <= 0 and row["duration"] >= recording["duration"] - LENGTH_TOLERANCE
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        expected = "a MonoCut with one supervision, one translation at most, of one audio file"
        raise wrong("type", row.get("type"), f"{expected}; {CUT_REMEDY}") from None
    # What Lhotse makes of the file before it is heard, and we would not.
    if recording.get("transforms"):
        raise wrong("transforms", recording["transforms"], f"none of a recording; {CUT_REMEDY}")
    if isinstance(channels := source.get("channels"), list) and len(channels) > 1:
        raise wrong("channels", channels, f"one channel of the recording's source; {CUT_REMEDY}")
    if not whole:
        expected = f"{recording.get('duration')}, all of its recording; {CUT_REMEDY}"
        raise wrong("duration", row.get("duration"), expected)
    target, is_shar = text({"translation": target}, "translation"), source["type"] == "shar"
    return {
        "key": text(row, "id"),
        "audio": shar_audio(fill.file, row["id"]) if is_shar else needed(source, "source"),
        "language": code(supervision, "language"),
        "transcript": text(supervision, "text"),
        "sentence_id": custom.get("sentence_id"),
        "duration": row["duration"],
        "target": target,
        "target_language": short_code(written) if target and written else None,
    }


READERS = {
    "slam_llm": _slam_llm,
    "cot_st": partial(_tagged, spoken_too=False),
    "llm_srt": partial(_tagged, spoken_too=True),
    "nemo": _nemo,
    "ms_swift": _ms_swift,
    "lhotse": _lhotse,
    "webdataset": _webdataset,
}
OF_TASKS = ("cot_st", "llm_srt")  # rows are tasks: several may tell the same of a recording
