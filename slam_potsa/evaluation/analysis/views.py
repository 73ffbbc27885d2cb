"""Pooled vectors in the plane: PCA and t-SNE (POTSA Fig. 1, Fig. 3 top)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slam_potsa.evaluation.analysis.result import View
from slam_potsa.evaluation.analysis.settings import Settings
from slam_potsa.evaluation.projection import pca, tsne


def views(tap: str, vectors: Any, languages: Sequence[str], settings: Settings) -> list[View]:
    """Both views of pooled vectors [n, D] at a tap; coordinates with five digits."""
    flat = pca(vectors)
    bent = tsne(vectors, perplexity=settings.perplexity, seed=settings.seed)
    explained = tuple(round(float(share), 5) for share in flat.explained)
    return [
        View(tap, "pca", _rounded(flat.points), tuple(languages), explained),
        View(tap, "tsne", _rounded(bent), tuple(languages)),
    ]


def _rounded(points: Any) -> tuple[tuple[float, float], ...]:
    return tuple((float(f"{x:.5g}"), float(f"{y:.5g}")) for x, y in points)
