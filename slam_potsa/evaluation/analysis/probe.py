"""Language-identity probe: how well does a linear classifier still tell the language?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slam_potsa.errors import InputError
from slam_potsa.evaluation.retrieval import host_array

ITERATIONS = 2000


@dataclass(frozen=True)
class Probe:
    """Attributes:
    accuracy: balanced accuracy, the mean over languages of the share that was told right.
    chance: 1 / number of languages.
    recalls: language -> that share.
    folds: how many.
    """

    accuracy: float
    chance: float
    recalls: dict[str, float]
    folds: int


def language_probe(
    vectors: Any,
    sentences: Sequence[str],
    languages: Sequence[str],
    *,
    folds: int = 5,
    seed: int = 0,
) -> Probe:
    """Cross-validated balanced accuracy of a linear language classifier on vectors [n, D].

    Logistic regression (scikit-learn, multinomial, L2 with C = 1, classes weighed equally) on
    features standardised by the training folds. All recordings of a sentence are in one fold, so
    what is told is the language and not the sentence. Folds are fewer where a language has fewer
    sentences.

    A bias that is one vector a language moves class means and nothing else, so this is the question
    that subtraction leaves open. **On the recordings that the biases of eq. 1 were estimated on**
    the class means are equal by construction: what the training folds have too much of, the test
    fold has too little of, and accuracy comes out *below* chance where nothing else is there. Look
    at other recordings too.

    Raises InputError for a language with fewer than two sentences.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import recall_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    points, sentences, languages = host_array(vectors), np.asarray(sentences), np.asarray(languages)
    names = sorted(set(languages.tolist()))
    spoken = {name: len(set(sentences[languages == name].tolist())) for name in names}
    if len(names) < 2 or min(spoken.values()) < 2:
        raise InputError(
            f"the language probe needs two languages with two sentences each, found {spoken}"
        )
    count = min(folds, *spoken.values())
    # Sorted, so that the folds do not depend on the order the recordings came in.
    order = np.lexsort((*points.T[:8][::-1], languages, sentences))
    told = cross_val_predict(
        make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=ITERATIONS, class_weight="balanced")
        ),
        points[order],
        languages[order],
        groups=sentences[order],
        cv=StratifiedGroupKFold(count, shuffle=True, random_state=seed),
    )
    recalls = recall_score(languages[order], told, labels=names, average=None, zero_division=0)
    return Probe(
        float(recalls.mean()),
        1 / len(names),
        dict(zip(names, map(float, recalls), strict=True)),
        count,
    )
