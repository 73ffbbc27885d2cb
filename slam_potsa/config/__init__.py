"""Every option once: typed, ranged, with its unit and its source.

The sections that SLAM-LLM knows (`train_config`, `model_config`, `dataset_config`, `log_config`,
`fsdp_config`) keep its names and key names, so that one Hydra configuration drives both hosts. Ours
(`language_bias`, `alignment`, `decode`, `native`) stand beside them: SLAM-LLM hands every other
top-level key to the model factory. YAML files under `conf/` only choose values; the defaults, their
meaning and their limits are here.
"""

from slam_potsa.config.alignment import AlignmentConfig, LanguageBiasConfig, ScheduleConfig
from slam_potsa.config.data import DatasetConfig
from slam_potsa.config.hosts import DecodeConfig, NativeConfig
from slam_potsa.config.model import ModelConfig
from slam_potsa.config.root import PotsaConfig, defaults
from slam_potsa.config.training import FsdpConfig, LogConfig, PeftConfig, TrainConfig

__all__ = [
    "AlignmentConfig",
    "DatasetConfig",
    "DecodeConfig",
    "FsdpConfig",
    "LanguageBiasConfig",
    "LogConfig",
    "ModelConfig",
    "NativeConfig",
    "PeftConfig",
    "PotsaConfig",
    "ScheduleConfig",
    "TrainConfig",
    "defaults",
]
