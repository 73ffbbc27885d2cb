"""What a user can add to by name: plain dicts of "module:attribute", imported when first asked for.

from slam_potsa import registry
registry.PROJECTORS["my-projector"] = "my_package.projector:MyProjector"
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from slam_potsa.errors import InputError

PROJECTORS = {
    "q-former": "slam_potsa.model.projectors:BiasCompensatedQFormer",
    "transformer-cnn": "slam_potsa.model.projectors:TransformerCnn",
    "window-q-former": "slam_potsa.model.projectors:WindowQFormer",
}
DATA_SOURCES = {
    "announcements": "slam_potsa.data.sources.announcements:build",
    "asterisk": "slam_potsa.data.sources.asterisk:build",
    "covost2": "slam_potsa.data.sources.covost2:build",
    "fleurs": "slam_potsa.data.sources.fleurs:build",
    "hf": "slam_potsa.data.sources.hf:build",
}
# Of predictions with references, one number, higher is better: for `native.choose_by`.
SCORES = {
    "bleu": "slam_potsa.evaluation.text_metrics:mean_bleu",
    "chrf": "slam_potsa.evaluation.text_metrics:mean_chrf",
}


def resolve(registry: dict[str, str], name: str, what: str) -> Any:
    """The object registered as `name`. Raises InputError with the known names."""
    if name not in registry:
        known = ", ".join(sorted(registry))
        raise InputError(f"unknown {what} {name!r}: known are {known}")
    module, attribute = registry[name].split(":")
    return getattr(import_module(module), attribute)
