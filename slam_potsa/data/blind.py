"""The blind control: every utterance is answered to another sentence's recording.

What a model then still gets right it did not hear: it guessed it from the LLM's prior, the prompt
and the language.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from slam_potsa.data.manifest import Utterance
from slam_potsa.errors import InputError


def exchanged_recordings(utterances: Iterable[Utterance], seed: int = 0) -> dict[str, Utterance]:
    """key -> the utterance to be heard instead: of the same language, never of the same sentence.

    A permutation within each language, the same for the same `seed`. With n recordings, m of them
    of the most recorded sentence, each takes the one m places further in an order that keeps a
    sentence's recordings together: never its own sentence's, if 2m <= n.

    Raises:
        InputError: with every language where 2m > n, so that no exchange is possible.
    """
    spoken: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        spoken[utterance.language].append(utterance)
    exchanged: dict[str, Utterance] = {}
    problems = []
    for language, rows in sorted(spoken.items()):
        ordered, most = _by_sentence(rows, f"blind:{seed}:{language}")
        if 2 * most > len(rows):
            problems.append(
                f"language {language!r}: {most} of {len(rows)} recordings are of one sentence, "
                "expected at most half: there is no other sentence's recording for each"
            )
        others = ordered[most:] + ordered[:most]
        exchanged |= {u.key: other for u, other in zip(ordered, others, strict=True)}
    if problems:
        raise InputError(problems)
    return exchanged


def _by_sentence(rows: Sequence[Utterance], seed: str) -> tuple[list[Utterance], int]:
    """The rows, a sentence's together, sentences in random order; recordings of the largest."""
    sentences: dict[str, list[Utterance]] = defaultdict(list)
    for row in rows:
        sentences[row.sentence_id].append(row)
    order = sorted(sentences)
    random.Random(seed).shuffle(order)
    ordered = [row for sentence in order for row in sentences[sentence]]
    return ordered, max(map(len, sentences.values()))
