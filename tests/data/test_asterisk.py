import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from slam_potsa.data.manifest import check_manifest, read_manifest
from slam_potsa.data.sources import asterisk, debian
from slam_potsa.errors import InputError

av = pytest.importorskip("av")

# name -> (English text, seconds)
PROMPTS = {
    "activated": ("Activated.", 0.8),
    "conf-locked": ("The conference is now locked", 0.9),
    "confbridge-locked": ("...the conference is now LOCKED.", 1.1),
    "digits/1F": ("one", 0.5),
    "spy-iax2": ('IAX (note: does not say "2")', 0.6),
    "vm-changeto": ("Change to  which folder?", 0.7),
    **{f"digits/{number}": (f"number {number}", 0.4) for number in range(2, 40)},
    # What is dropped:
    "beep": ("[this is a simple beep tone]", 0.5),
    "confbridge-join": ("<beep ascending>", 0.5),
    "is": ("is", 0.0),
    "long": ("too long", 8.2),
    "short": ("too short", 0.2),
    "wordy": (" ".join(["word"] * 13), 1.0),
    "letters/a": ("a", 0.5),
    "phonetic/a_p": ("alpha", 0.5),
    "silence/1": ("(1 second of silence)", 1.0),
    "only-english": ("only in English", 0.5),
}
KEPT = [name.lower() for name in list(PROMPTS)[:44]]
OTHER_TEXTS = {
    "es": {"digits/1f": "una", "vm-changeto": "[tono] Cambiar a que carpeta ?"},
    "fr": {"activated": "activé"},
    "it": {"activated": "Attivato?", "conf-locked": "La conferenza ? piena", "spy-iax2": "sar?esa"},
    "ru": {"activated": "Да? Активировано", "conf-locked": "\\xff"},
}


def encode_g722(seconds, seed):
    """A tone as raw G.722, by PyAV's own encoder."""
    samples = round(seconds * 16_000)
    time = np.arange(samples) / 16_000
    tone = (9_000 * np.sin(2 * np.pi * (300 + 20 * seed) * time)).astype(np.int16)
    stream = io.BytesIO()
    if samples == 0:
        return b""
    with av.open(stream, "w", format="g722") as container:
        track = container.add_stream("g722", rate=16_000, layout="mono")
        for start in range(0, samples, 320):
            chunk = tone[None, start : start + 320]
            frame = av.AudioFrame.from_ndarray(chunk, format="s16", layout="mono")
            frame.rate = 16_000
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return stream.getvalue()


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    """The makers' layout in miniature: one folder a language, with every known oddity."""
    root = tmp_path_factory.mktemp("release")
    recordings = {seconds: encode_g722(seconds, 1) for _, seconds in PROMPTS.values()}
    for language in asterisk.LANGUAGES:
        for name, (_, seconds) in PROMPTS.items():
            if name == "only-english" and language != "en":
                continue
            own_case = name if language == "es" else name.lower()
            path = root / language / f"{own_case}.g722"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(recordings[seconds])
        write_transcripts(root / language / f"core-sounds-{language}.txt", language)
    return root


def write_transcripts(path, language):
    texts = {name.lower(): text for name, (text, _) in PROMPTS.items()}
    if language != "en":
        texts = OTHER_TEXTS[language]
    lines = [f"; Core Asterisk Sounds: {language}", ""]
    lines += [f"{name}: {text}" for name, text in texts.items()]
    content = "\n".join(lines).encode().replace(b"\\xff", b"\xff")
    path.write_bytes(b"\xef\xbb\xbf" * (language == "it") + content)


@pytest.fixture(scope="session")
def corpus(release, tmp_path_factory):
    output = tmp_path_factory.mktemp("corpus")
    return asterisk.build(output, from_dir=release, progress=False)


def rows(corpus):
    paths = (corpus.train, corpus.dev, corpus.test_unheard, corpus.zero_shot)
    return {path.stem: read_manifest(path, needs=("target", "duration")) for path in paths}


def by_key(corpus):
    return {row.key: row for part in rows(corpus).values() for row in part}


