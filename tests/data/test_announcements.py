"""Announcements: what each language says, and who is heard in which manifest."""

import os
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from slam_potsa.data.manifest import read_manifest
from slam_potsa.data.sources import announcements
from slam_potsa.data.sources.announcements import PAUSE, Clause, Voice, english, language
from tests.support import little_space, refused

SIZES = {"train": 12, "pairs": 6, "dev": 3, "test": 6}
READINGS = yaml.safe_load(Path(__file__).with_name("announcement_readings.yaml").read_text("utf-8"))


def sentence_of(reading):
    return tuple(Clause(*clause) for clause in reading["sentence"])


def test_each_language_says_what_its_readers_would():
    assert len(READINGS) == 20
    for reading in READINGS:
        assert english(sentence_of(reading)) == reading["target"]
        for code in ("en", "es", "fr", "it", "ru"):
            assert language(code).say(sentence_of(reading))[1] == reading[code]
    sentence = [Clause("new_messages", {"count": 95})]
    assert language("fr").say(sentence)[0] == [
        *("vm-youhave", "digits/80", "digits/15", "vm-inbox", "vm-messages")
    ]
    assert language("es").say(sentence)[0] == [
        *("vm-youhave", "digits/90", "digits/and", "digits/5", "vm-messages", "vm-inbox")
    ]


def test_no_count_needs_a_form_that_is_not_recorded():
    """After 1 and 2 to 4, and what ends in them, Russian has other forms of `минут`."""
    slots = announcements.tables()["slots"]
    for slot in ("hour", "minute", "second", "count"):
        assert all(n % 100 in range(5, 21) or n % 10 in (0, 5, 6, 7, 8, 9) for n in slots[slot])


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """All fragments of all voices: tones of different lengths, and any bytes, which are G.722."""
    root = tmp_path_factory.mktemp("prompts")
    noise = np.random.default_rng(0).bytes(8_000)
    for speaker in announcements.speakers().values():
        names = {name for name in language(speaker.language).words if name != ","}
        own = (names - speaker.instead.keys()) | {*speaker.instead.values()} - {","}
        for number, name in enumerate(sorted(own)):
            path = root / speaker.folder / f"{name}.{speaker.suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            seconds = 0.1 + number % 7 / 20
            tone = np.sin(np.arange(round(8_000 * seconds))) / 2
            if speaker.suffix == "g722":
                path.write_bytes(noise[: len(tone)])
            else:
                raw = {"format": "RAW", "subtype": "GSM610"} if speaker.suffix == "gsm" else {}
                soundfile.write(path, tone, 8_000, **raw)
    return root


def made(prompts, output, **options):
    return announcements.build(
        output, from_dir=prompts, progress=False, **{**SIZES, "seed": 1, **options}
    )


@pytest.fixture(scope="module")
def corpus(prompts, tmp_path_factory):
    return made(prompts, tmp_path_factory.mktemp("announcements"))


@pytest.fixture(scope="module")
def rows(corpus):
    return {name: read_manifest(corpus.path(name)) for name in corpus.manifests}


def test_every_manifest_has_sentences_languages_and_voices_of_its_own(rows):
    sentences = {name: {row.sentence_id for row in own} for name, own in rows.items()}
    assert {name: len(sentences[name]) for name in SIZES} == SIZES
    for one, other in combinations(SIZES, 2):
        assert not sentences[one] & sentences[other]
    assert sentences["test_new_voices"] <= sentences["test"]
    languages = {name: {row.language for row in own} for name, own in rows.items()}
    assert languages["train"] == {"en", "es", "ru"}
    for name in ("pairs", "dev", "test"):
        assert languages[name] == {"en", "es", "ru", "fr", "it"}
    voices = {name: {row.audio.split("/")[1] for row in own} for name, own in rows.items()}
    held_out = voices.pop("test_new_voices")
    assert held_out == {"es-july", "fr-armelle", "it-paola"}
    assert not held_out & set().union(*voices.values())
    folders = [one.folder for one in announcements.speakers().values()]
    assert len(set(folders)) == len(folders)  # so that their fragments are other files
    for row in rows["pairs"]:  # no text in unheard languages
        assert (row.target is None) == (row.transcript is None) == (row.language in ("fr", "it"))
    translated = {row.key: row for row in rows["pairs_translated"]}
    assert translated.keys() == {row.key for row in rows["pairs"] if row.target is None}
    assert all(row.target and row.transcript for row in translated.values())


