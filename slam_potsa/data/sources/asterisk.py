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
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from slam_potsa.data.audio import SAMPLE_RATE
from slam_potsa.data.manifest import Utterance
from slam_potsa.data.sources import corpus
from slam_potsa.data.sources.corpus import Corpus, Recording
from slam_potsa.errors import InputError, each, refuse
from slam_potsa.files import atomic_path, atomic_write
from slam_potsa.provenance import content_hash

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
    from tqdm import tqdm

    output = Path(output)
    voices = load(Path(from_dir) if from_dir else None, output / "packages", progress)
    recordings = []
    for utterance, g722 in tqdm(list(_chosen(voices, output)), "decoding", disable=not progress):
        _write_flac(Path(utterance.audio), g722)
        if manifest := _manifest(utterance):
            recordings.append(Recording(manifest, utterance.key, utterance))
    atomic_write(output / "audio" / "CREDITS.txt", CREDITS)
    return corpus.write(output, recordings, {"dataset": "asterisk"})


def load(folder: Path | None, cache: Path, progress: bool) -> dict[str, Voice]:
    """The voice of each language: from packages or unpacked folders in `folder`, or fetched.

    Raises InputError, and removes nothing, where packages are missing or have another hash.
    """
    with unpacked(PINS, folder, cache, progress) as root:
        return each(partial(_voice, root), LANGUAGES)


@contextmanager
def unpacked(
    pins: Mapping[str, str],
    folder: Path | None,
    cache: Path,
    progress: bool = True,
    remedy: str = REMEDY,
) -> Iterator[Path]:
    """The folder in which the packages `pins` lie unpacked: `folder`, where it has no .deb; else a
    temporary one, filled from the packages in `folder`, or from those that are fetched to `cache`.
    """
    if folder is None:
        fetch_packages(pins, cache, progress, remedy)
    elif not any(folder.glob("*.deb")):
        yield folder
        return
    packages = {(folder or cache) / name: sha256 for name, sha256 in pins.items()}
    wrong = filter(None, (_wrong(path, sha256) for path, sha256 in packages.items()))
    refuse(f"{problem}. {remedy}" for problem in wrong)
    with tempfile.TemporaryDirectory() as temporary:
        for path in packages:
            unpack(path, Path(temporary))
        yield Path(temporary)


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


def fetch_packages(
    pins: Mapping[str, str], cache: Path, progress: bool = True, remedy: str = REMEDY
) -> None:
    """Bring the packages `pins` (file name -> SHA-256) into `cache`; right ones there stay.

    Raises InputError where there is no apt-get, or a version cannot be had.
    """
    from tqdm import tqdm

    cache.mkdir(parents=True, exist_ok=True)
    missing = [name for name, sha256 in pins.items() if _wrong(cache / name, sha256)]
    if missing and shutil.which("apt-get") is None:
        raise InputError(f"apt-get is not on this machine. {remedy}")
    if missing:
        apt = _private_apt(cache / "apt")
        # It may complain of one source while another has it all.
        updated = _complaint([*apt, "update"], cache)
    for name in tqdm(missing, desc="packages", unit="file", disable=not progress):
        package, version, _ = name.replace("%3a", ":").split("_")
        said = _complaint([*apt, "download", f"{package}={version}"], cache)
        if not (cache / name).is_file():
            said = "\n".join(filter(None, [said, updated]))
            raise InputError(f"{package}={version} cannot be downloaded:\n{said}\n{remedy}")
    shutil.rmtree(cache / "apt", ignore_errors=True)


def _wrong(path: Path, sha256: str) -> str:
    """What is wrong with a package; "": nothing."""
    if not path.is_file():
        return f"{path}: no such package"
    found = content_hash(path)
    return "" if found == sha256 else f"{path}: SHA-256 is {found}, expected {sha256}"


def unpack(package: Path, folder: Path) -> None:
    """Unpack a Debian package (`usr/share/...`), without installing it."""
    if shutil.which("dpkg-deb") is None:
        raise InputError(f"{package}: dpkg-deb is not on this machine: install dpkg")
    if said := _complaint(["dpkg-deb", "-x", package.resolve(), folder], folder):
        raise InputError(f"{package}: not a Debian package ({said})")


def _private_apt(state: Path) -> list[str]:
    """An apt-get that needs no root, and neither needs nor changes the machine's package lists:
    its state is in `state`. Sources and keys are the machine's; nothing is installed."""
    own = {"Dir::State": state.resolve() / "state", "Dir::Cache": state.resolve() / "cache"}
    for folder in own.values():
        folder.mkdir(parents=True, exist_ok=True)
    options = {
        "APT::Sandbox::User": "root",  # as root, apt would drop to a user who cannot write here
        "Acquire::Languages": "none",  # no translated descriptions
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "60",
    }
    return ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in (own | options).items())]


def _complaint(command: Sequence[str | Path], folder: Path) -> str:
    """Run in `folder`; what the command says where it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return (done.stderr or done.stdout).strip() if done.returncode else ""


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


def _write_flac(path: Path, g722: bytes) -> None:
    """Raw G.722 at 64 kbit/s to FLAC at 16 kHz, mono."""
    import soundfile

    with atomic_path(path) as temporary:
        soundfile.write(temporary, decode_g722(g722), SAMPLE_RATE, subtype="PCM_16")


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
