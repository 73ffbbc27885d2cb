"""Parallel speech without end: telephone announcements, put together from recorded prompts.

"Wednesday at 10:25 p.m. You have 17 messages." is said as Asterisk says it: fragment by fragment,
after each language's own grammar (`announcements.yaml`), with short pauses. Five languages, eight
voices, all recorded by people; nothing is synthesised. The second voices of Spanish, French and
Italian are never trained on. Training has one voice a language: the two cannot be told apart there.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slam_potsa.data import manifest
from slam_potsa.data.audio import SAMPLE_RATE
from slam_potsa.data.manifest import Utterance
from slam_potsa.data.sources import asterisk
from slam_potsa.data.sources.corpus import RECORD, Corpus, refuse_another
from slam_potsa.errors import InputError, refuse
from slam_potsa.files import atomic_path, atomic_write
from slam_potsa.provenance import write_record

PAUSE = (0.05, 0.15)  # seconds between two fragments, drawn evenly
RUMBLE = 80  # Hz
FRAME = SAMPLE_RATE // 100  # samples in which loudness is measured, 10 ms
MARGIN = 3 * FRAME  # kept before and after what is heard of a fragment
AUDIBLE = (0.02, 0.1)  # of the loudest frame, -34 to -20 dB
TARGET_LANGUAGE = "en"
NEW_VOICES = "test_new_voices"  # the manifest of the voices that are never trained on
CREDITS = Path(__file__).with_name("announcements_credits.txt").read_text(encoding="utf-8")
REMEDY = (
    "Instead, put the packages named in slam_potsa/data/sources/announcements.yaml, or what they "
    "unpack to, into one folder and give it with --from."
)

Value = int | str  # of a slot: a number, the name of a fragment, or digits


class Clause(NamedTuple):
    """A meaning: what is said, and with which numbers and days."""

    name: str
    values: dict[str, Value]


Sentence = tuple[Clause, ...]


@dataclass(frozen=True)
class Speaker:
    """A voice, and the package that has it."""

    language: str
    folder: str  # of its prompts, anywhere below what the packages unpack to
    suffix: str
    package: str
    sha256: str
    held_out: bool = False
    skip: float = 0.0  # seconds of noise that each of its recordings begins with
    instead: dict[str, str] = field(default_factory=dict)  # fragment that it lacks -> another
    words: dict[str, str] = field(default_factory=dict)  # where it says other words


class Language(NamedTuple):
    """A grammar: rows of fragments and {slots}, and what the fragments say."""

    clauses: dict[str, str]
    words: dict[str, str]  # fragment -> text
    tens: str  # text between tens and units
    link: str | None  # the fragment between them, where one is spoken
    alone: dict[int, str]  # numbers that are spelled otherwise where no unit follows

    def number(self, number: int) -> tuple[list[str], str]:
        """Its fragments and its text: recorded as a whole, or tens and units."""
        whole = f"digits/{number}"
        if whole in self.words:
            return [whole], self.alone.get(number, self.words[whole])
        tens = max(n for n in range(20, number, 10) if f"digits/{n}" in self.words)
        parts = [f"digits/{tens}", f"digits/{number - tens}"]
        text = self.tens.join(self.words[part] for part in parts)
        return ([parts[0], self.link, parts[1]] if self.link else parts), text

    def say(self, sentence: Sentence) -> tuple[list[str], str]:
        """The fragments to be played (`,` plays nothing), and what they say."""
        played, texts = [], []
        for clause in sentence:
            said = [self._say(token, clause.values) for token in self.clauses[clause.name].split()]
            played += [fragment for fragments, _ in said for fragment in fragments]
            texts.append(_as_sentence(" ".join(text for _, text in said)))
        return played, " ".join(texts)

    def _say(self, token: str, values: Mapping[str, Value]) -> tuple[list[str], str]:
        value = values[token[1:-1]] if token.startswith("{") else token
        if isinstance(value, int):
            return self.number(value)
        if value.isdecimal():
            fragments = [f"digits/{digit}" for digit in value]
            return fragments, " ".join(self.words[fragment] for fragment in fragments)
        return [value], self.words[value]


def _as_sentence(text: str) -> str:
    text = re.sub(r"(\s*,)+", ",", text)
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


# --- the grammar ---


@cache
def _tables() -> dict[str, Any]:
    import yaml

    return yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


@cache
def speakers() -> dict[str, Speaker]:
    """Name -> voice, those of training first."""
    return {name: Speaker(**given) for name, given in _tables()["speakers"].items()}


@cache
def language(code: str) -> Language:
    """The grammar of a language."""
    given = _tables()["languages"][code]
    words = {",": ","} | given["words"]
    words |= {f"digits/day-{i}": day for i, day in enumerate(given["days"].split())}
    words |= {f"digits/{i}": number for i, number in enumerate(given["numbers"].split())}
    words |= {f"digits/{number}": text for number, text in given["round"].items()}
    clauses = _tables()["clauses"] | given["clauses"] | {name: name for name in _closings()}
    return Language(clauses, words, given["tens"], given.get("link"), given.get("alone", {}))


def _closings() -> dict[str, str]:
    return _tables()["meanings"]["closing"]


def english(sentence: Sentence) -> str:
    """The translation, with digits: `You have 17 messages.`"""
    meanings = {
        name: text for kind in _tables()["meanings"].values() for name, text in kind.items()
    }
    words = language("en").words
    texts = []
    for name, values in sentence:
        shown = {slot: words.get(value, value) for slot, value in values.items()}
        texts.append(_as_sentence(meanings[name].format(**shown)))
    return " ".join(texts)


def sentences(seed: int) -> Iterator[Sentence]:
    """Sentences without end, no two alike; the same seed gives the same ones."""
    rng, known = random.Random(seed), set()
    while True:
        sentence = tuple(_clause(kind, rng) for kind in rng.choice(_tables()["shapes"]))
        if (text := english(sentence)) not in known:
            known.add(text)
            yield sentence


def _clause(kind: str, rng: random.Random) -> Clause:
    name, text = rng.choice(list(_tables()["meanings"][kind].items()))
    slots = re.findall(r"{(\w+)}", text)
    return Clause(name, {slot: _value(_tables()["slots"][slot], rng) for slot in slots})


def _value(slot: Sequence[Value] | Mapping[str, int], rng: random.Random) -> Value:
    if isinstance(slot, Mapping):
        return "".join(rng.choices("0123456789", k=slot["digits"]))
    return rng.choice(slot)


# --- the voices ---


class Voice:
    """A speaker's recorded fragments, as 16 kHz samples; read when first asked for."""

    def __init__(self, name: str, root: Path):
        self.name, self.speaker = name, speakers()[name]
        suffix = f".{self.speaker.suffix}"
        self.files = {
            path.relative_to(folder).with_suffix("").as_posix().lower(): path
            for folder in sorted(root.rglob(self.speaker.folder))
            for path in sorted(folder.rglob(f"*{suffix}"))
        }
        if not self.files:
            where = f"{root}: no folder {self.speaker.folder} with {suffix} files"
            raise InputError(f"{where} for the voice {name}. {REMEDY}")
        self._samples: dict[str, np.ndarray] = {}

    def say(self, sentence: Sentence) -> tuple[list[str], str]:
        """The fragments that this voice plays, and what it says with them."""
        own, instead = language(self.speaker.language), self.speaker.instead
        words = {name: own.words[instead.get(name, name)] for name in own.words}
        words |= self.speaker.words
        played, text = own._replace(words=words).say(sentence)
        return [name for one in played if (name := instead.get(one, one)) != ","], text

    def samples(self, fragment: str) -> np.ndarray:
        """[samples] from shortly before to shortly after what is heard; loudness as recorded."""
        if fragment not in self._samples:
            samples = _above_rumble(_read(self.files[fragment]))
            self._samples[fragment] = trimmed(samples[round(self.speaker.skip * SAMPLE_RATE) :])
        return self._samples[fragment]

    def render(self, fragments: Sequence[str], seed: str) -> np.ndarray:
        """The fragments one after the other, with pauses that `seed` decides."""
        digest = hashlib.sha256(f"{seed} {self.name}".encode()).digest()
        rng = np.random.default_rng(list(digest))
        parts = [self.samples(fragments[0])]
        for fragment in fragments[1:]:
            pause = round(rng.uniform(*PAUSE) * SAMPLE_RATE)
            parts += [np.zeros(pause, dtype=np.float32), self.samples(fragment)]
        return np.concatenate(parts)


