"""Marks of differing words: nothing is lost, nothing equal is marked."""

from __future__ import annotations

import random
import re
from html import unescape

import pytest

from slam_potsa.evaluation.report.words import GAP, marked


def plain(html: str) -> str:
    """Without gaps and tags."""
    gap = rf'<mark class="gap"[^>]*>{re.escape(GAP)}</mark>'
    return unescape(re.sub(r"</?mark[^>]*>", "", re.sub(rf" ?{gap}$|{gap} ", "", html)))


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("Press the star key.", "Press the pound key.", "Press the <mark>star</mark> key."),
        ("a b c", "A, b? C!", "a b c"),  # case and punctuation are not compared
        ("x y b", "a b", "<mark>x y</mark> b"),  # words beside each other share a mark
        ("我们走", "我们跑", "我们<mark>走</mark>"),  # sign by sign
        ("<b> & c", "b c", "&lt;b&gt; &amp; c"),
        ("anything", None, "anything"),
        ("", "gone", f'<mark class="gap" title="left out: gone">{GAP}</mark>'),
        ("don’t go", "don’t stay", "don’t <mark>go</mark>"),
    ],
)
def test_examples(text, reference, expected):
    assert marked(text, reference).strip() == expected


def test_what_is_left_out_is_named_where_it_is_missing():
    found = marked("press key", 'press the "pound" key')
    gap = f'<mark class="gap" title="left out: the pound">{GAP}</mark>'
    assert found == f"press {gap} key"


def test_the_text_itself_is_kept():
    rng = random.Random(0)
    words = ["a", "b,", "c.", "日本", "語", "<d>", "e's", "  "]
    for _ in range(200):
        text, reference = (" ".join(rng.choices(words, k=rng.randint(0, 7))) for _ in range(2))
        assert plain(marked(text, reference)) == text
        assert marked(text, text) == marked(text, None)
