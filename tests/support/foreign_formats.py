"""Files of other projects in their own form, and the manifests that they become."""

_SRT = {"audio": "%s/test/139.wav", "source": "fleurs_%s_cmn", "prompt": "<|%s|><|cmn|>"}
_NEMO = {"duration": 3.5, "source_lang": "en"}
_TURNS = (("user", "<audio>Transcribe the speech:"), ("assistant", "Nice weather."))
_SAID = {"text": "Ça\nva", "language": "fra", "custom": {"translated_text": {"zh-CN": "没事"}}}
CUT = {
    **{"id": "cut-1", "start": 0.0, "duration": 0.5, "channel": 0, "type": "MonoCut"},
    "supervisions": [{"id": "s", "recording_id": "r", "start": 0.0, "duration": 0.5, **_SAID}],
    "recording": {
        "id": "r",
        "sources": [{"type": "file", "channels": [0], "source": "/x.wav"}],
        **{"sampling_rate": 16000, "num_samples": 8000, "duration": 0.5, "channel_ids": [0]},
    },
}
# One example in each project's own form: (lines, options, what utterances are made of)
FIELDS = ("key", "audio", "language", "transcript", "target", "target_language", "duration")
EXAMPLES = {
    "slam_llm": (
        [{"key": f"{name}_ASR", "source": f"/{name}.wav", "target": name * 2} for name in "ab"],
        {"language": "en", "sentence_id": "transcript"},
        [(f"{name}_ASR", f"/{name}.wav", "en", name * 2, None, None, None) for name in "ab"],
    ),
    "cot_st": (
        [
            {"audio": "/1.mp3", "prompt": "<|zh|>", "gt": "A.<|zh|>嗨。", "source": "covost_enzh"},
            {"audio": "/1.mp3", "prompt": "<|de|>", "gt": "A.<|de|>Na.", "source": "covost_ende"},
            {"audio": "/2.mp3", "prompt": "<|en|>", "gt": "Yes.", "source": "covost_en"},
        ],
        {"sentence_id": "transcript"},
        [
            ("1", "/1.mp3", "en", "A.", "嗨。", "zh", None),
            ("1-2", "/1.mp3", "en", "A.", "Na.", "de", None),
            ("2", "/2.mp3", "en", "Yes.", None, None, None),
        ],
    ),
    "llm_srt": (
        [
            {name: text.replace("%s", code) for name, text in _SRT.items()}
            | {"gt": f"{text}<|{code}|><|cmn|>它们有脚。"}
            for code, text in (("eng", "They have feet."), ("jpn", "これらの結晶。"))
        ],
        {"sentence_id": "target"},
        [
            (f"{name}/test/139", f"{name}/test/139.wav", code, text, "它们有脚。", "zh", None)
            for name, code, text in (
                ("eng", "en", "They have feet."),
                ("jpn", "ja", "これらの結晶。"),
            )
        ],
    ),
    "nemo": (
        [
            {**_NEMO, "audio_filepath": "/a", "text": "hi", "target_lang": "en", "taskname": "asr"},
            {**_NEMO, "audio_filepath": "b", "text": "Na", "target_lang": "de", "taskname": "ast"},
        ],
        {"sentence_id": "audio", "language": "en"},
        [
            ("a", "/a", "en", "hi", None, None, 3.5),
            ("b", "b", "en", None, "Na", "de", 3.5),
        ],
    ),
    "ms_swift": (
        [
            {"messages": [{"role": r, "content": c} for r, c in _TURNS], "audios": ["/x.mp3"]},
            {"query": "<audio>Write:", "response": "Nice weather.", "audios": ["/y.mp3"]},
        ],
        {"language": "en", "sentence_id": "transcript"},
        [(n, f"/{n}.mp3", "en", "Nice weather.", None, None, None) for n in "xy"],
    ),
    "lhotse": (
        [CUT],
        {"sentence_id": "key"},
        [("cut-1", "/x.wav", "fr", "Ça va", "没事", "zh", 0.5)],
    ),
}
