"""Files of other projects in their own form, and a manifest to convert into them."""

import json
from pathlib import Path

import numpy as np
import soundfile

from slam_potsa.data.manifest import Utterance, write_manifest

TRANSLATED = Utterance(
    key="fr/a",
    audio="audio/fr/a.wav",
    language="fr",
    sentence_id="s1",
    transcript="«Ça va», dit-elle.",
    target="她说“没事”。",
    target_language="zh",
    duration=0.5,
)
TRANSCRIBED = Utterance("en/a", "audio/en/a.wav", "en", "s1", transcript="All right.", duration=0.5)
_ALL_RIGHT = '"She\'ll be all right."'
_CLIP = "/data/clips/common_voice_en_699711.mp3"
_SHOWN = '{"audio_filepath": "%s", "duration": 3.5, "text": "%s", "source_lang": "en", '
# One example in each project's own form: (lines, options, the fields that do not come back)
EXAMPLES = {
    "slam_llm": (
        [
            {"key": "1001-134707-0000_ASR", "source": "/data/a.wav", "target": "1 little recks"},
            {"key": "1001-134707-0001_ASR", "source": "/data/b.wav", "target": "Not to create."},
        ],
        {"language": "en", "sentence_id": "transcript"},
        set(),
    ),
    "cot_st": (
        [
            {
                "audio": _CLIP,
                "prompt": f"<|{code}|>",
                "gt": f"{_ALL_RIGHT}<|{code}|>{answer}",
                "source": f"covost_en{code}",
            }
            for code, answer in (("zh", "她会没事的。"), ("de", "Sie wird schon in Ordnung sein."))
        ]
        + [{"audio": "/data/2.mp3", "prompt": "<|en|>", "gt": "Yes.", "source": "covost_en"}],
        {"sentence_id": "transcript"},
        {"key"},  # optional there, always written by us
    ),
    "llm_srt": (
        [
            {
                "audio": f"{code}/test/139.wav",
                "source": f"fleurs_{code}_cmn",
                "prompt": f"<|{code}|><|cmn|>",
                "gt": f"{text}<|{code}|><|cmn|>它们脚上有鳞片和爪子。",
            }
            for code, text in (("eng", "They have feet with scales."), ("jpn", "これらの結晶。"))
        ],
        {"sentence_id": "target"},
        {"key"},
    ),
    "nemo": (
        [
            json.loads(_SHOWN % ("/a.wav", "hi") + '"target_lang": "en", "taskname": "asr"}'),
            json.loads(_SHOWN % ("b.wav", "Hallo.") + '"target_lang": "de", "taskname": "ast"}'),
        ],
        {"sentence_id": "audio"},
        {"key", "sentence_id", "pnc"},  # the first two ours, kept by NeMo as custom fields
    ),
    "ms_swift": (
        [
            {
                "messages": [
                    {"role": "user", "content": "<audio>Transcribe the speech:"},
                    {"role": "assistant", "content": "The weather is really nice today."},
                ],
                "audios": ["/xxx/x.mp3"],
            }
        ],
        {"language": "en", "sentence_id": "transcript"},
        set(),
    ),
}


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_rows(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return path


def make_corpus(folder: Path, *utterances: Utterance) -> Path:
    """The manifest folder/data/train.jsonl of `utterances`, with recordings of half a second."""
    for name in ("fr/a", "fr/b", "en/a"):
        path = folder / "data" / "audio" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.sin(np.arange(8_000) / 9) * 0.3, 16_000)
    write_manifest(folder / "data" / "train.jsonl", utterances)
    return folder / "data" / "train.jsonl"