def trimmed(samples: np.ndarray) -> np.ndarray:
    """Without the silence at both ends, but for `MARGIN`.

    Audible: twice as loud as the quietest tenth of the recording, within `AUDIBLE` of its loudest.
    """
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    if not len(frames):
        return samples
    loudness = np.sqrt((frames**2).mean(axis=1))
    least, most = AUDIBLE
    level = np.clip(2 * np.quantile(loudness, 0.1), least * loudness.max(), most * loudness.max())
    heard = np.flatnonzero(loudness >= level)
    return samples[max(0, heard[0] * FRAME - MARGIN) : (heard[-1] + 1) * FRAME + MARGIN]


def _above_rumble(samples: np.ndarray) -> np.ndarray:
    """Without what lies below `RUMBLE`: fr-armelle's prompts begin with an offset that decays."""
    from scipy.signal import butter, sosfiltfilt

    filtered = sosfiltfilt(butter(2, RUMBLE, "highpass", fs=SAMPLE_RATE, output="sos"), samples)
    return filtered.astype(np.float32)


def _read(path: Path) -> np.ndarray:
    import soundfile
    import soxr

    if path.suffix == ".g722":
        return asterisk.decode_g722(path.read_bytes()).astype(np.float32) / 2**15
    raw = {"samplerate": 8_000, "channels": 1, "format": "RAW", "subtype": "GSM610"}
    samples, rate = soundfile.read(path, dtype="float32", **raw if path.suffix == ".gsm" else {})
    return soxr.resample(samples, rate, SAMPLE_RATE)


