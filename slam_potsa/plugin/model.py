"""Loaded by SLAM-LLM from `model_config.file`; the code is in slam_potsa.model.plugin."""

from slam_potsa.model.plugin import model_factory  # noqa: F401
