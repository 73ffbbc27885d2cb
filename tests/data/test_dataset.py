from collections import Counter

import pytest

from slam_potsa.data.dataset import exchanged_recordings
from slam_potsa.errors import InputError


@pytest.mark.parametrize("takes", [(1,) * 7, (3, 1, 2), (2, 2), (1, 1), (4, 1, 1, 2)])
def test_every_recording_is_heard_once_and_never_for_its_own_sentence(utterance, takes):
    rows = [
        utterance(language, f"s{sentence}", take)
        for language in ("en", "es")
        for sentence, count in enumerate(takes)
        for take in range(count)
    ]
    exchanged = exchanged_recordings(rows)
    for row in rows:
        heard = exchanged[row.key]
        assert heard.language == row.language and heard.sentence_id != row.sentence_id
    assert Counter(u.key for u in exchanged.values()) == Counter(row.key for row in rows)
    assert exchanged_recordings(rows[::-1]).keys() == exchanged.keys()
    assert exchanged_recordings(rows) == exchanged
    if len(takes) > 2:
        assert any(exchanged_recordings(rows, seed) != exchanged for seed in range(1, 9))


def test_a_language_with_too_few_other_sentences_is_refused(utterance):
    rows = [utterance("en", "s0"), utterance("en", "s1"), utterance("es", "s0")]
    rows += [utterance("fr", "s0", take) for take in range(3)] + [utterance("fr", "s1")]
    with pytest.raises(InputError) as caught:
        exchanged_recordings(rows)
    assert len(caught.value.problems) == 2
    assert "language 'es': 1 of 1 recordings are of one sentence" in str(caught.value)
    assert "language 'fr': 3 of 4" in str(caught.value)
