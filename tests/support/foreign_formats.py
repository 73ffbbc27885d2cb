"""Files of other projects in their own form, and a manifest to convert into them."""

import json
from pathlib import Path

import numpy as np
import soundfile

from slam_potsa.data.manifest import Utterance, write_manifest

TRANSLATED = Utterance(
    *("fr/a", "audio/fr/a.wav", "fr", "s1"), "«Ça va», dit-elle.", "她说“没事”。", "zh", 0.5
)
TRANSCRIBED = Utterance("en/a", "audio/en/a.wav", "en", "s1", transcript="All right.", duration=0.5)
_SRT = {"audio": "%s/test/139.wav", "source": "fleurs_%s_cmn", "prompt": "<|%s|><|cmn|>"}
_NEMO = {"duration": 3.5, "source_lang": "en"}
_TURNS = (("user", "<audio>Transcribe the speech:"), ("assistant", "Nice weather."))
# One example in each project's own form: (lines, options, the fields that do not come back)
EXAMPLES = {
    "slam_llm": (
        [{"key": f"{name}_ASR", "source": f"/{name}.wav", "target": name * 2} for name in "ab"],
        {"language": "en", "sentence_id": "transcript"},
        set(),
    ),
    "cot_st": (
        [
            {"audio": "/1.mp3", "prompt": "<|zh|>", "gt": "A.<|zh|>嗨。", "source": "covost_enzh"},
            {"audio": "/1.mp3", "prompt": "<|de|>", "gt": "A.<|de|>Na.", "source": "covost_ende"},
            {"audio": "/2.mp3", "prompt": "<|en|>", "gt": "Yes.", "source": "covost_en"},
        ],
        {"sentence_id": "transcript"},
        {"key"},  # optional there, always written by us
    ),
    "llm_srt": (
        [
            {name: text.replace("%s", code) for name, text in _SRT.items()}
            | {"gt": f"{text}<|{code}|><|cmn|>它们脚上有鳞片和爪子。"}
            for code, text in (("eng", "They have feet with scales."), ("jpn", "これらの結晶。"))
        ],
        {"sentence_id": "target"},
        {"key"},
    ),
    "nemo": (
        [
            {**_NEMO, "audio_filepath": "/a", "text": "hi", "target_lang": "en", "taskname": "asr"},
            {**_NEMO, "audio_filepath": "b", "text": "Na", "target_lang": "de", "taskname": "ast"},
        ],
        {"sentence_id": "audio"},
        {"key", "sentence_id", "pnc"},  # the first two ours, kept by NeMo as custom fields
    ),
    "ms_swift": (
        [{"messages": [{"role": r, "content": c} for r, c in _TURNS], "audios": ["/x.mp3"]}],
        {"language": "en", "sentence_id": "transcript"},
        set(),
    ),
}


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make_corpus(folder: Path, *utterances: Utterance) -> Path:
    """The manifest folder/data/train.jsonl of `utterances`, with recordings of half a second."""
    for name in ("fr/a", "fr/b", "en/a"):
        path = folder / "data" / "audio" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.sin(np.arange(8_000) / 9) * 0.3, 16_000)
    write_manifest(folder / "data" / "train.jsonl", utterances)
    return folder / "data" / "train.jsonl"
