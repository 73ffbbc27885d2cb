"""Parallel speech without end: telephone announcements, put together from recorded prompts.

"Wednesday at 10:25 p.m. You have 17 messages." is said as Asterisk says it, fragment by fragment
and with short pauses, after each language's own grammar (`announcements.yaml`). Five languages,
eight recorded voices; nothing is synthesised. The second voices of Spanish, French and Italian
are never trained on. Training has one voice a language: the two cannot be told apart there.
"""

from __future__ import annotations

import hashlib
import io
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from dataclasses import replace as changed
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import soundfile
import soxr
import yaml
from scipy.signal import butter, sosfiltfilt
from tqdm import tqdm

from slam_potsa.data.audio import SAMPLE_RATE
from slam_potsa.data.manifest import Utterance
from slam_potsa.data.sources import corpus, debian, espeak
from slam_potsa.data.sources.corpus import Corpus, Recording
from slam_potsa.errors import InputError, refuse
from slam_potsa.files import atomic_write

PAUSE = (0.05, 0.15)  # seconds between two fragments, drawn evenly
RUMBLE = 80  # Hz: what lies below is taken out; one voice's prompts begin with a decaying offset
FRAME = SAMPLE_RATE // 100  # samples in which loudness is measured, 10 ms
MARGIN = 3 * FRAME  # kept before and after what is heard of a fragment
AUDIBLE = (0.02, 0.1)  # of the loudest frame, -34 to -20 dB
TARGET_LANGUAGE = "en"
NEW_VOICES = "test_new_voices"  # the manifest of the voices that are never trained on
BESIDE = Path(__file__).parent
CREDITS = (BESIDE / "announcements_credits.txt").read_text(encoding="utf-8")
REMEDY = (
    "Instead, put the Debian packages named in slam_potsa/data/sources/announcements.yaml, or what "
    "they unpack to, into one folder and give it with --from."
)


class Clause(NamedTuple):
    """A meaning: what is said, and with which numbers, digits and days (names of fragments)."""

    name: str
    values: dict[str, int | str]


Sentence = tuple[Clause, ...]


@dataclass(frozen=True)
class Speaker:
    """A voice, and the package that has it."""

    language: str
    folder: str  # of its prompts, anywhere below what the packages unpack to
    suffix: str
    package: str
    sha256: str
    held_out: bool = False  # never trained on
    skip: float = 0.0  # seconds of noise that each of its recordings begins with
    lacks: Sequence[str] = ()  # fragments that do not say what they should
    instead: Mapping[str, str] = field(default_factory=dict)  # what it says for such a fragment
    words: Mapping[str, str] = field(default_factory=dict)  # where it says other words


class Language(NamedTuple):
    """A grammar: rows of fragments and {slots}, and what the fragments say."""

    clauses: Mapping[str, str]
    words: Mapping[str, str]  # fragment -> text
    tens: str  # text between tens and units
    link: str | None  # the fragment between them, where one is spoken
    alone: Mapping[int, str]  # numbers that are spelled otherwise where no unit follows

    def say(self, sentence: Sentence) -> tuple[list[str], str]:
        """The fragments to be played (`,` plays nothing), and what they say."""
        played, texts = [], []
        for clause in sentence:
            said = [self._say(token, clause.values) for token in self.clauses[clause.name].split()]
            played += [fragment for fragments, _ in said for fragment in fragments]
            texts.append(_as_sentence(" ".join(text for _, text in said)))
        return played, " ".join(texts)

    def _say(self, token: str, values: Mapping[str, int | str]) -> tuple[list[str], str]:
        value = values[token[1:-1]] if token.startswith("{") else token
        if isinstance(value, int):
            return self._number(value)
        fragments = [f"digits/{digit}" for digit in value] if value.isdecimal() else [value]
        return fragments, " ".join(self.words[fragment] for fragment in fragments)

    def _number(self, number: int) -> tuple[list[str], str]:
        """Recorded as a whole, or tens and units; French has 60 + 15 and 80 + 15."""
        whole = f"digits/{number}"
        if whole in self.words:
            return [whole], self.alone.get(number, self.words[whole])
        tens = max(n for n in range(20, number, 10) if f"digits/{n}" in self.words)
        parts = [f"digits/{tens}", f"digits/{number - tens}"]
        text = self.tens.join(self.words[part] for part in parts)
        return ([parts[0], self.link, parts[1]] if self.link else parts), text


