"""Real parallel speech, tiny and free: the Asterisk telephone prompts in five languages.

About 500 prompts a language, recorded by people; the same file name is the same sentence. They are
packaged in Debian as `asterisk-core-sounds-<language>` (transcripts) and `...-g722` (16 kHz audio).
One speaker a language: language and speaker are confounded, and results say nothing about either
alone. `announcements` puts sentences together from such prompts.

They are a small test of free-form sentences. What is kept: prompts that every language has with 0.3
to 8 s, whose English text has at most 12 words; no letters, spelling alphabet or silence. Sentences
are told apart by their English text, not by file name: 'The conference is now locked' is recorded
twice.
"""

from __future__ import annotations

import gzip
import io
import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import soundfile

from slam_potsa.data.audio import SAMPLE_RATE
from slam_potsa.data.manifest import Utterance
from slam_potsa.data.sources import corpus
from slam_potsa.data.sources.corpus import Corpus, Recording
from slam_potsa.errors import InputError, each, refuse
from slam_potsa.files import atomic_path, atomic_write
from slam_potsa.provenance import content_hash

LANGUAGES = ("en", "es", "fr", "it", "ru")
TARGET_LANGUAGE = "en"
SECONDS = (0.3, 8.0)
MAX_WORDS = 12  # of the English text
DROPPED_FOLDERS = ("letters", "phonetic", "silence")
BESIDE = Path(__file__).parent
CREDITS = (BESIDE / "asterisk_credits.txt").read_text(encoding="utf-8")
_PINNED = (line.split() for line in (BESIDE / "asterisk_packages.txt").read_text().splitlines())
PINS = {package: sha256 for sha256, package in _PINNED}  # as sha256sum writes them
REMEDY = (
    "Instead, put into one folder either the Debian packages that are named in "
    "slam_potsa/data/sources/asterisk_packages.txt, or the makers' release tarballs "
    "asterisk-core-sounds-<language>-g722-1.6.1.tar.gz, each unpacked into a folder named after "
    "its language (en, es, ...), and give that folder with --from."
)
# What apt-get, which runs in folders of its own, is told besides.
APT_OPTIONS = (
    "APT::Sandbox::User=root",  # as root, apt would drop to a user who cannot write here
    "Acquire::Languages=none",  # no translated descriptions
    "Acquire::Retries=2",
    "Acquire::http::Timeout=60",
)


class Voice(NamedTuple):
    """One language as the makers ship it. Names are lower case: `digits/1F` and `1f` are one."""

    prompts: dict[str, Path]  # name -> G.722
    transcripts: dict[str, str]  # name -> cleaned text, only where it can be used


def build(
    output: str | Path,
    *,
    from_dir: str | Path | None = None,
    replace: bool = False,
    progress: bool = True,
) -> Corpus:
    """Write recordings, credits and test.jsonl into `output`; the same packages give equal bytes.

    `from_dir` has the .deb files, or unpacked folders; else they are fetched, once, into `output`.

    Raises InputError for packages that cannot be had or are others, or an incomplete folder.
    """
    output, choices = Path(output), {"dataset": "asterisk"}
    corpus.refuse_another(output, choices, replace)
    with unpacked(PINS, from_dir, output, progress, REMEDY) as root:
        voices = each(partial(_voice, root), LANGUAGES)
        prompts = dict(_chosen(voices, output))
        each(
            lambda prompt: write_flac(prompt.audio, decode_g722(prompts[prompt])),
            prompts,
            progress="decoding" if progress else "",
        )
    recordings = [Recording("test", prompt.key, prompt) for prompt in prompts]
    atomic_write(output / "audio" / "CREDITS.txt", CREDITS)
    return corpus.write(output, recordings, choices)


def find_prompts(root: Path, folder: str, suffix: str) -> dict[str, Path]:
    """Lower-case name -> file of all below folders of this name, anywhere in `root`."""
    return {
        path.relative_to(voice).with_suffix("").as_posix().lower(): path
        for voice in sorted(root.rglob(folder))
        for path in sorted(voice.rglob(f"*.{suffix}"))
    }


def _voice(root: Path, language: str) -> Voice:
    """In Debian's packages a voice is called as `en_US_f_Allison`."""
    prompts = find_prompts(root, language, "g722") | find_prompts(root, f"{language}_*", "g722")
    texts = sorted(root.rglob(f"core-sounds-{language}.txt*"))
    if not prompts or not texts:
        lacking = f"core-sounds-{language}.txt" if prompts else "folder with .g722 files"
        raise InputError(f"found no {lacking} for language {language!r}")
    text = texts[0].read_bytes()
    text = gzip.decompress(text) if texts[0].suffix == ".gz" else text
    return Voice(prompts, read_transcripts(text))


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


