"""LLM-SRT's JSON Lines (github.com/yxduir/LLM-SRT, data/README.md): CoT-ST's with two tags.

    {"audio": "eng/test/139.wav", "source": "fleurs_eng_cmn", "prompt": "<|eng|><|cmn|>",
     "gt": "They have feet.<|eng|><|cmn|>它们有脚。"}

Languages are ISO 639-3 (its older files say `zho` for `cmn`; its result files have `audio_path`).
Paths are relative to the file. Transcription only is our own use of it: one tag, `gt` the
transcript. Its loader reads `key` too, so it is written.
Lost: sentence_id (for FLEURS, whose target is the same in all languages: --sentence-id target),
duration; in the other direction the corpus in `source`, written as `fleurs`.
"""

from __future__ import annotations

from slam_potsa.data.convert import tags
from slam_potsa.data.convert.format import (
    Fields,
    Values,
    jsonl_format,
    needed,
    no_archives,
)
from slam_potsa.data.languages import find_language
from slam_potsa.data.manifest import Utterance

CORPUS = "fleurs"
# Where LLM-SRT's codes are not those of the same scope as ISO 639-1.
_OWN = {"az": "azj", "ne": "npi", "or": "ory", "sw": "swh", "nb": "nob", "fil": "tgl"}


def _parse(fields: Fields) -> Values:
    prompt, answer = fields.text("prompt", needed=True), fields.text("gt", needed=True)
    audio = fields.text("audio", "audio_path", needed=True)
    values: Values = {"key": fields.text("key"), "audio": audio}
    if not prompt or not answer:
        return values
    marker, found = tags.tags_at_end(prompt)
    if len(found) not in (1, 2):
        fields.wrong("prompt", prompt, "the spoken and the target language: '<|eng|><|cmn|>'")
        return values
    codes = [fields.as_code(code) for code in found]
    values["language"] = codes[0]
    values["transcript"], values["target"] = tags.divide(answer, marker)
    if len(found) == 2 and values["target"] is None:
        fields.wrong("gt", answer, f"transcript{marker}translation")
    elif len(found) == 2:
        values["target_language"] = codes[1]
    return values


def _render(utterance: Utterance, audio: str) -> dict:
    needed(utterance, "transcript", *(["target_language"] if utterance.target else []))
    spoken = _code(utterance.language)
    row = {"key": utterance.key, "audio": no_archives(audio)}
    if utterance.target is None:
        return row | {
            "source": f"{CORPUS}_{spoken}",
            "prompt": tags.tag(spoken),
            "gt": utterance.transcript,
        }
    target = _code(utterance.target_language)
    prompt = tags.tag(spoken) + tags.tag(target)
    return row | {
        "source": f"{CORPUS}_{spoken}_{target}",
        "prompt": prompt,
        "gt": f"{utterance.transcript}{prompt}{utterance.target}",
    }


def _code(language: str) -> str:
    return _OWN.get(language) or find_language(language).iso639_3


FORMAT = jsonl_format(
    "llm_srt",
    "LLM-SRT: CoT-ST's with <|eng|><|cmn|>",
    _parse,
    _render,
    {"key", "audio", "language", "transcript", "target", "target_language"},
    relative=True,
    tidy=tags.without_repetitions,
)