def _as_sentence(text: str) -> str:
    text = re.sub(r"(\s*,)+", ",", text)
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


@cache
def tables() -> dict[str, Any]:
    return yaml.safe_load((BESIDE / "announcements.yaml").read_text(encoding="utf-8"))


@cache
def speakers() -> dict[str, Speaker]:
    """Name -> voice, those of training first."""
    return {name: Speaker(**given) for name, given in tables()["speakers"].items()}


def packages(names: Iterable[str]) -> dict[str, str]:
    """File name -> SHA-256 of the packages that have these voices."""
    return {one.package: one.sha256 for one in map(speakers().__getitem__, names)}


@cache
def language(code: str) -> Language:
    """The grammar of a language."""
    given = tables()["languages"][code]
    closings = {name: name for name in tables()["meanings"]["closing"]}
    words = {",": ","} | given["words"]
    words |= {f"digits/day-{i}": day for i, day in enumerate(given["days"].split())}
    words |= {f"digits/{i}": number for i, number in enumerate(given["numbers"].split())}
    words |= {f"digits/{number}": text for number, text in given["round"].items()}
    clauses = tables()["clauses"] | given["clauses"] | closings
    return Language(clauses, words, given["tens"], given.get("link"), given.get("alone", {}))


def english(sentence: Sentence) -> str:
    """The translation, with digits: `You have 17 messages.`"""
    meanings, words = tables()["meanings"], language("en").words
    templates = {name: text for kind in meanings.values() for name, text in kind.items()}
    texts = []
    for name, values in sentence:
        shown = {slot: words.get(value, value) for slot, value in values.items()}
        texts.append(_as_sentence(templates[name].format(**shown)))
    return " ".join(texts)


def sentence_id(text: str) -> str:
    """The English text without case and punctuation, such as `the-conference-is-now-locked`."""
    return "-".join(re.findall(r"\w+", text.replace("'", "").lower()))


def sentences(seed: int, clauses: int = 3) -> Iterator[Sentence]:
    """Some thousands of sentences, no two alike; the same seed gives the same ones.

    `clauses`: at most so many a sentence.
    """
    rng, known = random.Random(seed), set()
    shapes = [shape for shape in tables()["shapes"] if len(shape) <= clauses]
    while True:
        sentence = tuple(_clause(kind, rng) for kind in rng.choice(shapes))
        if (text := english(sentence)) not in known:
            known.add(text)
            yield sentence


def _clause(kind: str, rng: random.Random) -> Clause:
    name, text = rng.choice(list(tables()["meanings"][kind].items()))
    values = {}
    for slot in re.findall(r"{(\w+)}", text):
        choices = tables()["slots"][slot]
        digits = isinstance(choices, dict) and "".join(
            rng.choices("0123456789", k=choices["digits"])
        )
        values[slot] = digits or rng.choice(choices)
    return Clause(name, values)


