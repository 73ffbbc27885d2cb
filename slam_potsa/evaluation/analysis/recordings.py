"""Which recordings are analysed: parallel sentences of one or more manifests, subsampled."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slam_potsa.data.manifest import Utterance, read_manifest
from slam_potsa.errors import InputError
from slam_potsa.evaluation.analysis.settings import Settings


@dataclass(frozen=True)
class Recordings:
    """The utterances of each manifest; rows are counted through all of them.

    `detail` are the rows of the sentences whose tokens are looked at.
    """

    manifests: tuple[Path, ...]
    parts: tuple[tuple[Utterance, ...], ...]
    detail: tuple[int, ...]

    @property
    def utterances(self) -> list[Utterance]:
        return [utterance for part in self.parts for utterance in part]

    @property
    def languages(self) -> list[str]:
        """The language of each row."""
        return [utterance.language for utterance in self.utterances]

    @property
    def sentences(self) -> list[str]:
        """The sentence of each row."""
        return [utterance.sentence_id for utterance in self.utterances]


def read_recordings(
    manifests: Sequence[str | Path], settings: Settings, heard: Iterable[str] | None = None
) -> Recordings:
    """Read the manifests together, and draw `settings.sentences` and `detail_sentences` of them.

    With `sentences` given, they are drawn of those spoken in two languages or more. The detail is
    drawn of the sentences spoken in the most languages, so that languages are compared on the same
    content. Both draws depend on the seed and on the sentences alone.

    Raises:
        InputError: bad lines; a key in two manifests; fewer than two languages; a language with
            fewer than two sentences that another has too; a `heard` language that is not spoken.
    """
    manifests = tuple(Path(manifest) for manifest in manifests)
    parts = _read_all(manifests)
    spoken = _spoken(parts)
    problems = _key_problems(manifests, parts) + _language_problems(spoken, heard or ())
    if problems:
        raise InputError(problems)
    if settings.sentences is not None:
        parallel = [sentence for sentence, languages in spoken.items() if len(languages) > 1]
        chosen = set(_draw(parallel, settings.sentences, settings.seed))
        parts = [[u for u in part if u.sentence_id in chosen] for part in parts]
        spoken = {sentence: spoken[sentence] for sentence in chosen}
        problems = _language_problems(spoken, ())
        if problems:
            raise InputError([f"with {settings.sentences} sentences: {p}" for p in problems])
    detail = _detail(spoken, settings)
    rows = [u.sentence_id for part in parts for u in part]
    return Recordings(
        manifests,
        tuple(tuple(part) for part in parts),
        tuple(row for row, sentence in enumerate(rows) if sentence in detail),
    )


def _read_all(manifests: Sequence[Path]) -> list[list[Utterance]]:
    parts, problems = [], []
    for manifest in manifests:
        try:
            parts.append(read_manifest(manifest))
        except InputError as error:
            problems += error.problems
    if problems or not manifests:
        raise InputError(problems or "no manifest: give one with parallel sentences")
    return parts


def _spoken(parts: Iterable[Iterable[Utterance]]) -> dict[str, set[str]]:
    """sentence -> languages."""
    spoken: dict[str, set[str]] = defaultdict(set)
    for part in parts:
        for utterance in part:
            spoken[utterance.sentence_id].add(utterance.language)
    return spoken


def _detail(spoken: dict[str, set[str]], settings: Settings) -> set[str]:
    """Sentences in the most languages first, drawn where there are too many of them."""
    drawn = _draw(list(spoken), len(spoken), settings.seed)
    drawn = [sentence for sentence in drawn if len(spoken[sentence]) > 1]
    return set(sorted(drawn, key=lambda s: -len(spoken[s]))[: settings.detail_sentences])


def _draw(sentences: list[str], count: int, seed: int) -> list[str]:
    return random.Random(f"analysis:{seed}").sample(sorted(sentences), min(count, len(sentences)))


def _key_problems(manifests: Sequence[Path], parts: Sequence[Sequence[Utterance]]) -> list[str]:
    places: dict[str, list[Path]] = defaultdict(list)
    for manifest, part in zip(manifests, parts, strict=True):
        for utterance in part:
            places[utterance.key].append(manifest)
    shared: dict[tuple[Path, ...], list[str]] = defaultdict(list)
    for key, found in places.items():
        if len(found) > 1:
            shared[tuple(found)].append(key)
    return [
        f"{' and '.join(map(str, found))}: share {len(keys)} keys, such as {keys[0]!r}; expected "
        "every recording once"
        for found, keys in shared.items()
    ]


def _language_problems(spoken: dict[str, set[str]], heard: Iterable[str]) -> list[str]:
    names = sorted(set().union(*spoken.values()))
    shared = Counter(
        language for languages in spoken.values() if len(languages) > 1 for language in languages
    )
    problems = []
    if len(names) < 2:
        problems.append(f"languages: found only {', '.join(names)}; expected at least 2")
    else:
        problems += [
            f"language {name!r}: {shared[name]} of its sentences are spoken in another language "
            "too; expected at least 2 (the same sentence_id), or leave the language out"
            for name in names
            if shared[name] < 2
        ]
    problems += [
        f"heard {name!r}: not spoken in these manifests, which have {', '.join(names)}"
        for name in heard
        if name not in names
    ]
    return problems
