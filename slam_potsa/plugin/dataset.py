"""Loaded by SLAM-LLM from `dataset_config.file`; the code is in slam_potsa.model.plugin."""

from slam_potsa.model.plugin import get_speech_dataset  # noqa: F401