def _chosen(voices: Mapping[str, Voice], output: Path) -> Iterator[tuple[Utterance, Path]]:
    """Every usable prompt in every language, ordered by language and name, and its G.722."""
    english = voices[TARGET_LANGUAGE].transcripts
    common = set.intersection(*(set(voice.prompts) for voice in voices.values()))
    names = sorted(
        name
        for name in common
        if name.split("/")[0] not in DROPPED_FOLDERS
        and 0 < len(english.get(name, "").split()) <= MAX_WORDS
        and all(SECONDS[0] <= seconds(v.prompts[name]) <= SECONDS[1] for v in voices.values())
    )
    if not names:
        raise InputError(f"no prompt is there in all of {', '.join(voices)}")
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
                duration=seconds(voice.prompts[name]),
            )
            yield utterance, voice.prompts[name]


def seconds(g722: Path) -> float:
    return 2 * g722.stat().st_size / SAMPLE_RATE  # 64 kbit/s: two samples a byte


def decode_g722(path: Path) -> np.ndarray:
    """Raw G.722 at 64 kbit/s: [samples] at 16 kHz, int16."""
    # The format has no header that could be recognised, so it is named.
    with av.open(io.BytesIO(path.read_bytes()), format="g722") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(frames)


def write_flac(path: str | Path, samples: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        soundfile.write(temporary, samples, SAMPLE_RATE, subtype="PCM_16")


# --- Debian packages as they are published: without root, checked, unpacked, never installed ---


@contextmanager
def unpacked(
    pins: Mapping[str, str],
    given: str | Path | None,
    output: Path,
    progress: bool,
    remedy: str,
) -> Iterator[Path]:
    """The folder in which packages lie unpacked: `given`, where it has no .deb; else a temporary
    one, filled from the packages in `given`, or from those that are fetched to `output`/packages.

    Args:
        pins: the packages' SHA-256 by file name.
        remedy: what every InputError ends in, those of the caller's block too.

    Raises InputError, and removes nothing, where packages are missing or have another hash.
    """
    folder = Path(given) if given else output / "packages"
    try:
        if given and not any(folder.glob("*.deb")):
            yield folder
            return
        if not given:
            _fetch(pins, folder, progress)
        refuse(_problems(pins, folder).values())
        if shutil.which("dpkg-deb") is None:
            raise InputError("dpkg-deb is not on this machine: install dpkg")
        with tempfile.TemporaryDirectory() as temporary:
            for name in pins:
                subprocess.run(["dpkg-deb", "-x", folder / name, temporary], check=True)
            yield Path(temporary)
    except InputError as error:
        *others, last = error.problems
        raise InputError([*others, f"{last.rstrip()}\n{remedy}"]) from None


def _fetch(pins: Mapping[str, str], folder: Path, progress: bool) -> None:
    """Bring the packages into `folder`; right ones there stay.

    apt-get needs no root, and neither needs nor changes the machine's lists of packages: its state
    is in `folder`. Sources and keys are the machine's.
    """
    missing = _problems(pins, folder)
    if missing and shutil.which("apt-get") is None:
        raise InputError("apt-get is not on this machine")
    own = {"Dir::State": folder / "apt" / "state", "Dir::Cache": folder / "apt" / "cache"}
    options = [*(f"{name}={place.resolve()}" for name, place in own.items()), *APT_OPTIONS]

    def apt(*words: str) -> str:
        command = ["apt-get", "-qq", *(f"-o{option}" for option in options), *words]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True).stderr

    def download(name: str) -> None:
        package, version, _ = name.replace("%3a", ":").split("_")
        said = apt("download", f"{package}={version}")
        if not (folder / name).is_file():
            raise InputError(f"{package}={version} cannot be downloaded:\n{said}{updated}")

    for place in own.values():
        place.mkdir(parents=True, exist_ok=True)
    # Not checked: it may complain of one source while another has it all.
    updated = apt("update") if missing else ""
    each(download, missing, workers=1, progress="packages" if progress else "")
    shutil.rmtree(folder / "apt", ignore_errors=True)


def _problems(pins: Mapping[str, str], folder: Path) -> dict[str, str]:
    """What is wrong with packages, by name."""
    found = {}
    for name, sha256 in pins.items():
        path = folder / name
        if not path.is_file():
            found[name] = f"{path}: no such package"
        elif content_hash(path) != sha256:
            found[name] = f"{path}: SHA-256 is {content_hash(path)}, expected {sha256}"
    return found
