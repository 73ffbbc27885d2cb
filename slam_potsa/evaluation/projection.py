"""Pooled vectors in the plane, and one number for how much of them is language (POTSA Fig. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slam_potsa.errors import InputError
from slam_potsa.evaluation.retrieval import host_array

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Projection:
    """points [n, k]; explained [k]: the share of the variance that each axis shows, 0 to 1."""

    points: np.ndarray
    explained: np.ndarray


def pca(vectors: Any, components: int = 2) -> Projection:
    """Principal components of vectors [n, D]: `(X − mean) V`, V the leading right singular vectors.

    The sign of an axis is arbitrary; here the loading of largest magnitude is positive, so that the
    same vectors give the same picture on every machine. Axes beyond the rank are zero.

    Raises:
        InputError: not [n, D] with n ≥ 2, or values that are not finite.
    """
    import numpy as np

    points = host_array(vectors)
    if points.ndim != 2 or len(points) < 2:
        raise InputError(f"vectors: found shape {points.shape}, expected [n, D], n ≥ 2")
    if not np.isfinite(points).all():
        raise InputError("vectors: found values that are not finite; expected numbers")
    centered = points - points.mean(axis=0)
    _, strengths, axes = np.linalg.svd(centered, full_matrices=False)
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    count = min(components, len(axes))
    variance = strengths**2
    total = variance.sum() or 1.0
    return Projection(
        points=_widen(centered @ axes[:count].T, components),
        explained=_widen((variance[:count] / total)[None], components)[0],
    )


def tsne(vectors: Any, *, perplexity: float = 30.0, seed: int = 0) -> np.ndarray:
    """t-SNE of vectors [n, D] in the plane [n, 2] (scikit-learn), from their first 50 components.

    Starts at the principal components; the perplexity is at most a third of n − 1. Who is near whom
    means something, distances across the picture and sizes of clusters do not.

    Raises InputError as `pca` does.
    """
    import numpy as np
    from sklearn.manifold import TSNE

    points = pca(vectors, components=min(50, *host_array(vectors).shape)).points
    if len(points) < 5 or not points[:, 0].std() > 0:  # too few to have neighbours, or all equal
        return _widen(points, 2)[:, :2]
    # t-SNE starts at components scaled to a given spread; without a second one that is none.
    start = _widen(points, 2)[:, :2] / points[:, 0].std() * 1e-4
    fitted = TSNE(
        2,
        perplexity=min(perplexity, (len(points) - 1) / 3),
        init=start.astype(np.float32),
        random_state=seed,
        n_jobs=1,
    )
    return fitted.fit_transform(points)


def language_share(vectors: Any, languages: Sequence[str]) -> float:
    """The share of the variance that lies between languages (η²), 0 to 1.

    `Σ_l n_l ‖m_l − m‖² / Σ_i ‖x_i − m‖²` with m the mean and m_l that of language l. It is 0 by
    construction for the recordings that the biases of eq. 1 were estimated on, so look at others.
    """
    import numpy as np

    points, languages = host_array(vectors), np.asarray(languages)
    if points.ndim != 2 or len(points) != len(languages):
        raise InputError(
            f"found vectors of shape {points.shape} and {len(languages)} languages; "
            "expected [n, D] and n languages"
        )
    centered = points - points.mean(axis=0)
    between = 0.0
    for language in np.unique(languages):
        members = centered[languages == language]
        between += len(members) * float(np.square(members.mean(axis=0)).sum())
    total = float(np.square(centered).sum())
    return between / total if total > 0 else 0.0


def _widen(array: np.ndarray, columns: int) -> np.ndarray:
    """Columns of zeros to the right, up to `columns`."""
    import numpy as np

    return np.pad(array, ((0, 0), (0, max(0, columns - array.shape[1]))))
