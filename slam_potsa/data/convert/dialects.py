"""JSON Lines of six projects: an example of each, how rows are read, how they are written.

Relative paths are relative to the file in llm_srt and nemo, else to the working directory.

slam_llm, SLAM-LLM's asr_librispeech: one text, the transcript, or with --target-language the
translation; all but key, audio and that text is lost.

    {"key": "1001-134707-0000_ASR", "source": "/data/1001-134707-0000.wav", "target": "1 little..."}

ms_swift: one text as well; all but audio and that text is lost, in the other direction the user's
words. One recording and one answer a row; system messages are passed over; `audios` or `audio`.

    {"messages": [{"role": "user", "content": "<audio>Translate the speech to Chinese:"},
                  {"role": "assistant", "content": "你好。"}], "audios": ["/data/a.wav"]}

cot_st, SLAM-LLM's `st_covost2`: the prompt ends in the language to write, whose tag divides the
texts; `source` ends in the spoken and the target language. Rows that prompt with the transcript
(`Hello.<|zh|>`, `covost_enenzh`) repeat others and are left out.

    {"audio": "a.mp3", "prompt": "<|zh|>", "gt": "Hello.<|zh|>你好。", "source": "covost_enzh"}
    {"audio": "b.mp3", "prompt": "<|en|>", "gt": "Hello.", "source": "covost_en"}

llm_srt (github.com/yxduir/LLM-SRT, data/README.md): the spoken language too, in ISO 639-3; older
files say `zho` for `cmn`, result files `audio_path`. One tag, transcription only, is our own use.

    {"audio": "eng/test/139.wav", "source": "fleurs_eng_cmn", "prompt": "<|eng|><|cmn|>",
     "gt": "They have feet.<|eng|><|cmn|>它们有脚。"}

Lost in both: sentence_id, duration; in the other direction the corpus in `source`, written as
`covost` and `fleurs`.

nemo, NVIDIA NeMo with Canary's fields: `text` is what the model shall write, the translation where
`target_lang` is another language or the task says so. Manifests of speech LLMs have it in `answer`
("na": none), next to the transcript in `text`. Rows with an `offset` are refused: parts of a
recording. key, sentence_id and, of a translation, transcript are fields of our own, which NeMo
keeps; a missing duration is measured.

    {"audio_filepath": "a.wav", "duration": 3.5, "text": "hello", "lang": "en"}
    {"audio_filepath": "a.wav", "duration": 3.5, "text": "hallo", "source_lang": "en",
     "target_lang": "de", "taskname": "ast", "pnc": "yes"}

lhotse, Lhotse's cuts (needs lhotse), one recording and one supervision a cut: the key is the cut's
id, transcript and language are the supervision's, whose custom fields are `translation`,
`target_language` and `sentence_id`, or `translated_text` (`{language: text}`, of the IWSLT recipe).
Cuts that are a part of their recording, mixed or features are refused. The duration becomes the
recording's own. In the other direction ids, speakers and other custom fields are lost.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from slam_potsa.data.convert.format import (
    Fill,
    Format,
    Values,
    code,
    needed,
    one_line,
    only_text,
    text,
    wrong,
)
from slam_potsa.data.languages import find_language, short_code
from slam_potsa.data.manifest import FIELDS, Utterance
from slam_potsa.errors import InputError

TRANSCRIBE = "<audio>Transcribe the speech:"
TRANSLATE = "<audio>Translate the speech to {language}:"
TRANSLATION = ("ast", "s2t_translation")  # NeMo's `taskname`; NeMo 1.23 knows the second only
LENGTH_TOLERANCE = 0.01  # seconds by which a cut may be shorter than its recording
CUT_REMEDY = "write its audio with CutSet.save_audios first"
_TAG = re.compile(r"<\|([A-Za-z]{2,3}(?:[-_][A-Za-z]+)*)\|>")
_TAGS_AT_END = re.compile(rf"(?:{_TAG.pattern})*$")
# Where LLM-SRT's codes are not those of the same scope as ISO 639-1.
_SRT_CODES = {"az": "azj", "ne": "npi", "or": "ory", "sw": "swh", "nb": "nob", "fil": "tgl"}
Json = dict[str, Any]


def _read_slam_llm(row: Json, fill: Fill) -> Values:
    audio = text(row, "source", needed=True)
    return {"key": text(row, "key"), "audio": audio, fill.one_text: text(row, "target")}


def _slam_llm(utterance: Utterance, audio: str) -> Json:
    return {"key": utterance.key, "source": audio, "target": only_text(utterance)}


def _read_ms_swift(row: Json, fill: Fill) -> Values:
    audios, turns = row.get("audios", row.get("audio")), row.get("messages")
    if isinstance(turns, list):
        spoken = [m for m in turns if not (isinstance(m, dict) and m.get("role") == "system")]
        match [audios] if isinstance(audios, str) else audios, spoken:
            case [str(audio)], [{"role": "user"}, {"role": "assistant", "content": str(answer)}]:
                return {"audio": audio, fill.one_text: one_line(answer) or None}
    expected = "one message of the user and one of the assistant, and one path in 'audios'"
    raise wrong("messages", turns, expected)


def _ms_swift(utterance: Utterance, audio: str) -> Json:
    needed(utterance)
    question = TRANSCRIBE
    if utterance.target:
        question = TRANSLATE.format(language=find_language(utterance.target_language).name)
    turns = {"user": question, "assistant": only_text(utterance)}
    messages = [{"role": role, "content": content} for role, content in turns.items()]
    return {"messages": messages, "audios": [audio]}


def _read_tagged(row: Json, fill: Fill, spoken_too: bool) -> Values:
    audio = text(row, "audio", *["audio_path"] * spoken_too, needed=True)
    prompt, answer = text(row, "prompt", needed=True), text(row, "gt", needed=True)
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


def _tagged(utterance: Utterance, audio: str, spoken_too: bool) -> Json:
    needed(utterance, "transcript")
    codes = [utterance.language, *[utterance.target_language] * bool(utterance.target)]
    if spoken_too:
        codes = [_SRT_CODES.get(code) or find_language(code).iso639_3 for code in codes]
    prompt = "".join(f"<|{code}|>" for code in (codes if spoken_too else codes[-1:]))
    answer = utterance.transcript + (f"{prompt}{utterance.target}" if utterance.target else "")
    source = "_".join(["fleurs", *codes]) if spoken_too else f"covost_{''.join(codes)}"
    row = {"key": utterance.key, "audio": audio, "prompt": prompt}  # both loaders read `key` too
    return row | {"gt": answer, "source": source}


def _read_nemo(row: Json, fill: Fill) -> Values:
    if row.get("offset"):
        raise wrong("offset", row["offset"], "0: cut the recording into files first")
    values: Values = {
        "key": text(row, "key"),
        "audio": text(row, "audio_filepath", needed=True),
        "language": code(text(row, "source_lang", "lang")),
        "sentence_id": text(row, "sentence_id"),
        "duration": row.get("duration"),
    }
    said, answer = text(row, "text"), text(row, "answer")
    answer = None if answer == "na" else answer
    written = code(text(row, "target_lang")) or fill.target_language
    translated = written != (values["language"] or fill.language)
    if written is None or not (translated or text(row, "taskname", "task") in TRANSLATION):
        return values | {"transcript": answer or said}
    transcript = text(row, "transcript") or (said if answer and answer != said else None)
    values |= {"transcript": transcript, "target": answer or said}
    # Without a target it is a manifest for inference.
    return values | {"target_language": written if values["target"] else None}


def _nemo(utterance: Utterance, audio: str) -> Json:
    needed(utterance)
    target = utterance.target
    row = {
        "audio_filepath": audio,
        "duration": utterance.duration,
        "text": only_text(utterance),
        "source_lang": utterance.language,
        "target_lang": utterance.target_language if target else utterance.language,
        "taskname": "ast" if target else "asr",
        "pnc": "yes",
        "key": utterance.key,
        "sentence_id": utterance.sentence_id,
    }
    return row | {"transcript": utterance.transcript} if target and utterance.transcript else row


def _read_lhotse(row: Json, fill: Fill) -> Values:
    from lhotse.serialization import deserialize_item

    try:
        cut = deserialize_item(dict(row))
        (supervision,), recording = cut.supervisions, cut.recording
        (source,) = [one.source for one in recording.sources if one.type == "file"]
        custom = {**(cut.custom or {}), **(supervision.custom or {})}
        ours = {custom.get("target_language"): custom.get("translation")}
        ((target_language, target),) = custom.get("translated_text", ours).items()
    except Exception as error:  # Lhotse has no error class of its own for what is no cut
        expected = "a MonoCut with one supervision, one translation at most, of one audio file"
        expected += f" ({error!r}); {CUT_REMEDY}"
        raise wrong("type", row.get("type"), expected) from None
    if cut.start > 0 or cut.duration < recording.duration - LENGTH_TOLERANCE:
        expected = f"{recording.duration:g}, all of its recording; {CUT_REMEDY}"
        raise wrong("duration", cut.duration, expected)
    return {
        "key": cut.id,
        "audio": source,
        "language": code(supervision.language),
        "transcript": one_line(supervision.text or "") or None,
        "sentence_id": custom.get("sentence_id"),
        "duration": cut.duration,
        "target": one_line(target or "") or None,
        "target_language": code(target_language) if target else None,
    }


def _lhotse(utterance: Utterance, audio: str) -> Json:
    from lhotse import Recording, SupervisionSegment

    needed(utterance)
    try:
        cut = Recording.from_file(audio, recording_id=utterance.key).to_cut()
    except Exception as error:  # whatever the audio backend of Lhotse raises
        raise InputError(f"{audio}: Lhotse cannot read its length: {error}") from None
    custom = {"sentence_id": utterance.sentence_id}
    if utterance.target:
        custom |= {"translation": utterance.target, "target_language": utterance.target_language}
    cut.id = name = utterance.key
    said = {"text": utterance.transcript, "language": utterance.language, "custom": custom}
    cut.supervisions = [SupervisionSegment(name, name, 0.0, cut.duration, **said)]
    return cut.to_dict()


def _both(spoken_too: bool) -> Format:
    read, write = (partial(call, spoken_too=spoken_too) for call in (_read_tagged, _tagged))
    holds = {"key", "audio", "language", "transcript", "target", "target_language"}
    return Format(read, write, holds, relative=spoken_too, tasks=True)


FORMATS = {
    "slam_llm": Format(_read_slam_llm, _slam_llm, {"key", "audio"}, one_text=True),
    "cot_st": _both(spoken_too=False),
    "llm_srt": _both(spoken_too=True),
    "nemo": Format(_read_nemo, _nemo, FIELDS, relative=True, timed=True),
    "ms_swift": Format(_read_ms_swift, _ms_swift, {"audio"}, one_text=True),
    "lhotse": Format(_read_lhotse, _lhotse, FIELDS),
}
