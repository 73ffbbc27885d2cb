"""Effective rank: over how many directions do vectors spread?"""

from __future__ import annotations

from typing import Any

from slam_potsa.errors import InputError
from slam_potsa.evaluation.retrieval import host_array


def effective_rank(vectors: Any, *, center: bool = True) -> float:
    """`exp(−Σ p_i ln p_i)` with p_i = σ_i / Σ σ, σ the singular values of vectors [n, D].

    k directions of equal strength give k; at most min(n, D). Vectors that are all equal give 0.
    The mean is taken away first (`center`): activations share a large common part, which alone
    would be a rank of one whatever the rest does.

    Source: Roy & Vetterli, *The effective rank: a measure of effective dimensionality*, 2007 (who
    do not center).

    >>> round(effective_rank([[1.0, 0], [-1, 0], [0, 1], [0, -1]]), 6)
    2.0
    """
    import numpy as np

    points = host_array(vectors)
    if points.ndim != 2 or not len(points):
        raise InputError(f"vectors: found shape {points.shape}, expected [n, D]")
    scale = np.linalg.norm(points)
    if center:
        points = points - points.mean(axis=0)
    if not np.linalg.norm(points) > 1e-6 * scale:  # what is left is rounding of float32
        return 0.0
    # Squares of the singular values; those that rounding makes (1e-16 of the largest) add nothing.
    gram = points.T @ points if points.shape[0] >= points.shape[1] else points @ points.T
    strengths = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0.0, None))
    shares = strengths / strengths.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def query_share(tokens: Any) -> float:
    """The share of token variance that lies between queries, 0 to 1, of tokens [n, N, D].

    `n Σ_i ‖m_i − m‖² / Σ_ri ‖x_ri − m‖²` with m_i the mean over recordings r of query i. At 1 the
    tokens are the same whatever was said: the projector's output no longer depends on its input.
    """
    import numpy as np

    points = host_array(tokens)
    mean = points.mean(axis=(0, 1))
    between = len(points) * np.square(points.mean(axis=0) - mean).sum()
    total = np.square(points - mean).sum()
    return float(between / total) if total > 0 else 1.0