class Voice:
    """A speaker's recorded fragments; each is read when first asked for."""

    synthetic = None  # as the manifest's rows have it

    def __init__(self, name: str, root: Path):
        """`root`: what the packages unpack to. Raises InputError where it lacks the voice."""
        self.name, self.speaker = name, speakers()[name]
        folder, suffix = self.speaker.folder, self.speaker.suffix
        files = {
            path.relative_to(place).with_suffix("").as_posix().lower(): path
            for place in sorted(root.rglob(folder))
            for path in sorted(place.rglob(f"*.{suffix}"))
        }
        if not files:
            where = f"{root}: no folder {folder} with .{suffix} files"
            raise InputError(f"{where} for the voice {name}")
        self.files = {name: files[name] for name in files.keys() - {*self.speaker.lacks}}

    def say(self, sentence: Sentence) -> tuple[list[str], str]:
        """The fragments that this voice plays, and what it says with them."""
        own, instead = language(self.speaker.language), self.speaker.instead
        words = {name: own.words.get(instead.get(name), own.words[name]) for name in own.words}
        played, text = own._replace(words=words | self.speaker.words).say(sentence)
        return [name for one in played if (name := instead.get(one, one)) != ","], text

    def lacking(self, sentence: Sentence) -> set[str]:
        """The fragments of it that this voice does not have."""
        return {*self.say(sentence)[0]} - self.files.keys()

    @lru_cache(maxsize=400)  # noqa: B019 - some voices, as long as the process
    def samples(self, fragment: str) -> np.ndarray:
        """[samples] at 16 kHz, from shortly before to shortly after what is heard of it."""
        return trimmed(_read(self.files[fragment])[round(self.speaker.skip * SAMPLE_RATE) :])

    def render(self, fragments: Sequence[str], seed: str) -> np.ndarray:
        """[samples] of the fragments one after the other, with pauses that `seed` decides."""
        digest = hashlib.sha256(f"{seed} {self.name}".encode()).digest()
        rng = np.random.default_rng(list(digest))
        parts = [self.samples(fragments[0])]
        for fragment in fragments[1:]:
            pause = round(rng.uniform(*PAUSE) * SAMPLE_RATE)
            parts += [np.zeros(pause, dtype=np.float32), self.samples(fragment)]
        return np.concatenate(parts)


def trimmed(samples: np.ndarray) -> np.ndarray:
    """Without the silence at both ends, but for `MARGIN`; loudness stays.

    Audible: twice as loud as the quietest tenth of the recording, within `AUDIBLE` of its loudest.
    """
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    loudness = np.sqrt((frames**2).mean(axis=1))
    least, most = (share * loudness.max() for share in AUDIBLE)
    heard = np.flatnonzero(loudness >= np.clip(2 * np.quantile(loudness, 0.1), least, most))
    return samples[max(0, heard[0] * FRAME - MARGIN) : (heard[-1] + 1) * FRAME + MARGIN]


def _read(path: Path) -> np.ndarray:
    raw = {"samplerate": 8_000, "channels": 1, "format": "RAW", "subtype": "GSM610"}
    if path.suffix == ".g722":
        # The format has no header that could be recognised, so it is named.
        with av.open(io.BytesIO(path.read_bytes()), format="g722") as container:
            frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
        samples, rate = np.concatenate(frames) / 2**15, SAMPLE_RATE
    else:
        samples, rate = soundfile.read(path, **raw if path.suffix == ".gsm" else {})
    samples = soxr.resample(samples, rate, SAMPLE_RATE)
    high_pass = butter(2, RUMBLE, "highpass", fs=SAMPLE_RATE, output="sos")
    return sosfiltfilt(high_pass, samples).astype(np.float32)


def build(
    output: str | Path,
    *,
    from_dir: str | Path | None = None,
    synthetic: bool = False,
    heard: Sequence[str] | None = None,
    unheard: Sequence[str] = ("fr", "it"),
    train: int = 500,
    pairs: int = 320,
    dev: int = 60,
    test: int = 150,
    clauses: int = 3,
    seed: int = 0,
    replace: bool = False,
    progress: bool = True,
) -> Corpus:
    """Write recordings, credits and manifests into `output`. Each has sentences of its own:

    train             heard languages
    pairs             all languages, of the unheard ones the speech alone, without any text
    pairs_translated  the unheard ones of `pairs` again, with transcripts and translations
    dev, test         all languages
    test_new_voices   the sentences of `test`, by voices that no other manifest has

    Args:
        synthetic: of the twelve languages that `espeak` speaks, not of recordings.
        heard: None: all languages but the unheard ones.
        from_dir: folder of the .deb files or of what they unpack to; else they are fetched, once.
        train, pairs, dev, test: sentences of each; a test stays the same when train grows.
        clauses: of a sentence at most, 1 to 3: one takes some 4 seconds to say.
        replace: take the place of another data set in `output`.

    Raises InputError for packages that cannot be had or are others, or options that do not fit.
    """
    output, counts = Path(output), {"test": test, "dev": dev, "pairs": pairs, "train": train}
    spoken = espeak if synthetic else sys.modules[__name__]  # sentences, english, CREDITS
    known = espeak.LANGUAGES if synthetic else [*tables()["languages"]]
    heard = [code for code in known if code not in unheard] if heard is None else heard
    refuse([*_problems(known, heard, unheard, counts), *(espeak.lacking() if synthetic else ())])
    choices = {"dataset": "synthetic " * synthetic + "announcements", "heard": [*heard]}
    choices |= {"unheard": [*unheard], "sentences": counts, "clauses": clauses, "seed": seed}
    corpus.refuse_another(output, choices, replace)
    drawn = spoken.sentences(seed, clauses)
    split = {name: list(islice(drawn, count)) for name, count in counts.items()}
    names = [n for n, one in speakers().items() if one.language in {*heard, *unheard}]
    prompts = debian.unpacked(packages(names), from_dir, output, progress, REMEDY)
    with nullcontext() if synthetic else prompts as root:
        voices = [espeak.Voice(code) for code in [*heard, *unheard] if synthetic]
        voices = voices or [Voice(name, root) for name in names]
        means = spoken.english
        recordings = list(_recordings(split, voices, heard, means, output, seed, progress))
    atomic_write(output / "audio" / "CREDITS.txt", spoken.CREDITS)
    # What new voices lack is no fault.
    return corpus.write(output, recordings, choices, max_dropped=1.0)


