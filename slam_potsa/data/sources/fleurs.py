"""Manifests of FLEURS: about ten hours of read speech in each of 102 languages, n-way parallel.

    data/{locale}/{train,dev,test}.tsv          no header; tab-separated: id, file name, raw
                                                transcription, transcription, characters, samples,
                                                gender
    data/{locale}/audio/{split}.tar.gz          members {split}/{file name}; or .tar, or a folder
    data/{locale}/audio/{split}/{file name}     with the same files

`id` is a sentence, the same in every language; it has one to three recordings a language. All are
kept whose sentence has a text in the target language; the raw transcription is the transcript, and
that of the target language the target.

Every recording that a model can be given is kept; what the manifests lack is told.

FLEURS: Conneau et al. 2022 (arXiv 2205.12446), licence CC BY 4.0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from slam_potsa.data import archives
from slam_potsa.data.jsonl import Problems, read_lines
from slam_potsa.data.languages import find_language, short_code
from slam_potsa.data.manifest import Utterance
from slam_potsa.data.sources import corpus
from slam_potsa.data.sources.corpus import Corpus, Recording
from slam_potsa.errors import InputError, each

TRAIN_LANGUAGES, ZERO_SHOT = "en,ja,es,ko,ru", "fr,de,kea,ceb,ast,ky"  # the POTSA paper's
TARGET = "zh"
REPOSITORY = "google/fleurs"  # on the Hugging Face hub, a data set
SPLITS = ("train", "dev", "test")
REMEDY = (
    f"expected the layout of the data set {REPOSITORY}, data/<locale>/<split>.tsv and "
    f"data/<locale>/audio/<split>.tar.gz (or the folder audio/<split>): give its folder, or fetch "
    f"the files with --hub"
)
# id, file name without folders, raw transcription, and four more columns
_LINE = re.compile(r"\s*(\d+)\s*\t\s*([^/\t]+?)\s*\t([^\t]*\S[^\t]*)(?:\t[^\t]*){4}")


class Part(NamedTuple):
    """One split of one language."""

    manifest: str  # that its recordings go to; "": only its texts are needed
    locale: str
    split: str


class Line(NamedTuple):
    """One recording, as a TSV lists it."""

    place: str  # file:line
    sentence: str  # FLEURS' `id`
    file: str
    text: str  # the raw transcription; "": the line is malformed


def build(
    output: str | Path,
    *,
    source: str | Path | None = None,
    hub: bool = False,
    revision: str | None = None,
    train_languages: str = TRAIN_LANGUAGES,
    zero_shot: str = ZERO_SHOT,
    target: str = TARGET,
    max_dropped: float = corpus.MOST,
    replace: bool = False,
    progress: bool = True,
) -> Corpus:
    """Write train, dev, test and zero_shot.jsonl, dropped.jsonl and summary.json into `output`.

    The options are those of `prepare fleurs --help`. Interrupted, the same call goes on with the
    recordings that were not yet listened to.

    Raises InputError for unknown languages, files that are missing, truncated or not FLEURS', or an
    `output` that was built with other choices.
    """
    output = Path(output)
    if bool(source) == hub:
        found = "both a folder and --hub" if hub else "neither a folder nor --hub"
        raise InputError(f"found {found}, expected one of them: the folder of FLEURS, or --hub")
    trained, unheard, goal = languages(train_languages, zero_shot, target)
    choices = {
        "dataset": "fleurs",
        "train_languages": sorted(map(short_code, trained)),
        "zero_shot": sorted(map(short_code, unheard)),
        "target_language": short_code(goal),
        "source": os.path.realpath(source) if source else f"{REPOSITORY}, {revision or 'newest'}",
    }
    corpus.refuse_another(output, choices, replace)
    spoken = [Part(split, locale, split) for locale in trained for split in SPLITS]
    spoken += [Part("zero_shot", locale, "test") for locale in unheard]
    written = [Part("", goal, split) for split in SPLITS]
    root = (fetch(spoken + written, revision) if hub else find_root(source)).resolve()
    lines = each(partial(read_tsv, root), spoken + written)
    spare = output.resolve() / "unpacked"
    audio = each(partial(find_files, root, spare), spoken)
    # Where recordings of a sentence differ in its text, the first stays.
    targets = {p.split: {line.sentence: line.text for line in lines[p][::-1]} for p in written}
    found = [
        _recording(part, line, audio[part], targets[part.split].get(line.sentence), goal)
        for part in spoken
        for line in lines[part]
    ]
    corpus.measure(found, output, progress=progress)
    return corpus.write(output, found, choices, max_dropped=max_dropped)


def languages(train: str, zero_shot: str, target: str) -> tuple[list[str], list[str], str]:
    """Locales: those to train on, those never to be heard, the one to translate into.

    Each is given as a list such as `"en, fr_fr"`; "none" is nothing. Raises InputError with every
    code that is not known, and for one that is in two of them.
    """
    lists = [[name.strip() for name in names.split(",")] for names in (train, zero_shot, target)]
    given = [[name for name in names if name not in ("", "none")] for names in lists]
    known = each(find_language, sum(given, []))
    trained, unheard, goals = (
        list(dict.fromkeys(known[code].locale for code in codes)) for codes in given
    )
    if not trained or len(goals) != 1:
        found = f"{len(trained)} languages to train on and {len(goals)} targets"
        raise InputError(f"train_languages, target: found {found}, expected some and one")
    if both := [locale for locale in unheard if locale in trained]:
        raise InputError(f"zero_shot: {', '.join(both)} is trained on too; expected others")
    if goals[0] in trained + unheard:
        raise InputError(f"target: {goals[0]} is spoken too; leave it out of the other languages")
    return trained, unheard, goals[0]


# --- files ---


def fetch(parts: Sequence[Part], revision: str | None = None) -> Path:
    """Fetch what the hub's own cache lacks of `parts`; an interrupted file is continued.

    Returns the folder of the locales. Raises InputError where the hub cannot be had.
    """
    from huggingface_hub import snapshot_download

    names = [f"data/{part.locale}/{part.split}.tsv" for part in parts]
    names += [f"data/{part.locale}/audio/{part.split}.tar.gz" for part in parts if part.manifest]
    options = {"repo_type": "dataset", "revision": revision, "allow_patterns": names}
    try:
        return Path(snapshot_download(REPOSITORY, **options)) / "data"
    except (OSError, ValueError) as error:  # huggingface_hub's own errors derive from these
        raise InputError(
            f"{REPOSITORY} cannot be fetched: {error}. Check the connection and HF_HUB_OFFLINE, or "
            f"get the data set by other means and give its folder"
        ) from None


def find_root(source: str | Path) -> Path:
    """The folder that holds the locales: `source` or its `data/`. Raises InputError."""
    for candidate in (Path(source, "data"), Path(source)):
        if any(candidate.glob("*_*/*.tsv")):
            return candidate
    raise InputError(f"{source}: found no <locale>/<split>.tsv in it or in its data/; {REMEDY}")


def read_tsv(root: Path, part: Part) -> list[Line]:
    """The lines of a TSV.

    Raises InputError where it is missing, or its recordings, or most lines are not FLEURS'.
    """
    path, lines = root / part.locale / f"{part.split}.tsv", []
    problems = Problems(path)
    if part.manifest and not any(place.exists() for place in _places(root, part)):
        raise InputError(f"{path.parent}/audio: no {part.split}.tar.gz, nor its folder")
    # Not csv: quotation marks are part of the texts.
    for number, text in read_lines(path, problems, "a TSV of FLEURS"):
        match = _LINE.fullmatch(text)
        sentence, file, text = match.groups() if match else ("", "", "")
        lines.append(Line(f"{path}:{number}", sentence, file, " ".join(text.split())))
    problems.check()
    malformed = sum(not line.text for line in lines)
    if 2 * malformed >= len(lines):
        count = f"{malformed} of {len(lines)} lines are malformed"
        raise InputError(f"{path}: not a TSV of FLEURS: {count}")
    return lines


def find_files(root: Path, spare: Path, part: Part) -> dict[str, str]:
    """File name -> reference of every recording of a part: in its archive, or else its folder.

    A compressed archive is unpacked once, into `spare` where nothing can be written beside it. It
    goes before the folder, which is incomplete where an extraction was interrupted.

    Raises InputError where an archive is truncated or damaged.
    """
    tar, packed, folder = _places(root, part)
    if packed.is_file() and not tar.is_file():
        if not os.access(tar.parent, os.W_OK):
            tar = spare / f"{part.locale}-{part.split}.tar"
        if not tar.is_file():
            archives.unpack(packed, tar)
    if tar.is_file():
        return {Path(member).name: f"{tar}:{member}" for member in archives.index_of(tar)}
    return {path.name: str(path) for path in folder.glob("*")}


def _places(root: Path, part: Part) -> list[Path]:
    """Where recordings of a part may be: an archive, a compressed one, a folder."""
    return [root / part.locale / "audio" / f"{part.split}{end}" for end in (".tar", ".tar.gz", "")]


def _recording(
    part: Part, line: Line, audio: Mapping[str, str], target: str | None, goal: str
) -> Recording:
    """Left out where the line is malformed, or lacks a recording or a target."""
    if not line.text:
        expected = "expected id, file name, raw transcription and four columns more"
        return Recording(part.manifest, line.place, None, "malformed row", expected)
    language = short_code(part.locale)
    utterance = Utterance(
        key=f"{language}-{part.split}-{line.sentence}-{Path(line.file).stem}",
        audio=audio.get(line.file, line.file),
        language=language,
        sentence_id=f"fleurs-{line.sentence}",
        transcript=line.text,
        target=target,
        target_language=short_code(goal),
    )
    recording = Recording(part.manifest, line.place, utterance)
    if line.file not in audio:
        recording.drop("no recording", "not in the folder or archive")
    elif target is None:
        recording.drop("no target", "the target language has no such sentence here")
    return recording
