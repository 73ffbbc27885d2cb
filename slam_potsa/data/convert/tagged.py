"""CoT-ST's and LLM-SRT's JSON Lines: tags ask for a language, and divide the answer's texts.

cot_st, SLAM-LLM's `st_covost2`: the prompt ends in the language to write.

    {"audio": "a.mp3", "prompt": "<|zh|>", "gt": "Hello.<|zh|>你好。", "source": "covost_enzh"}
    {"audio": "b.mp3", "prompt": "<|en|>", "gt": "Hello.", "source": "covost_en"}

The languages are those of `source`, whose end is the spoken and the target language; its loader
takes a row where `source` is the one that was asked for. Rows that prompt with the transcript
(`Hello.<|zh|>`, `covost_enenzh`) repeat others and are left out.

llm_srt (github.com/yxduir/LLM-SRT, data/README.md): the spoken language too, in ISO 639-3.

    {"audio": "eng/test/139.wav", "source": "fleurs_eng_cmn", "prompt": "<|eng|><|cmn|>",
     "gt": "They have feet.<|eng|><|cmn|>它们有脚。"}

Its older files say `zho` for `cmn`; its result files have `audio_path`. Paths are relative to the
file. Transcription only is our own use of it: one tag, `gt` the transcript.

Both loaders read `key` too, so it is written. Lost: sentence_id (for FLEURS, whose target is the
same in all languages: --sentence-id target), duration; in the other direction the corpus in
`source`, written as `covost` and `fleurs`.
"""

from __future__ import annotations

import re
from functools import lru_cache, partial

from slam_potsa.data.convert.format import Fields, Format, Values, needed
from slam_potsa.data.languages import find_language, short_code
from slam_potsa.data.manifest import Utterance
from slam_potsa.errors import InputError

_TAG = re.compile(r"<\|([A-Za-z]{2,3}(?:[-_][A-Za-z]+)*)\|>")
_TAGS_AT_END = re.compile(rf"(?:{_TAG.pattern})+$")
# Where LLM-SRT's codes are not those of the same scope as ISO 639-1.
_SRT_CODES = {"az": "azj", "ne": "npi", "or": "ory", "sw": "swh", "nb": "nob", "fil": "tgl"}


def _parse(fields: Fields, spoken_too: bool) -> Values:
    audio = fields.text("audio", *["audio_path"] * spoken_too, needed=True)
    prompt, answer = fields.text("prompt", needed=True), fields.text("gt", needed=True)
    values: Values = {"key": fields.text("key"), "audio": audio}
    if not prompt or not answer:
        return values
    match = _TAGS_AT_END.search(prompt)
    marker = match[0] if match else ""
    found = _TAG.findall(marker)
    if len(found) not in ((1, 2) if spoken_too else (1,)):
        expected = "'<|eng|><|cmn|>'" if spoken_too else "one language, such as '<|zh|>'"
        fields.wrong("prompt", prompt, f"at its end {expected}")
        return values
    codes = [fields.code(code) for code in found]
    transcript, divided, target = answer.partition(marker)
    values |= {"transcript": transcript.strip(), "language": codes[0]}
    if divided:
        source = codes[0] if spoken_too else _spoken(fields.text("source") or "", found[0])
        values |= {"target": target.strip(), "target_language": codes[-1], "language": source}
    elif len(codes) == 2:
        fields.wrong("gt", answer, f"transcript{marker}translation")
    return values


@lru_cache(maxsize=1024)  # a few sources, many rows
def _spoken(source: str, target: str) -> str | None:
    """`covost_enzh` and `covost_enenzh` with target `zh` -> `en`; None where it cannot be told."""
    spoken = source.rsplit("_", 1)[-1].removesuffix(target)
    half = spoken[: len(spoken) // 2]
    for candidate in (spoken, half if half * 2 == spoken else ""):
        try:
            return short_code(candidate)
        except InputError:
            continue
    return None


def _render(utterance: Utterance, audio: str, spoken_too: bool) -> dict:
    needed(utterance, "transcript")
    codes = [utterance.language, *([utterance.target_language] if utterance.target else [])]
    if spoken_too:
        codes = [_SRT_CODES.get(code) or find_language(code).iso639_3 for code in codes]
    prompt = "".join(f"<|{code}|>" for code in (codes if spoken_too else codes[-1:]))
    translation = f"{prompt}{utterance.target}" if utterance.target else ""
    return {
        "key": utterance.key,
        "audio": audio,
        "prompt": prompt,
        "gt": f"{utterance.transcript}{translation}",
        "source": "_".join(["fleurs", *codes]) if spoken_too else f"covost_{''.join(codes)}",
    }


def _format(spoken_too: bool) -> Format:
    parse, render = (partial(call, spoken_too=spoken_too) for call in (_parse, _render))
    holds = {"key", "audio", "language", "transcript", "target", "target_language"}
    return Format(parse, render, holds, relative=spoken_too, tasks=True)


COT_ST, LLM_SRT = _format(spoken_too=False), _format(spoken_too=True)
