"""The telephone prompts: which are kept, what is said of them, where the packages come from."""

import gzip
import os
import shutil
import subprocess
from functools import partial

import numpy as np
import pytest
import soundfile

from slam_potsa.data.manifest import check_manifest, read_manifest
from slam_potsa.data.sources import announcements, asterisk
from slam_potsa.provenance import content_hash
from tests.support import refused

# name -> (English text, seconds)
PROMPTS = {
    "activated": ("Activated.", 0.8),
    "conf-locked": ("The conference is now locked", 0.9),
    "confbridge-locked": ("...the conference is now LOCKED.", 1.1),
    "digits/1F": ("one", 0.5),
    "spy-iax2": ('IAX (note: does not say "2")', 0.6),
    **{f"digits/{number}": (f"number {number}", 0.4) for number in range(2, 40)},
}
RECORDED = PROMPTS | {  # and what is dropped
    "beep": ("[this is a simple beep tone]", 0.5),
    "is": ("is", 0.0),
    "long": ("too long", 8.2),
    "short": ("too short", 0.2),
    "wordy": (" ".join(["word"] * 13), 1.0),
    "letters/a": ("a", 0.5),
    "only-english": ("only in English", 0.5),
}
VOICES = {name: v for name, v in announcements.speakers().items() if not v.held_out}


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    """What the packages unpack to, in miniature, with every known oddity."""
    root = tmp_path_factory.mktemp("release")
    noise = np.random.default_rng(0).bytes(80_000)  # any bytes are G.722, 8,000 of them a second
    for voice in VOICES.values():
        for name, (_, seconds) in RECORDED.items():
            if name != "only-english" or voice.language == "en":
                own = name if voice.language == "es" else name.lower()
                path = root / voice.folder / f"{own}.g722"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(noise[: round(8_000 * seconds)])
    lines = [
        "; Core Sounds: en",
        "",
        "no separator",
        *(f"{n}: {t}" for n, (t, _) in RECORDED.items()),
    ]
    (root / "core-sounds-en.txt").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="session")
def corpus(release, tmp_path_factory):
    return asterisk.build(tmp_path_factory.mktemp("c"), from_dir=release, progress=False)


@pytest.fixture(scope="session")
def rows(corpus):
    return {row.key: row for row in read_manifest(corpus.path("test"))}


def test_the_right_prompts_are_kept_in_every_language(corpus, rows):
    kept = {name.lower() for name in PROMPTS}
    assert corpus.manifests.keys() == {"test"}
    assert rows.keys() == {f"{voice}/{name}" for voice in VOICES for name in kept}
    warnings = check_manifest(corpus.path("test")).warnings
    assert not any("duration" in warning for warning in warnings)
    info = soundfile.info(corpus.folder / "audio/en-allison/activated.flac")
    assert (info.samplerate, info.channels, info.format) == (16_000, 1, "FLAC")
    text = (corpus.folder / "audio" / "CREDITS.txt").read_text()
    for words in ("Allison Smith", "June Wallack", "Carlo Flora", "Maxim Topal", "CC BY-SA 3.0"):
        assert words in text


def test_a_sentence_has_one_english_text_without_stage_directions(rows):
    twins = [rows[f"{voice}/{n}"] for voice in VOICES for n in ("conf-locked", "confbridge-locked")]
    assert {row.sentence_id for row in twins} == {"the-conference-is-now-locked"}
    assert {row.target for row in twins} == {"The conference is now locked"}
    assert rows["en-allison/spy-iax2"].target == "IAX"
    one = rows["es-allison/digits/1f"]  # the file is digits/1F.g722
    assert (one.target, one.transcript, one.language) == ("one", None, "es")
    assert rows["en-allison/confbridge-locked"].transcript == "the conference is now LOCKED."


CONTROL = "Package: {}\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"


