"""Where in the model do languages meet? R@1, 1 − JSD, a language probe, transport costs, rank."""

from slam_potsa.evaluation.analysis.figures import Figure, figures, write_figures
from slam_potsa.evaluation.analysis.measures import TapMeasures
from slam_potsa.evaluation.analysis.recordings import read_recordings
from slam_potsa.evaluation.analysis.result import (
    Analysis,
    View,
    differences,
    differences_text,
    read_analysis,
    write_analysis,
)
from slam_potsa.evaluation.analysis.run import analyze, heard_in_training, require_packages
from slam_potsa.evaluation.analysis.settings import Settings

__all__ = [
    "Analysis",
    "Figure",
    "Settings",
    "TapMeasures",
    "View",
    "analyze",
    "differences",
    "differences_text",
    "figures",
    "heard_in_training",
    "read_analysis",
    "read_recordings",
    "require_packages",
    "write_analysis",
    "write_figures",
]