def test_a_recording_is_its_fragments_and_the_pauses_between_them(prompts, corpus, rows):
    for row in [*rows["test"], *rows["test_new_voices"]]:
        info = soundfile.info(corpus.folder / row.audio)
        assert (info.samplerate, info.channels) == (16_000, 1)
        assert row.duration == pytest.approx(info.duration, abs=1e-4)
    text = (corpus.folder / "audio" / "CREDITS.txt").read_text()
    for words in (*announcements.speakers(), "Allison Smith", "Paola Dal Zot", "GPL version 2"):
        assert words in text
    voice, sentence = Voice("it-paola", prompts), sentence_of(READINGS[0])
    fragments, _ = voice.say(sentence)
    audio, again = voice.render(fragments, "0"), voice.render(fragments, "0")
    np.testing.assert_array_equal(audio, again)
    pauses = len(audio) - sum(len(voice.samples(name)) for name in fragments)
    low, high = (16_000 * seconds * (len(fragments) - 1) for seconds in PAUSE)
    assert low - 10 <= pauses <= high + 10
    np.testing.assert_array_equal(audio[:1_000], voice.samples(fragments[0])[:1_000])
    assert not np.array_equal(audio, voice.render(fragments, "1"))


def test_a_full_disk_is_an_error_of_the_file_system(prompts, tmp_path):
    with pytest.raises(OSError, match="File too large"), little_space(1000):
        made(prompts, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_silence_at_the_ends_is_taken_away():
    tone = np.sin(np.arange(8_000) / 3) / 2
    quiet = np.random.default_rng(0).normal(0, 1e-3, 40_000)
    quiet[16_000:24_000] += tone
    trimmed = announcements.trimmed(quiet.astype(np.float32))
    assert 8_000 <= len(trimmed) <= 8_000 + 3 * announcements.MARGIN
    assert len(announcements.trimmed(tone)) >= 7_900


def test_the_same_seed_gives_the_same_and_a_test_stays_when_train_grows(prompts, corpus, tmp_path):
    larger = made(prompts, tmp_path / "larger", train=14)
    for name in ("test", "test_new_voices", "dev", "pairs"):
        assert larger.path(name).read_bytes() == corpus.path(name).read_bytes()
    row = read_manifest(corpus.path("test"))[0]
    assert (larger.folder / row.audio).read_bytes() == (corpus.folder / row.audio).read_bytes()
    refused("--replace", made, prompts, tmp_path / "larger", seed=2)
    other = made(prompts, tmp_path / "larger", seed=2, replace=True)
    assert other.path("test").read_bytes() != corpus.path("test").read_bytes()


def test_what_a_new_voice_lacks_is_left_out_and_what_another_lacks_is_refused(prompts, tmp_path):
    few = tmp_path / "few"
    shutil.copytree(prompts, few, copy_function=os.symlink)

    def reduce_to_one_fragment(folder, prompt):
        shutil.rmtree(few / folder)
        (few / folder / "digits").mkdir(parents=True)
        os.symlink(prompts / prompt, few / folder / "digits" / Path(prompt).name)

    reduce_to_one_fragment(announcements.speakers()["es-july"].folder, "es/digits/1.gsm")
    left_out = made(few, tmp_path / "out").left_out["test_new_voices"]
    assert left_out["es-july lacks a fragment"] == SIZES["test"]
    reduce_to_one_fragment("ru_RU_f_IvrvoiceRU", "ru_RU_f_IvrvoiceRU/digits/1.g722")
    refused("ru-ivrvoice: no recording of", made, few, tmp_path / "none")
    shutil.rmtree(few / "ru_RU_f_IvrvoiceRU")
    refused("(?s)no folder ru_RU_f_IvrvoiceRU .* --from", made, few, tmp_path / "none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heard": ["en", "de"]}, "languages en, de, fr, it: expected each of en, es, fr, it, ru"),
        ({"heard": ["en", "fr"]}, "once at most, either heard or unheard"),
        ({"train": 0}, "a sentence or more of train"),
        ({"test": -1}, "'test': -1"),
        ({"heard": []}, "expected a heard language"),
    ],
)
def test_options_that_do_not_fit_are_refused(prompts, tmp_path, options, message):
    refused(message, made, prompts, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
