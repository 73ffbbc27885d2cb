"""Is one system better than another on the same sentences? sacrebleu's paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError
from slam_potsa.evaluation.scores import Convention, metrics_for, sacrebleu_seed


@dataclass(frozen=True)
class Comparison:
    """One metric of two systems; `p_value` is that of the difference under the null hypothesis."""

    name: str
    metric: str
    baseline: float
    system: float
    p_value: float
    signature: str

    @property
    def difference(self) -> float:
        return self.system - self.baseline

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"difference": self.difference}


def compare(
    baseline: Sequence[Prediction],
    system: Sequence[Prediction],
    *,
    name: str = "all, pooled",
    test: str = "bs",
    samples: int = 1000,
    seed: int = 12345,
    convention: Convention | None = None,
) -> list[Comparison]:
    """Test `system` against `baseline` on the sentences of both, pooled.

    Args:
        baseline, system: predictions of the same utterances, in any order, one target language.
            For one language or group, give its predictions only.
        name: what the sentences are, kept in the result.
        test: "bs", paired bootstrap (Koehn 2004), or "ar", approximate randomisation
            (Riezler & Maxwell 2005).
        samples: resamples, or trials.
        seed: of the resampling; part of the signature.
        convention: as in `score`.

    Returns:
        One Comparison for BLEU and one for chrF.

    Raises:
        InputError: utterances that only one system has, references that differ, several target
            languages, an unknown test.
    """
    from sacrebleu.significance import PairedTest

    pairs = _pairs(baseline, system)
    if test not in ("bs", "ar"):
        raise InputError(
            f"test: found {test!r}, expected 'bs' (paired bootstrap) or 'ar' (randomisation)"
        )
    metrics = metrics_for(pairs[0][0].target_language, convention or Convention())
    systems = [
        ("baseline", [old.prediction for old, _ in pairs]),
        ("system", [new.prediction for _, new in pairs]),
    ]
    references = [[old.reference for old, _ in pairs]]
    with sacrebleu_seed(seed):
        signatures, scores = PairedTest(systems, metrics, references, test, samples)()
    # sacrebleu counts differences *above* the observed one: were all of them 0, it would say
    # p = 1 / (samples + 1), significant, of two systems that write the same.
    same = systems[0][1] == systems[1][1]
    return [
        Comparison(
            name,
            metric,
            float(scores[metric][0].score),
            float(scores[metric][1].score),
            1.0 if same else float(scores[metric][1].p_value),
            str(signature),
        )
        for metric, signature in signatures.items()
    ]


def _pairs(
    baseline: Sequence[Prediction], system: Sequence[Prediction]
) -> list[tuple[Prediction, Prediction]]:
    old = {(item.key, item.target_language): item for item in baseline}
    new = {(item.key, item.target_language): item for item in system}
    problems = [f"{key!r} is decoded by the baseline only" for key, _ in old if (key, _) not in new]
    problems += [f"{key!r} is decoded by the system only" for key, _ in new if (key, _) not in old]
    shared = [(old[identity], new[identity]) for identity in old if identity in new]
    problems += [f"{a.key!r} has two references" for a, b in shared if a.reference != b.reference]
    problems += [f"{a.key!r} has no reference" for a, b in shared if a.reference is None]
    targets = sorted({target for _, target in old})
    if len(targets) > 1:
        problems.append(f"target languages {', '.join(targets)}: expected one; compare each apart")
    if not shared and not problems:
        problems.append("found no predictions to compare; expected at least one")
    if problems:
        raise InputError(problems)
    return shared
