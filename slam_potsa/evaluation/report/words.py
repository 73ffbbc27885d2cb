"""Which words of a translation differ from its reference, as HTML.

Word by word where words are written apart, sign by sign where they are not (Chinese, Japanese,
Thai, Lao, Khmer, Burmese). Case, punctuation and spaces are not compared.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from html import escape

_SIGNS = (
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana, Han
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
)
_TOKEN = re.compile(rf"[{_SIGNS}]|[^\W{_SIGNS}]+(?:['’][^\W{_SIGNS}]+)*|\s+|.", re.DOTALL)
GAP = "[…]"  # stands where words of the reference are left out


def marked(text: str, reference: str | None) -> str:
    """`text` with <mark> around what is not in `reference`, and at what is missing of it.

    >>> marked("Press the star key.", "Press the pound key.")
    'Press the <mark>star</mark> key.'
    """
    if reference is None:
        return escape(text)
    tokens = _TOKEN.findall(text)
    places = [place for place, token in enumerate(tokens) if _is_word(token)]
    written = [tokens[place].casefold() for place in places]
    expected = [token.casefold() for token in _TOKEN.findall(reference) if _is_word(token)]
    before, after = {}, {}  # place of a token -> HTML
    for kind, i, j, k, m in SequenceMatcher(None, expected, written, autojunk=False).get_opcodes():
        if kind in ("replace", "insert"):
            before[places[k]] = "<mark>"
            after[places[m - 1]] = "</mark>"
        elif kind == "delete":
            missing = escape(" ".join(expected[i:j]), quote=True)
            gap = f'<mark class="gap" title="left out: {missing}">{GAP}</mark>'
            place = places[k] if k < len(places) else len(tokens)
            space = ("", " ") if place < len(tokens) else (" ", "")
            before[place] = gap.join(space) + before.get(place, "")
    parts = [
        before.get(place, "") + escape(token) + after.get(place, "")
        for place, token in enumerate(tokens)
    ]
    return "".join(parts) + before.get(len(tokens), "")


def _is_word(token: str) -> bool:
    return any(character.isalnum() for character in token)