def test_the_right_prompts_are_kept(corpus):
    parts = rows(corpus)
    english = [row.key for name in ("train", "dev", "test") for row in parts[name]]
    assert sorted(key for key in english if key.startswith("en/")) == sorted(
        f"en/{name}" for name in KEPT
    )


def test_recordings_are_flac_of_the_right_length(corpus):
    for path in (corpus.train, corpus.test_unheard):
        assert not any("duration" in warning for warning in check_manifest(path).warnings)
    row = by_key(corpus)["es/digits/1f"]
    info = soundfile.info(corpus.train.parent / row.audio)
    assert (info.samplerate, info.channels, info.format) == (16_000, 1, "FLAC")
    assert info.duration == pytest.approx(row.duration) == pytest.approx(0.5, abs=0.03)


def test_decoding_is_faithful():
    samples = asterisk.decode_g722(encode_g722(1.0, 5)).astype(float)
    spectrum = np.abs(np.fft.rfft(samples[:16_000]))
    assert samples.shape == pytest.approx((16_000,), abs=400)
    assert abs(int(spectrum.argmax()) - 400) <= 1


def test_one_text_is_one_sentence_with_one_target(corpus):
    found = by_key(corpus)
    twins = [
        row for key, row in found.items() if key.endswith(("/conf-locked", "/confbridge-locked"))
    ]
    assert {row.sentence_id for row in twins} == {"the-conference-is-now-locked"}
    assert {row.target for row in twins} == {"The conference is now locked"}
    assert found["en/spy-iax2"].target == "IAX"
    assert found["en/vm-changeto"].target == "Change to which folder?"


def test_no_test_sentence_is_heard_in_training(corpus):
    parts = rows(corpus)
    sentences = {name: {row.sentence_id for row in part} for name, part in parts.items()}
    assert all(sentences[name] for name in ("train", "dev", "test"))
    assert not sentences["train"] & sentences["test"]
    assert not sentences["dev"] & (sentences["train"] | sentences["test"])
    assert sentences["zero_shot"] == sentences["train"]


def test_languages_of_the_splits(corpus):
    languages = {name: {row.language for row in part} for name, part in rows(corpus).items()}
    assert languages["train"] == languages["dev"] == {"en", "es", "ru"}
    assert languages["test"] == {"en", "es", "fr", "it", "ru"}
    assert languages["zero_shot"] == {"fr", "it"}


def test_transcripts_are_kept_only_where_they_can_be_trusted(corpus):
    found = {key: row.transcript for key, row in by_key(corpus).items()}
    assert found["es/digits/1f"] == "una"  # the file is digits/1F.g722
    assert found.get("es/vm-changeto", "Cambiar a que carpeta ?") == "Cambiar a que carpeta ?"
    assert found["en/spy-iax2"] == "IAX"
    for key, expected in {
        "fr/activated": "activé",
        "it/activated": "Attivato?",  # below a BOM, and a real question mark
        "it/conf-locked": None,  # "?" stands for a lost accent
        "it/spy-iax2": None,
        "ru/activated": "Да? Активировано",
        "ru/conf-locked": None,  # not UTF-8
        "es/activated": None,  # not in the list
    }.items():
        assert found.get(key, expected) == expected


def test_same_input_gives_the_same_bytes(release, corpus, tmp_path):
    again = asterisk.build(tmp_path, from_dir=release, progress=False)
    first, second = corpus.train.parent, again.train.parent
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)
    assert json.loads(again.train.read_text().splitlines()[0])["audio"].startswith("audio/en/")


def test_credits_and_summary(corpus):
    text = (corpus.train.parent / "audio" / "CREDITS.txt").read_text()
    for words in ("Allison Smith", "June Wallack", "Carlo Flora", "Maxim Topal", "CC BY-SA 3.0"):
        assert words in text
    assert corpus.utterances["train"].keys() == {"en", "es", "ru"}
    assert "zero_shot" in corpus.summary and "per language" in corpus.summary
    total = sum(sum(part.values()) for part in corpus.utterances.values())
    assert total == sum(len(part) for part in rows(corpus).values())


