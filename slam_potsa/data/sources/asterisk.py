"""Real parallel speech, tiny and free: the Asterisk telephone prompts in five languages.

About 500 prompts a language, recorded by people; the same file name is the same sentence. They are
packaged in Debian as `asterisk-core-sounds-<language>` (transcripts) and `...-g722` (16 kHz audio).
One speaker a language: language and speaker are confounded, and results say nothing about either
alone.

What is kept: prompts that every language has with 0.3 to 8 s, whose English text has at most 12
words; no letters, spelling alphabet or silence. Sentences are told apart by their English text, not
by file name: 'The conference is now locked' is recorded twice, and must not be trained and tested.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from slam_potsa.data.audio import SAMPLE_RATE
from slam_potsa.data.manifest import Utterance
from slam_potsa.data.sources import corpus, debian
from slam_potsa.data.sources.corpus import Corpus, Recording
from slam_potsa.errors import InputError, each
from slam_potsa.files import atomic_path, atomic_write

LANGUAGES = ("en", "es", "fr", "it", "ru")
TRAINING_LANGUAGES = ("en", "es", "ru")  # the others are never heard in training: zero-shot
TARGET_LANGUAGE = "en"
SECONDS = (0.3, 8.0)
MAX_WORDS = 12  # of the English text
DROPPED_FOLDERS = ("letters", "phonetic", "silence")
SHARES = {"train": 0.85, "dev": 0.05, "test": 0.10}  # of the distinct sentences, about
PACKAGE, VERSION = "asterisk-core-sounds", "1.6.1-1"
BESIDE = Path(__file__).parent
CREDITS = (BESIDE / "asterisk_credits.txt").read_text(encoding="utf-8")
_PINNED = (line.split() for line in (BESIDE / "asterisk_packages.txt").read_text().splitlines())
PINS = {package: sha256 for sha256, package in _PINNED}  # as sha256sum writes them
REMEDY = (
    f"Instead, put into one folder either the packages {PACKAGE}-<language>_{VERSION}_all.deb and "
    f"{PACKAGE}-<language>-g722_{VERSION}_all.deb, or the makers' release tarballs "
    f"{PACKAGE}-<language>-g722-1.6.1.tar.gz, each unpacked into a folder named after its language "
    f"(en, es, ...), and give that folder with --from."
)


class Voice(NamedTuple):
    """One language as the makers ship it. Names are lower case: `digits/1F` and `1f` are one."""

    audio: dict[str, bytes]  # name without .g722 -> G.722
    transcripts: dict[str, str]  # name -> cleaned text, only where it can be used


def build(
    output: str | Path, *, from_dir: str | Path | None = None, progress: bool = True
) -> Corpus:
    """Write recordings, credits and the four manifests into `output`.

    train and dev have the training languages, test has all; zero_shot has the sentences of train in
    the languages that training never hears. The same packages give byte-identical manifests.

    `from_dir` has the .deb files, or unpacked folders; else they are fetched, once, into `output`.

    Raises InputError for packages that cannot be had or are others, or an incomplete folder.
    """
    output = Path(output)
    folder = Path(from_dir) if from_dir else None
    with debian.unpacked(PINS, folder, output / "packages", progress, REMEDY) as root:
        voices = each(partial(_voice, root), LANGUAGES)
    prompts = dict(_chosen(voices, output))
    each(partial(_write_flac, prompts), prompts, progress="decoding" if progress else "")
    recordings = [Recording(_manifest(u), u.key, u) for u in prompts if _manifest(u)]
    atomic_write(output / "audio" / "CREDITS.txt", CREDITS)
    return corpus.write(output, recordings, {"dataset": "asterisk"})


def _voice(folder: Path, language: str) -> Voice:
    """A language's files: those below a folder `<language>`, `<language>_...` or
    `...core-sounds-<language>-...`, and `core-sounds-<language>.txt` or `.txt.gz` anywhere."""
    prompt = re.compile(
        rf".*/(?:{language}(?:_[^/]*)?|[^/]*core-sounds-{language}(?:-[^/]*)?)/(.+)\.g722"
    )
    audio = {}
    for path in sorted(folder.rglob("*.g722")):
        if match := prompt.fullmatch(f"/{path.relative_to(folder).as_posix()}"):
            audio[match[1].lower()] = path.read_bytes()
    texts = sorted(folder.rglob(f"core-sounds-{language}.txt*"))
    if not audio or not texts:
        lacking = f"core-sounds-{language}.txt" if audio else "folder with .g722 files"
        raise InputError(f"found no {lacking} for language {language!r}. {REMEDY}")
    text = texts[0].read_bytes()
    text = gzip.decompress(text) if texts[0].suffix == ".gz" else text
    return Voice(audio, read_transcripts(text))


def read_transcripts(content: bytes) -> dict[str, str]:
    """`name: text` lines to {lower-case name: cleaned text}; what cannot be trusted is left out.

    Left out: comments (`;`), lines that are not UTF-8, texts that are only stage directions, texts
    in which `?` stands for a lost accent ("sar? esattamente"), names with two different texts.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for line in content.removeprefix(b"\xef\xbb\xbf").splitlines():
        name, separator, text = line.partition(b":")
        if separator and not line.lstrip().startswith(b";"):
            cleaned = clean_transcript(text.decode("utf-8", "replace"))
            found[name.decode("utf-8", "replace").strip().lower()].add(cleaned)
    return {name: min(texts) for name, texts in found.items() if len(texts) == 1 and any(texts)}


