import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from slam_potsa.data.sources import fleurs, fleurs_rules
from slam_potsa.data.sources.fleurs_files import Part, Row
from tests.support import mini_fleurs
from tests.support.mini_fleurs import (
    CHOICE,
    Breakage,
    build_tree,
    lines_of,
    rows,
    tone,
    world,
)

pytest.importorskip("indexed_gzip")


def dropped(corpus):
    return [json.loads(line) for line in corpus.dropped.read_text().splitlines()]


def broken_world():
    """A tree with one of each kind of trouble in English, and what is expected to be said of it."""
    wav = mini_fleurs._content(tone(1.3))
    silent = np.zeros(20_000, dtype=np.float32)
    bad = {
        "no target": mini_fleurs.Row(99, "no such sentence", tone(1.2), file="a.wav"),
        "shorter than 1 s": mini_fleurs.Row(1, "one", tone(0.84), file="b.wav"),
        "longer than 30 s": mini_fleurs.Row(1, "one", tone(30.5), file="c.wav"),
        "unreadable": mini_fleurs.Row(1, "one", wav[:9000], file="d.wav"),
        "no recording": mini_fleurs.Row(1, "one", None, file="e.wav"),
        "spoken too fast": mini_fleurs.Row(1, "very " * 50, tone(1.2), file="f.wav"),
        "spoken too slowly": mini_fleurs.Row(1, "o", tone(5.0), file="g.wav"),
    }
    more = [
        mini_fleurs.Row(2, "two", silent, file="h.wav"),
        mini_fleurs.Row(2, "two", b"no recording", file="i.wav"),
    ]
    lines = [
        "7\tonly.wav\tthree columns",
        "x\tj.wav\ta\ta\ta\t1\tMALE",
        "2\tb.wav\ta\ta\ta\t1\tMALE",
    ]
    expected = {entry.file: reason for reason, entry in bad.items()}
    expected |= {"h.wav": "silent", "i.wav": "unreadable"}
    english = [*rows("en"), *bad.values(), *more]
    return world(en_us=english), Breakage(lines={"en_us/train": lines}), expected


def test_what_is_dropped_is_listed_with_its_reason(corpus, tmp_path):
    locales, breakage, expected = broken_world()
    tree = build_tree(tmp_path, locales, breakage=breakage)
    built = fleurs.build(tmp_path / "out", source=tree, **CHOICE)
    assert built.recordings == corpus.recordings  # nothing good is lost
    entries = dropped(built)
    assert {entry["locale"] for entry in entries} == {"en_us"}
    by_file = {entry["file"]: entry["reason"] for entry in entries if entry["id"] in (1, 2, 99)}
    assert by_file == expected | {"b.wav": by_file["b.wav"]}
    reasons = Counter(entry["reason"] for entry in entries)
    assert reasons == {
        **dict.fromkeys(expected.values(), 1),
        "unreadable": 2,
        "silent": 1,
        "malformed row": 2,
        "listed twice": 1,
    }
    details = {entry["reason"]: entry["detail"] for entry in entries}
    assert details["shorter than 1 s"] == "0.84 s, expected 1 s or more"
    assert "found 3 columns, expected 7" in [e["detail"] for e in entries if e["id"] is None][0]
    assert any("silent" in entry["detail"] for entry in entries)
    assert "2 unreadable" in built.summary and str(built.dropped) in built.summary
    kept = sum(sum(part.values()) for part in built.recordings.values())
    assert kept + len(entries) == lines_of(tree, ("en_us", "es_419"), ("fr_fr",))


def test_dev_and_test_keep_all_that_can_be_decoded(corpus, tmp_path):
    """The limits are about training; what a test set lacks, its scores must say."""
    odd = {
        "short": tone(0.84),
        "fast": tone(1.2),
        "long": tone(30.5),
        "broken": mini_fleurs._content(tone(1.3))[:9000],
        "silent": np.zeros(20_000, dtype=np.float32),
    }
    locales = world()
    for locale, split, sentence in (
        ("en_us", "dev", 11),
        ("en_us", "test", 14),
        ("fr_fr", "test", 14),
    ):
        locales[locale] += [
            mini_fleurs.Row(
                sentence, "very " * 50 if kind == "fast" else "one", audio, split, f"{kind}.wav"
            )
            for kind, audio in odd.items()
        ]
    lines = {"en_us/test": ["14\tshort.wav\ta\ta\ta\t1\tMALE"]}  # listed twice: no recording
    tree = build_tree(tmp_path, locales, breakage=Breakage(lines=lines))
    built = fleurs.build(tmp_path / "out", source=tree, max_seconds=29, **CHOICE)
    assert built.recordings["train"] == corpus.recordings["train"] and not built.left_out["train"]
    reasons = {"longer than 30 s": 1, "unreadable": 1, "silent": 1}
    for name, language in (("dev", "en"), ("test", "en"), ("zero_shot", "fr")):
        assert built.recordings[name][language] == corpus.recordings[name][language] + 2
        assert built.left_out[name] == reasons
    line = "test: 3 of 17 recordings left out (1 longer than 30 s, 1 unreadable, 1 silent): "
    line += "scores on this split are on 14"
    assert line in built.summary.splitlines()
    told = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert line in told["left_out_in_words"] and len(told["left_out_in_words"]) == 3
    assert told["left_out"]["test"] == reasons


def test_limits_can_be_changed(tmp_path):
    locales, breakage, _ = broken_world()
    tree = build_tree(tmp_path, locales, breakage=breakage)
    loose = fleurs.build(
        tmp_path / "out", source=tree, min_seconds=0.5, rate_deviations=0, **CHOICE
    )
    rules = {"shorter than 1 s", "spoken too fast", "spoken too slowly"}
    assert not rules & set(loose.dropped_by_reason)
    assert loose.recordings["train"]["en"] == 23


def test_rate_bounds():
    """Closed form: the MAD of -1, 0, 1 in equal parts is 1; the outlier moves nothing."""
    rates = [math.log(14) + step for step in (-0.5, 0, 0.5)] * 10
    low, high = fleurs_rules.rate_bounds(rates, 2.0)
    reach = math.exp(2 * 1.4826 * 0.5)
    assert (low, high) == (pytest.approx(14 / reach), pytest.approx(14 * reach))
    assert fleurs_rules.rate_bounds([*rates, 50.0], 2.0) == (
        pytest.approx(low),
        pytest.approx(high),
    )
    alike = fleurs_rules.rate_bounds([math.log(14)] * 30, 5.0)
    assert alike == (pytest.approx(14 * math.exp(-0.5)), pytest.approx(14 * math.exp(0.5)))
    assert fleurs_rules.rate_bounds(rates, 0) == (0.0, math.inf)
    assert fleurs_rules.rate_bounds(rates[:19], 5.0) == (0.0, math.inf)


def test_the_first_wording_of_a_sentence_is_its_target():
    part = Part("x", "train", Path(), [Row(1, "a", "A"), Row(2, "b", "B"), Row(1, "c", "C")])
    assert fleurs_rules.targets_of(part) == {1: "A", 2: "B"}