def test_some_of_the_languages(release, tmp_path):
    corpus = asterisk.build(tmp_path, from_dir=release, languages=("fr", "en"), progress=False)
    assert corpus.utterances["train"].keys() == {"en"}
    assert corpus.utterances["zero_shot"].keys() == {"fr"}


@pytest.mark.parametrize("languages", [("es", "ru"), ("en", "de")])
def test_languages_without_english_or_unknown_are_refused(tmp_path, languages):
    with pytest.raises(InputError, match="expected some of en, es, fr, it, ru, en among them"):
        asterisk.build(tmp_path, languages=languages)


def test_an_incomplete_folder_names_the_alternative(tmp_path):
    (tmp_path / "en").mkdir()
    with pytest.raises(
        InputError, match="found no folder with .g722 files for language 'en'"
    ) as caught:
        asterisk.build(tmp_path / "out", from_dir=tmp_path, progress=False)
    assert "release tarballs" in str(caught.value) and "--from" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Hello   world. ", "Hello world."),
        ("[tones]", ""),
        ("(beep) Hello (beep)", "Hello"),
        ("Sono [quello] qui", "Sono qui"),
        ("...to exit the menu.", "to exit the menu."),
        ("To exit the menu...", "To exit the menu"),
        ("P.M.", "P.M."),
        ("Login incorrect.  Mailbox?", "Login incorrect. Mailbox?"),
        ("Сменить? Да.", "Сменить? Да."),
        ("pu? essere", ""),
        ("cos?che", ""),
        ("broken [ bracket", ""),
        ("caf\ufffd", ""),
        ("...", ""),
    ],
)
def test_clean_transcript(text, expected):
    assert asterisk.clean_transcript(text) == expected


def test_a_name_with_two_texts_has_none():
    content = b"; list\nA: one\nb: two\nB: deux\nc: same\nC: same\nno separator\n"
    assert asterisk.read_transcripts(content) == {"a": "one", "c": "same"}


def test_split_is_a_function_of_the_sentence():
    splits = [asterisk.split_of(f"sentence-{index}") for index in range(4000)]
    shares = {name: splits.count(name) / len(splits) for name in asterisk.SHARES}
    assert shares == pytest.approx(asterisk.SHARES, abs=0.02)
    assert asterisk.split_of("the-conference-is-now-locked") == "train"