# --- the data set ---


def build(
    output: str | Path,
    *,
    from_dir: str | Path | None = None,
    heard: Sequence[str] = ("en", "es", "ru"),
    unheard: Sequence[str] = ("fr", "it"),
    train: int = 500,
    pairs: int = 320,
    dev: int = 60,
    test: int = 150,
    seed: int = 0,
    replace: bool = False,
    progress: bool = True,
) -> Corpus:
    """Write recordings, credits and manifests into `output`. No sentence is in two of them:

    train            heard languages
    pairs            all languages; the unheard ones as speech alone, without any text
    pairs_translated the same recordings of the unheard ones, with transcripts and translations
    dev, test        all languages
    test_new_voices  the sentences of test, by voices that no other manifest has

    Args:
        from_dir: folder of the .deb files or of what they unpack to; else they are fetched once.
        train, pairs, dev, test: sentences of each. A test stays the same when train grows.
        replace: take the place of another data set in `output`.

    Raises InputError for packages that cannot be had or are others, or options that do not fit.
    """
    output, counts = Path(output), {"test": test, "dev": dev, "pairs": pairs, "train": train}
    _check(heard, unheard, counts)
    choices = {"dataset": "announcements", "heard": list(heard), "unheard": list(unheard)}
    choices |= {"sentences": counts, "seed": seed}
    refuse_another(output, choices, replace)
    drawn = sentences(seed)
    split = {name: list(islice(drawn, count)) for name, count in counts.items()}
    split[NEW_VOICES] = split["test"]
    names = {name: one for name, one in speakers().items() if one.language in {*heard, *unheard}}
    pins = {one.package: one.sha256 for one in names.values()}
    folder = Path(from_dir) if from_dir else None
    with asterisk.unpacked(pins, folder, output / "packages", progress, REMEDY) as root:
        voices = [Voice(name, root) for name in names]
        rows, lacking = _render(split, voices, heard, output, seed, progress)
    atomic_write(output / "audio" / "CREDITS.txt", CREDITS)
    return _write(output, rows, lacking, choices)


