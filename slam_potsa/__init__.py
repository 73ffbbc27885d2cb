"""POTSA: cross-lingual speech alignment for speech-to-text translation, as a SLAM-LLM plugin.

The public names below load when first used; importing the package imports none of its heavy
dependencies.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# How often a waiting thread of GNU's OpenMP looks before it sleeps; read when torch is imported, so
# nothing where torch came first. With the usual 300,000 a step on two cores takes five times as
# long beside one other job; with this twice, and no longer than before on a quiet machine.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")

_PUBLIC = {
    "transport_loss": "slam_potsa.objective.transport",
    "LayerSchedule": "slam_potsa.objective.layer_schedule",
    "AlignmentObjective": "slam_potsa.objective.terms",
    "AlignmentTerm": "slam_potsa.objective.terms",
    "LanguageBias": "slam_potsa.model.language_bias",
    "BiasCompensatedQFormer": "slam_potsa.model.projectors",
    "Translator": "slam_potsa.engine.decode",
    "InputError": "slam_potsa.errors",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'slam_potsa' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
