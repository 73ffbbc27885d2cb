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
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slam_potsa.data.audio import SAMPLE_RATE
from slam_potsa.data.manifest import Utterance, mark_checked, write_manifest
from slam_potsa.data.sources import debian
from slam_potsa.errors import InputError
from slam_potsa.files import atomic_path, atomic_write

LANGUAGES = ("en", "es", "fr", "it", "ru")
TRAINING_LANGUAGES = ("en", "es", "ru")  # the others are never heard in training: zero-shot
TARGET_LANGUAGE = "en"
SECONDS = (0.3, 8.0)
MAX_WORDS = 12  # of the English text
DROPPED_FOLDERS = ("letters", "phonetic", "silence")
SHARES = {"train": 0.85, "dev": 0.05, "test": 0.10}  # of the distinct sentences, about
VERSION = "1.6.1-1"
SHA256 = {  # of <package>_1.6.1-1_all.deb
    "asterisk-core-sounds-en": "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
    "asterisk-core-sounds-en-g722": (
        "38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806"
    ),
    "asterisk-core-sounds-es": "9afdab7f559f036649fb406e625899306ca1004df8ebe39c30bfbd5912d66f74",
    "asterisk-core-sounds-es-g722": (
        "e4e3b4281057d3b81b779298fd6be705f57411513955c518eed1bcaabbd615b8"
    ),
    "asterisk-core-sounds-fr": "04c82c78c570c43a7136cbc5e2488d0c470b775468dff9fbce4a131b18cf1056",
    "asterisk-core-sounds-fr-g722": (
        "7add61d5e42279ecff1bbdf842a5a946ac3644fac9a0fe44384731aa7270c8e0"
    ),
    "asterisk-core-sounds-it": "3884d9457e12f21caa018c18f0d587df5d53ebea14b673d8453a134c5941ab3b",
    "asterisk-core-sounds-it-g722": (
        "46b4cf7afc508a5fcfc051b7ea233251c0d195dd4ef83cc4b7facb4c6429b016"
    ),
    "asterisk-core-sounds-ru": "28a61616bb0cd3345a7ea532dec4df9f071e5d0fa9f8c1a563ea9669002f39ab",
    "asterisk-core-sounds-ru-g722": (
        "673b4238a6b8269960f055d868c6a11083f7a0d00979167cb01554046b48ed9b"
    ),
}
REMEDY = (
    f"Instead, put into one folder either the Debian packages "
    f"asterisk-core-sounds-<language>_{VERSION}_all.deb and "
    f"asterisk-core-sounds-<language>-g722_{VERSION}_all.deb, or the makers' release tarballs "
    f"asterisk-core-sounds-<language>-g722-1.6.1.tar.gz, each unpacked into a folder named after "
    f"its language (en, es, ...), and give that folder with --from."
)
CREDITS = """\
The recordings in this folder are the Asterisk core sounds 1.6.1, as packaged by Debian.

  en, es  Copyright 2003-2010 Allison Smith. Recorded by Allison Smith.
          Financial contributions by Digium, Inc. Licence: CC BY-SA 3.0
  fr      Copyright 2006-2008 June Wallack. Recorded by June Wallack. Translated by Clod Patry,
          Kristopher Lalletti and June Wallack. Financial contributions by Digium, Inc.,
          Unlimitel and BGM Informatique. Licence: CC BY-SA 3.0
  it      Copyright 2012 Carlo Flora. Recorded by Carlo Flora. Translated by Silvia Petrin.
          Licence: CC BY 3.0
  ru      Copyright 2010 Maxim. Provided by Maxim Topal (ivrvoice.ru). Licence: CC BY 3.0

CC BY-SA 3.0: https://creativecommons.org/licenses/by-sa/3.0/
CC BY 3.0:    https://creativecommons.org/licenses/by/3.0/

Changes made by slam_potsa: a selection of the prompts, decoded from G.722 to FLAC; transcripts
without stage directions. Redistribute the recordings, and what is made from them, under the
same licences and with these names.
"""