@pytest.fixture(scope="session")
def packages(release, tmp_path_factory):
    """The miniature release as Debian packages."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb")
    folder = tmp_path_factory.mktemp("debs")
    texts = "asterisk-core-sounds-en_1.6.1-1_all.deb"
    for name in (texts, *announcements.packages(VOICES)):
        root = tmp_path_factory.mktemp("package")
        (voice,) = [v for v in VOICES.values() if v.package == name] or [None]
        if voice:
            shutil.copytree(release / voice.folder, root / "usr/share/sounds" / voice.folder)
        else:
            path = root / "usr/share/doc/core-sounds-en.txt.gz"
            path.parent.mkdir(parents=True)
            path.write_bytes(gzip.compress((release / "core-sounds-en.txt").read_bytes()))
        (root / "DEBIAN").mkdir()
        (root / "DEBIAN/control").write_text(CONTROL.format(name.split("_")[0]))
        subprocess.run(["dpkg-deb", "-b", root, folder / name], check=True, capture_output=True)
    return folder


@pytest.fixture
def pinned(packages, monkeypatch):
    pins = {path.name: content_hash(path) for path in packages.iterdir()}
    monkeypatch.setattr(announcements, "packages", lambda names: pins)
    monkeypatch.setitem(announcements.tables(), "texts", {})
    return packages


def test_what_is_wrong_or_missing_is_named_with_the_alternative(pinned, tmp_path):
    build = partial(asterisk.build, tmp_path / "out", from_dir=tmp_path / "given", progress=False)
    (tmp_path / "given" / "en").mkdir(parents=True)
    refused(r"(?s)no folder en_US_f_Allison with \.g722 files.*--from", build)
    shutil.copytree(pinned, tmp_path / "given", dirs_exist_ok=True)
    damaged = next((tmp_path / "given").glob("*-it-g722_*"))
    damaged.write_bytes(damaged.read_bytes() + b" ")
    refused("it-g722_1.6.1-1_all.deb: SHA-256 is .*, expected", build)
    damaged.unlink()
    refused("it-g722_1.6.1-1_all.deb: no such package\nInstead", build)
    assert not (tmp_path / "out").exists()


APT_GET = """#!/bin/sh
# Stands in for apt-get: has the packages of $SHELF, and notes how it was called.
echo "$@" >> "$NOTES"
for word in "$@"; do last="$word"; done
case "$*" in
  *" update") exit 100;;
  *) file="$(echo "$last" | tr = _)_all.deb"
     cp "$SHELF/$file" . 2>/dev/null && exit 0
     echo "E: Version for $last was not found" >&2; exit 100;;
esac
"""


def test_packages_are_fetched_once_and_give_what_folders_give(
    pinned, corpus, tmp_path, monkeypatch
):
    out, notes, shim = tmp_path / "out", tmp_path / "notes", tmp_path / "bin" / "apt-get"
    cache, build = out / "packages", partial(asterisk.build, out, progress=False)
    with monkeypatch.context() as bare:
        bare.setenv("PATH", str(tmp_path))
        refused("apt-get is not on this machine\nInstead, put .* --from", build)
    shim.parent.mkdir()
    shim.write_text(APT_GET)
    shim.chmod(0o755)
    for name, value in (("PATH", f"{shim.parent}:{os.environ['PATH']}"), ("NOTES", notes)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("SHELF", str(tmp_path))
    refused("(?s)cannot be downloaded:\nE: Version .* not found\nInstead", build)
    notes.unlink()
    monkeypatch.setenv("SHELF", str(pinned))
    shutil.copy(next(pinned.glob("*-en_*")), cache)
    for _ in range(2):
        build()
        calls = notes.read_text().splitlines()
        assert calls[0].endswith(" update") and len(calls) == 1 + 5  # one was there already
    assert f"-oDir::State={cache.resolve()}" in calls[0] and not (cache / "apt").exists()
    made = [path.relative_to(out) for end in ("jsonl", "flac") for path in out.rglob(f"*.{end}")]
    assert len(made) > 150
    assert all((out / path).read_bytes() == (corpus.folder / path).read_bytes() for path in made)