def _check(heard: Sequence[str], unheard: Sequence[str], counts: Mapping[str, int]) -> None:
    known = list(_tables()["languages"])
    problems = [
        f"language {code!r}: expected one of {', '.join(known)}"
        for code in {*heard, *unheard} - {*known}
    ]
    if twice := {*heard} & {*unheard}:
        problems.append(f"{', '.join(sorted(twice))}: both heard and unheard; name each once")
    if not heard or counts["train"] < 1:
        problems.append("nothing to train on: name a heard language and one sentence or more")
    refuse(problems)


def _render(
    split: Mapping[str, Sequence[Sentence]],
    voices: Sequence[Voice],
    heard: Sequence[str],
    output: Path,
    seed: int,
    progress: bool,
) -> tuple[dict[str, list[Utterance]], Counter]:
    """The rows of each manifest, recordings written; and what voices could not say, counted."""
    from tqdm import tqdm

    jobs = [
        (name, sentence, voice)
        for name, own in split.items()
        for sentence in own
        for voice in voices
        if voice.speaker.held_out == (name == NEW_VOICES)
        and (name != "train" or voice.speaker.language in heard)
    ]
    rows, lacking = {name: [] for name in split}, Counter()
    for name, sentence, voice in tqdm(jobs, "announcements", disable=not progress):
        if missing := {*voice.say(sentence)[0]} - voice.files.keys():
            if name != NEW_VOICES:
                what = f"the voice {voice.name} has no recording of {', '.join(sorted(missing))}"
                raise InputError(f"{what}. {REMEDY}")
            lacking.update([f"{voice.name} lacks a fragment"])
        else:
            rows[name].append(_utterance(sentence, voice, output, seed))
    told = rows["pairs"]
    bare = {"transcript": None, "target": None, "target_language": None}
    pairs = [row if row.language in heard else replace(row, **bare) for row in told]
    translated = [row for row in told if row.language not in heard]
    return rows | {"pairs": pairs, "pairs_translated": translated}, lacking


def _utterance(sentence: Sentence, voice: Voice, output: Path, seed: int) -> Utterance:
    """Its row, the recording written."""
    import soundfile

    fragments, text = voice.say(sentence)
    target = english(sentence)
    name = asterisk.sentence_id(target)
    samples = voice.render(fragments, f"{seed} {name}")
    audio = output / "audio" / voice.name / f"{name}.flac"
    with atomic_path(audio) as temporary:
        soundfile.write(temporary, samples, SAMPLE_RATE, subtype="PCM_16")
    return Utterance(
        key=f"{voice.name}/{name}",
        audio=audio.relative_to(output).as_posix(),
        language=voice.speaker.language,
        sentence_id=name,
        transcript=text,
        target=target,
        target_language=TARGET_LANGUAGE,
        duration=round(len(samples) / SAMPLE_RATE, 4),
    )


def _write(
    output: Path,
    rows: Mapping[str, Sequence[Utterance]],
    lacking: Counter,
    choices: Mapping[str, Any],
) -> Corpus:
    manifests = {}
    for name, own in rows.items():
        path = output / f"{name}.jsonl"
        if not own:
            path.unlink(missing_ok=True)
            continue
        manifest.write_manifest(path, own)
        manifest.mark_checked(path)
        manifests[name] = manifest.check_manifest(path, audio=False)
    write_record(output / RECORD, choices, [output / f"{name}.jsonl" for name in manifests])
    left_out = {NEW_VOICES: dict(lacking)} if lacking else {}
    return Corpus(output, manifests, left_out, {}, [])