def _problems(
    known: Sequence[str], heard: Sequence[str], unheard: Sequence[str], counts: Mapping[str, int]
) -> Iterator[str]:
    given = [*heard, *unheard]
    if len({*given} & {*known}) < len(given):
        expected = f"each of {', '.join(known)} once at most, either heard or unheard"
        yield f"languages {', '.join(given)}: expected {expected}"
    if not heard or min(counts.values()) < 0 or not counts["train"]:
        yield f"{counts}: expected a heard language and a sentence or more of train"


def _recordings(
    split: Mapping[str, Sequence[Sentence]],
    voices: Sequence[Voice | espeak.Voice],
    heard: Sequence[str],
    means: Callable[[Sentence], str],
    output: Path,
    seed: int,
    progress: bool,
) -> Iterator[Recording]:
    """Of each manifest, written; what new voices cannot say is left out."""
    jobs = [
        (NEW_VOICES if voice.speaker.held_out else name, sentence, voice)
        for name, own in split.items()
        for sentence in own
        for voice in voices
        if (name == "test" or not voice.speaker.held_out)
        and (name != "train" or voice.speaker.language in heard)
    ]
    for name, sentence, voice in tqdm(jobs, "announcements", disable=not progress):
        lacking, target = ", ".join(sorted(voice.lacking(sentence))), means(sentence)
        if lacking and not voice.speaker.held_out:
            raise InputError(f"{voice.name}: no recording of {lacking}")
        if lacking:
            reason = f"{voice.name} lacks a fragment"
            yield Recording(name, target, None, reason, lacking)
            continue
        fragments, text = voice.say(sentence)
        about = sentence_id(target)
        samples = voice.render(fragments, f"{seed} {about}")
        one = recorded(voice, about, samples, text, target, output, name)
        if name == "pairs" and voice.speaker.language not in heard:
            yield changed(one, manifest="pairs_translated")
            row = changed(one.utterance, transcript=None, target=None, target_language=None)
            one = changed(one, utterance=row)
        yield one


def recorded(
    voice: Voice | espeak.Voice,
    name: str,
    samples: np.ndarray,
    transcript: str | None,
    target: str,
    output: Path,
    manifest: str = "test",
) -> Recording:
    """What a voice says, written to `output`, with its row."""
    audio = output.resolve() / "audio" / voice.name / f"{name}.flac"
    content = io.BytesIO()  # of a full disk soundfile has an error of its own
    soundfile.write(content, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    atomic_write(audio, content.getvalue())
    row = Utterance(
        key=f"{voice.name}/{name}",
        audio=str(audio),
        language=voice.speaker.language,
        sentence_id=sentence_id(target),
        transcript=transcript,
        target=target,
        target_language=TARGET_LANGUAGE,
        duration=round(len(samples) / SAMPLE_RATE, 4),
        synthetic=voice.synthetic,
    )
    return Recording(manifest, row.key, row)
