"""Whole telephone prompts: a small test of free-form sentences in five languages, real speech.

The voices are the first ones of `announcements`, one a language: language and speaker are
confounded, and results say nothing about either alone. About 500 prompts a language; the same file
name is the same sentence, and the English text is the target; what the others say is not written
down. What is kept: prompts that every voice has with 0.3 to 8 s, whose English text has at most 12
words; no letters, spelling alphabet or silence. Sentences are told apart by their English text, not
by file name: 'The conference is now locked' is recorded twice.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from slam_potsa.data.audio import SAMPLE_RATE
from slam_potsa.data.sources import announcements, corpus, debian
from slam_potsa.data.sources.announcements import Voice, sentence_id, speakers
from slam_potsa.data.sources.corpus import Corpus
from slam_potsa.errors import InputError
from slam_potsa.files import atomic_write

SECONDS = (0.3, 8.0)
MAX_WORDS = 12  # of the English text
DROPPED_FOLDERS = ("letters", "phonetic", "silence")


def build(
    output: str | Path,
    *,
    from_dir: str | Path | None = None,
    replace: bool = False,
    progress: bool = True,
) -> Corpus:
    """Write recordings, credits and test.jsonl into `output`; the same packages give equal bytes.

    `from_dir` has the .deb files, or what they unpack to; else they are fetched, once, to `output`.

    Raises InputError for packages that cannot be had or are others, or lack a voice or the texts.
    """
    output, choices = Path(output), {"dataset": "asterisk"}
    corpus.refuse_another(output, choices, replace)
    names = [name for name, speaker in speakers().items() if not speaker.held_out]
    pins = announcements.packages(names) | announcements.tables()["texts"]
    with debian.unpacked(pins, from_dir, output, progress, announcements.REMEDY) as root:
        voices, texts = [Voice(name, root) for name in names], english_texts(root)
        chosen = list(_chosen(voices, texts))
        targets: dict[str, str] = {}  # one wording a sentence, that of its first name
        for name in chosen:
            targets.setdefault(sentence_id(texts[name]), texts[name])
        recordings = [
            announcements.recorded(voice, name, voice.samples(name), said, target, output)
            for name in tqdm(chosen, "prompts", disable=not progress)
            for voice in voices
            for target in [targets[sentence_id(texts[name])]]
            for said in [texts[name] if voice.speaker.language == "en" else None]
        ]
    atomic_write(output / "audio" / "CREDITS.txt", announcements.CREDITS)
    return corpus.write(output, recordings, choices)


def _chosen(voices: list[Voice], texts: dict[str, str]) -> Iterator[str]:
    """The names of the prompts that are kept."""
    for name in sorted(set.intersection(*(set(voice.files) for voice in voices)) & texts.keys()):
        # 64 kbit/s: two samples a byte
        lengths = [2 * voice.files[name].stat().st_size / SAMPLE_RATE for voice in voices]
        if (
            name.split("/")[0] not in DROPPED_FOLDERS
            and len(texts[name].split()) <= MAX_WORDS
            and SECONDS[0] <= min(lengths) <= max(lengths) <= SECONDS[1]
        ):
            yield name


_STAGE_DIRECTION = re.compile(r"\([^()]*\)|\[[^][]*\]|<[^<>]*>")


def english_texts(root: Path) -> dict[str, str]:
    """Lower-case name -> what is said: no stage directions, no `...` at the ends.

    Raises InputError where the list is not below `root`.
    """
    if not (lists := sorted(root.rglob("core-sounds-en.txt*"))):
        raise InputError(f"{root}: found no core-sounds-en.txt, the texts of the English prompts")
    opened, found = gzip.open if lists[0].suffix == ".gz" else open, {}
    with opened(lists[0], "rt", encoding="utf-8") as file:
        for line in file:
            name, _, text = line.partition(":")
            text = " ".join(_STAGE_DIRECTION.sub(" ", text).split())
            text = re.sub(r"^[.\s]+|\s*\.{2,}$", "", text)  # "... to exit." goes on
            if re.search(r"\w", text) and not name.startswith(";"):
                found.setdefault(name.strip().lower(), text)
    return found