def make_deb(path, files):
    """A Debian package as dpkg-deb writes it: an ar archive with data.tar.xz."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": data.getvalue()}
    content = b"!<arch>\n"
    for name, member in members.items():
        content += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(member):<10}`\n".encode()
        content += member + b"\n" * (len(member) % 2)
    path.write_bytes(content)


@pytest.fixture
def packages(release, tmp_path, monkeypatch):
    """The miniature release as Debian packages, with their own pins."""
    import hashlib

    folder, pins = tmp_path / "debs", {}
    folder.mkdir()
    for language in asterisk.LANGUAGES:
        name = f"asterisk-core-sounds-{language}"
        root = release / language
        voice = f"usr/share/asterisk/sounds/{language}_voice"
        audio = {
            f"{voice}/{path.relative_to(root)}": path.read_bytes() for path in root.rglob("*.g722")
        }
        text = gzip.compress((root / f"core-sounds-{language}.txt").read_bytes())
        doc = {f"usr/share/doc/{name}/core-sounds-{language}.txt.gz": text}
        for package, files in ((name, doc), (f"{name}-g722", audio)):
            path = folder / f"{package}_{asterisk.VERSION}_all.deb"
            make_deb(path, files)
            pins[package] = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(asterisk, "SHA256", pins)
    return folder


def test_packages_give_what_folders_give(packages, corpus, tmp_path):
    again = asterisk.build(tmp_path / "out", from_dir=packages, progress=False)
    for first, second in zip(
        sorted(corpus.train.parent.glob("*.jsonl")),
        sorted(again.train.parent.glob("*.jsonl")),
        strict=True,
    ):
        assert first.read_bytes() == second.read_bytes()


def test_a_cache_that_is_complete_needs_no_network(packages, tmp_path, monkeypatch):
    monkeypatch.setattr(debian, "_run", lambda *_: pytest.fail("nothing is to be run"))
    asterisk.build(tmp_path / "out", cache_dir=packages, progress=False)


def test_a_package_with_another_hash_is_refused(packages, tmp_path):
    damaged = next(packages.glob("*-it-g722_*"))
    damaged.write_bytes(damaged.read_bytes() + b" ")
    with pytest.raises(InputError, match="it-g722_1.6.1-1_all.deb: SHA-256 is .*, expected"):
        asterisk.build(tmp_path / "out", from_dir=packages, progress=False)
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named(packages, tmp_path):
    next(packages.glob("*-ru-g722_*")).unlink()
    with pytest.raises(InputError, match="no such package: .*ru-g722_1.6.1-1_all.deb. Instead"):
        asterisk.build(tmp_path / "out", from_dir=packages, progress=False)


def test_without_apt_get_the_alternative_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="apt-get is not on this machine. Instead, put .* --from"):
        asterisk.build(tmp_path / "out", progress=False)


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


@pytest.fixture
def apt_get(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "apt-get").write_text(APT_GET)
    (folder / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    return tmp_path / "notes"


def test_packages_are_fetched_with_folders_of_their_own(packages, apt_get, tmp_path, monkeypatch):
    monkeypatch.setenv("SHELF", str(packages))
    cache = tmp_path / "cache"
    cache.mkdir()
    there = next(packages.glob("*-en_*"))
    (cache / there.name).write_bytes(there.read_bytes())
    asterisk.build(tmp_path / "out", cache_dir=cache, progress=False)
    calls = apt_get.read_text().splitlines()
    assert calls[0].endswith(" update") and len(calls) == 1 + 9  # one was there already
    assert not any("asterisk-core-sounds-en=" in call for call in calls)
    for option in ("Dir::State=", "Dir::State::lists=", "Dir::Cache="):
        assert all(f"-o{option}{cache}" in call for call in calls)
    assert sorted(path.name for path in cache.iterdir()) == sorted(
        path.name for path in packages.iterdir()
    )


def test_a_version_that_cannot_be_had_names_the_alternative(apt_get, tmp_path, monkeypatch):
    monkeypatch.setenv("SHELF", str(tmp_path / "empty"))
    with pytest.raises(InputError) as caught:
        asterisk.build(tmp_path / "out", cache_dir=tmp_path / "cache", progress=False)
    message = str(caught.value)
    assert "asterisk-core-sounds-en=1.6.1-1 cannot be downloaded" in message
    assert "was not found" in message and "--from" in message


def test_a_file_that_is_no_package(tmp_path):
    (tmp_path / "a.deb").write_bytes(b"no archive")
    with pytest.raises(InputError, match="a.deb: not a Debian package"):
        debian.read_deb(tmp_path / "a.deb")


@pytest.mark.slow
@pytest.mark.skipif("ASTERISK_DEBS" not in os.environ, reason="ASTERISK_DEBS=folder of the .debs")
def test_the_real_packages(tmp_path):
    corpus = asterisk.build(tmp_path, from_dir=Path(os.environ["ASTERISK_DEBS"]), progress=False)
    assert corpus.sentences == {"train": 268, "dev": 12, "test": 30, "zero_shot": 268}
    assert corpus.utterances == {
        "train": {"en": 294, "es": 294, "ru": 294},
        "dev": {"en": 13, "es": 13, "ru": 13},
        "test": {"en": 32, "es": 32, "fr": 32, "it": 32, "ru": 32},
        "zero_shot": {"fr": 294, "it": 294},
    }
    for path in (corpus.train, corpus.dev, corpus.test_unheard, corpus.zero_shot):
        assert check_manifest(path, needs=("target", "target_language")).warnings == ()
    assert sum(row.transcript is None for row in read_manifest(corpus.zero_shot)) < 30
