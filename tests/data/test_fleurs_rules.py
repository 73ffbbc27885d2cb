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


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return build_tree(tmp_path_factory.mktemp("fleurs"), world())


@pytest.fixture(scope="module")
def corpus(tree):
    return fleurs.build(tree / "manifests", source=tree, **CHOICE)


def dropped(corpus):
    return [json.loads(line) for line in corpus.dropped.read_text().splitlines()]


def broken_world():
    """A tree with one of each kind of trouble in English, and what is expected to be said of it."""
    wav = mini_fleurs._content(tone(1.3))
    silent = np.zeros(20_000, dtype=np.float32)
    bad = {
        "no target": mini_fleurs.Row(99, "no such sentence", tone(1.2), file="a.wav"),
        "too short": mini_fleurs.Row(1, "one", tone(0.84), file="b.wav"),
        "too long": mini_fleurs.Row(1, "one", tone(30.5), file="c.wav"),
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
    expected |= {"h.wav": "unreadable", "i.wav": "unreadable"}
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
        "unreadable": 3,
        "malformed row": 2,
        "listed twice": 1,
    }
    details = {entry["reason"]: entry["detail"] for entry in entries}
    assert details["too short"] == "0.84 s, expected 1 s or more"
    assert "found 3 columns, expected 7" in [e["detail"] for e in entries if e["id"] is None][0]
    assert any("silent" in entry["detail"] for entry in entries)
    assert "3 unreadable, 2 malformed row" in built.summary and str(built.dropped) in built.summary
    kept = sum(sum(part.values()) for part in built.recordings.values())
    assert kept + len(entries) == lines_of(tree, ("en_us", "es_419"), ("fr_fr",))


def test_limits_can_be_changed(tmp_path):
    locales, breakage, _ = broken_world()
    tree = build_tree(tmp_path, locales, breakage=breakage)
    loose = fleurs.build(
        tmp_path / "out", source=tree, min_seconds=0.5, rate_deviations=0, **CHOICE
    )
    assert not {"too short", "spoken too fast", "spoken too slowly"} & set(loose.dropped_by_reason)
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