_STAGE_DIRECTION = re.compile(r"\([^()]*\)|\[[^][]*\]|<[^<>]*>")
_AFTER_QUESTION_MARK = re.compile(r"\?\s*(\w)")
_DAMAGED = re.compile(r"[\ufffd()\[\]<>]")


def clean_transcript(text: str) -> str:
    """What is spoken: no stage directions, no `...` at the ends; "" where it cannot be known."""
    text = " ".join(_STAGE_DIRECTION.sub(" ", text).split())
    text = re.sub(r"^[.\s]+|\s*\.{2,}$", "", text)  # "... to exit." and "To exit ..." go on
    # Nothing in lower case follows a question: there `?` is an accent that an encoding lost.
    lost_accent = any(match[1].islower() for match in _AFTER_QUESTION_MARK.finditer(text))
    if lost_accent or _DAMAGED.search(text) or not re.search(r"\w", text):
        return ""
    return text


def sentence_id(text: str) -> str:
    """The English text without case and punctuation, such as `the-conference-is-now-locked`."""
    return "-".join(re.findall(r"\w+", text.replace("'", "").lower()))


def _chosen(voices: Mapping[str, Voice], output: Path) -> Iterator[tuple[Utterance, bytes]]:
    """Every usable prompt in every language, ordered by language and name, and its G.722."""
    english = voices[TARGET_LANGUAGE].transcripts
    common = set.intersection(*(set(voice.audio) for voice in voices.values()))
    names = sorted(
        name
        for name in common
        if name.split("/")[0] not in DROPPED_FOLDERS
        and 0 < len(english.get(name, "").split()) <= MAX_WORDS
        and all(SECONDS[0] <= seconds(v.audio[name]) <= SECONDS[1] for v in voices.values())
    )
    if not names:
        raise InputError(f"no prompt is there in all of {', '.join(voices)}. {REMEDY}")
    targets: dict[str, str] = {}  # one wording a sentence, that of its first name
    for name in names:
        targets.setdefault(sentence_id(english[name]), english[name])
    for language, voice in voices.items():
        for name in names:
            sentence = sentence_id(english[name])
            utterance = Utterance(
                key=f"{language}/{name}",
                audio=str(output.resolve() / f"audio/{language}/{name}.flac"),
                language=language,
                sentence_id=sentence,
                transcript=voice.transcripts.get(name),
                target=targets[sentence],
                target_language=TARGET_LANGUAGE,
                duration=seconds(voice.audio[name]),
            )
            yield utterance, voice.audio[name]


def seconds(g722: bytes) -> float:
    return 2 * len(g722) / SAMPLE_RATE  # 64 kbit/s: two samples a byte


def decode_g722(g722: bytes) -> np.ndarray:
    """Raw G.722 at 64 kbit/s: [samples] at 16 kHz, int16."""
    try:
        import av
    except ImportError:
        raise InputError("the Asterisk prompts need PyAV to be decoded: pip install av") from None

    # The format has no header that could be recognised, so it is named.
    with av.open(io.BytesIO(g722), format="g722") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(frames)


def _write_flac(prompts: Mapping[Utterance, bytes], utterance: Utterance) -> None:
    import soundfile

    samples = decode_g722(prompts[utterance])
    with atomic_path(utterance.audio) as temporary:
        soundfile.write(temporary, samples, SAMPLE_RATE, subtype="PCM_16")


def _manifest(utterance: Utterance) -> str:
    """The manifest that it belongs to; "": none."""
    split = split_of(utterance.sentence_id)
    if split == "test" or utterance.language in TRAINING_LANGUAGES:
        return split
    return "zero_shot" if split == "train" else ""


def split_of(sentence: str) -> str:
    """Split by the hash of the sentence alone, so that a change elsewhere moves nothing."""
    point = int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:8], "big") / 2**64
    for split, share in SHARES.items():
        if point < share:
            return split
        point -= share
    return "test"