@dataclass(frozen=True)
class AsteriskCorpus:
    """What `build` made. Paths of manifests; counts by split, then by language."""

    train: Path  # training sentences in the training languages
    dev: Path  # dev sentences in the training languages
    test_unheard: Path  # test sentences in all languages: no training heard them in any language
    zero_shot: Path  # training sentences in the languages that training never hears
    sentences: dict[str, int]  # distinct sentences
    utterances: dict[str, dict[str, int]]
    seconds: dict[str, dict[str, float]]

    @property
    def summary(self) -> str:
        """Text: split x sentences x utterances x hours x utterances per language."""
        lines = [f"{'split':<14}{'sentences':>10}{'utterances':>12}{'hours':>7}  per language"]
        for split, by_language in self.utterances.items():
            parts = ", ".join(f"{language} {count}" for language, count in by_language.items())
            hours = sum(self.seconds[split].values()) / 3600
            lines.append(
                f"{split:<14}{self.sentences[split]:>10}{sum(by_language.values()):>12}"
                f"{hours:>7.2f}  {parts}"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class _Recordings:
    """One language as the makers ship it. Names are lower case: `digits/1F` and `1f` are one."""

    audio: dict[str, bytes]  # name without .g722 -> G.722
    transcripts: dict[str, str]  # name -> cleaned text, only where it can be used


def build(
    output_dir: str | Path,
    *,
    cache_dir: str | Path | None = None,
    languages: Sequence[str] = LANGUAGES,
    from_dir: str | Path | None = None,
    progress: bool = True,
) -> AsteriskCorpus:
    """Write recordings, credits and the four manifests into `output_dir`.

    The same packages give byte-identical manifests. Packages that are in `cache_dir` with the right
    hash are not downloaded again.

    Args:
        cache_dir: where downloaded packages are kept; default `output_dir/packages`.
        languages: some of LANGUAGES, English among them: its text is the target.
        from_dir: a folder with the .deb files, or with unpacked folders; nothing is downloaded.

    Raises:
        InputError: packages that cannot be had or have another hash, or an incomplete folder.
    """
    output, languages = Path(output_dir), _checked(languages)
    recordings = _load(languages, from_dir, Path(cache_dir or output / "packages"), progress)
    utterances = _select(recordings)
    _write_audio(output, utterances, recordings, progress)
    atomic_write(output / "audio" / "CREDITS.txt", CREDITS)
    splits = _split(utterances)
    for name, part in splits.items():
        write_manifest(output / f"{name}.jsonl", part)
        mark_checked(output / f"{name}.jsonl")  # every recording was decoded above
    return _describe(output, splits)


def _checked(languages: Sequence[str]) -> tuple[str, ...]:
    unknown = [language for language in languages if language not in LANGUAGES]
    if unknown or TARGET_LANGUAGE not in languages:
        raise InputError(
            f"languages {list(languages)}: expected some of {', '.join(LANGUAGES)}, "
            f"{TARGET_LANGUAGE} among them (its text is the target)"
        )
    return tuple(sorted(set(languages)))


def _load(
    languages: Sequence[str], from_dir: str | Path | None, cache: Path, progress: bool
) -> dict[str, _Recordings]:
    pins = {f"{package}_{VERSION}_all.deb": package for package in _packages(languages)}
    if from_dir is None:
        wanted = {name: SHA256[package] for name, package in pins.items()}
        debian.fetch(wanted, cache, remedy=REMEDY, progress=progress)
        folder = cache
    else:
        folder = Path(from_dir)
        if not any(folder.glob("asterisk-core-sounds-*.deb")):
            return {language: _load_folder(folder, language) for language in languages}
    absent = [str(folder / name) for name in pins if not (folder / name).is_file()]
    if absent:
        raise InputError(f"no such package: {', '.join(absent)}. {REMEDY}")
    return {language: _load_packages(folder, language) for language in languages}


def _packages(languages: Iterable[str]) -> list[str]:
    return [
        f"asterisk-core-sounds-{language}{suffix}"
        for language in languages
        for suffix in ("", "-g722")
    ]


def _load_packages(folder: Path, language: str) -> _Recordings:
    files: dict[str, bytes] = {}
    for package in _packages([language]):
        path = folder / f"{package}_{VERSION}_all.deb"
        debian.check(path, SHA256[package], remedy=REMEDY)
        files |= debian.read_deb(path)
    audio = {}
    for name, content in files.items():
        if name.endswith(".g722"):  # usr/share/asterisk/sounds/<voice>/<prompt>.g722
            audio[name.split("/", 5)[-1].removesuffix(".g722").lower()] = content
    text = files[f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"]
    return _Recordings(audio, read_transcripts(gzip.decompress(text)))


def _load_folder(folder: Path, language: str) -> _Recordings:
    """A language's unpacked files: a folder `<language>`, `<language>_...` or `...-<language>-...`
    with .g722 files below it, and `core-sounds-<language>.txt` or `.txt.gz` anywhere."""
    named = re.compile(rf"{language}(_.*)?|.*core-sounds-{language}(-.*)?")
    roots = [
        path
        for path in sorted([folder, *folder.rglob("*")])
        if path.is_dir() and named.fullmatch(path.name) and any(path.glob("*.g722"))
    ]
    texts = [path for path in folder.rglob(f"core-sounds-{language}.txt*") if path.is_file()]
    if not roots or not texts:
        lacking = "folder with .g722 files" if not roots else f"core-sounds-{language}.txt"
        raise InputError(f"{folder}: found no {lacking} for language {language!r}. {REMEDY}")
    audio = {
        path.relative_to(roots[0]).with_suffix("").as_posix().lower(): path.read_bytes()
        for path in sorted(roots[0].rglob("*.g722"))
    }
    text = texts[0].read_bytes()
    unpacked = gzip.decompress(text) if texts[0].suffix == ".gz" else text
    return _Recordings(audio, read_transcripts(unpacked))


def read_transcripts(content: bytes) -> dict[str, str]:
    """`name: text` lines to {lower-case name: cleaned text}; what cannot be trusted is left out.

    Left out: comments (`;`), lines that are not UTF-8, texts that are only stage directions, texts
    in which `?` stands for a lost accent ("sar? esattamente"), names with two different texts.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for line in content.removeprefix(b"\xef\xbb\xbf").splitlines():
        name, separator, text = line.partition(b":")
        if not separator or line.lstrip().startswith(b";"):
            continue
        try:
            cleaned = clean_transcript(text.decode("utf-8"))
        except UnicodeDecodeError:
            cleaned = ""
        found[name.decode("utf-8", "replace").strip().lower()].add(cleaned)
    return {name: min(texts) for name, texts in found.items() if len(texts) == 1 and any(texts)}


_STAGE_DIRECTION = re.compile(r"\([^()]*\)|\[[^][]*\]|<[^<>]*>")
_AFTER_QUESTION_MARK = re.compile(r"\?\s*(\w)")
_DAMAGED = re.compile(r"[\ufffd()\[\]<>]")


def clean_transcript(text: str) -> str:
    """What is spoken: no stage directions, no `...` at the ends; "" where it cannot be known."""
    text = _STAGE_DIRECTION.sub(" ", text)
    text = " ".join(text.split())
    text = re.sub(r"^[.\s]+|\s*\.{2,}$", "", text)  # "... to exit." and "To exit ..." go on
    # Nothing in lower case follows a question: there `?` is an accent that an encoding lost.
    lost_accent = any(match[1].islower() for match in _AFTER_QUESTION_MARK.finditer(text))
    if lost_accent or _DAMAGED.search(text) or not re.search(r"\w", text):
        return ""
    return text


def sentence_id(text: str) -> str:
    """The English text without case and punctuation, such as `the-conference-is-now-locked`."""
    return "-".join(re.findall(r"\w+", text.replace("'", "").lower()))


def _select(recordings: Mapping[str, _Recordings]) -> list[Utterance]:
    """Every usable prompt in every language, ordered by language and name."""
    english = recordings[TARGET_LANGUAGE].transcripts
    common = set.intersection(*(set(part.audio) for part in recordings.values()))
    names = sorted(
        name
        for name in common
        if name.split("/")[0] not in DROPPED_FOLDERS
        and 0 < len(english.get(name, "").split()) <= MAX_WORDS
        and all(_is_usable_length(part.audio[name]) for part in recordings.values())
    )
    if not names:
        raise InputError(
            f"no prompt is there in all of {', '.join(recordings)} with {SECONDS[0]} to "
            f"{SECONDS[1]} s and an English text of {MAX_WORDS} words or less. {REMEDY}"
        )
    targets: dict[str, str] = {}  # one wording a sentence, that of its first name
    for name in names:
        targets.setdefault(sentence_id(english[name]), english[name])
    return [
        Utterance(
            key=f"{language}/{name}",
            audio=f"audio/{language}/{name}.flac",
            language=language,
            sentence_id=sentence_id(english[name]),
            transcript=part.transcripts.get(name),
            target=targets[sentence_id(english[name])],
            target_language=TARGET_LANGUAGE,
            duration=_seconds(part.audio[name]),
        )
        for language, part in recordings.items()
        for name in names
    ]


def _seconds(g722: bytes) -> float:
    return 2 * len(g722) / SAMPLE_RATE  # 64 kbit/s: two samples a byte


def _is_usable_length(g722: bytes) -> bool:
    return SECONDS[0] <= _seconds(g722) <= SECONDS[1]


def _write_audio(
    output: Path,
    utterances: Sequence[Utterance],
    recordings: Mapping[str, _Recordings],
    progress: bool,
) -> None:
    import soundfile
    from tqdm import tqdm

    for utterance in tqdm(utterances, desc="decoding", unit="file", disable=not progress):
        language, name = utterance.key.split("/", 1)
        samples = decode_g722(recordings[language].audio[name])
        with atomic_path(output / utterance.audio) as temporary:
            soundfile.write(temporary, samples, SAMPLE_RATE, subtype="PCM_16")


def decode_g722(content: bytes) -> np.ndarray:
    """Raw G.722 at 64 kbit/s to int16 samples at 16 kHz, mono: [samples]."""
    try:
        import av
    except ImportError:
        raise InputError("the Asterisk prompts need PyAV to be decoded: pip install av") from None

    # The format has no header that could be recognised, so it is named.
    with av.open(io.BytesIO(content), format="g722") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(frames)


def _split(utterances: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    splits: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": [], "zero_shot": []}
    for utterance in utterances:
        split = split_of(utterance.sentence_id)
        heard = utterance.language in TRAINING_LANGUAGES
        if split == "test" or heard:
            splits[split].append(utterance)
        elif split == "train":
            splits["zero_shot"].append(utterance)
    return splits


def split_of(sentence: str) -> str:
    """Split by the hash of the sentence alone, so that a change elsewhere moves nothing."""
    point = int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:8], "big") / 2**64
    for split, share in SHARES.items():
        if point < share:
            return split
        point -= share
    return "test"


def _describe(output: Path, splits: Mapping[str, Sequence[Utterance]]) -> AsteriskCorpus:
    utterances: dict[str, dict[str, int]] = {}
    seconds: dict[str, dict[str, float]] = {}
    for split, part in splits.items():
        utterances[split] = dict(Counter(utterance.language for utterance in part))
        seconds[split] = dict.fromkeys(utterances[split], 0.0)
        for utterance in part:
            seconds[split][utterance.language] += utterance.duration
    return AsteriskCorpus(
        train=output / "train.jsonl",
        dev=output / "dev.jsonl",
        test_unheard=output / "test.jsonl",
        zero_shot=output / "zero_shot.jsonl",
        sentences={
            split: len({utterance.sentence_id for utterance in part})
            for split, part in splits.items()
        },
        utterances=utterances,
        seconds=seconds,
    )
