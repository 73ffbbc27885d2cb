"""Every option once: typed, ranged, with its unit, its source and what it affects.

The sections that SLAM-LLM knows (`train_config`, `model_config`, `dataset_config`, `log_config`)
keep its names and key names, so that one Hydra configuration drives both hosts. Ours
(`language_bias`, `alignment`, `decode`, `native`) stand beside them: SLAM-LLM hands every other
top-level key to the model factory. YAML files under `conf/` only choose values; the defaults, their
meaning and their limits are here.
"""

# ruff: noqa: F401 - what other folders import
from slam_potsa.config.alignment import (
    AlignmentConfig,
    LanguageBiasConfig,
    ScheduleConfig,
    TermConfig,
)
from slam_potsa.config.option import defaults, flat
from slam_potsa.config.sections import (
    SLAM_ONLY,
    SLAM_SWITCHES,
    DatasetConfig,
    DecodeConfig,
    LogConfig,
    ModelConfig,
    NativeConfig,
    PeftConfig,
    PotsaConfig,
    TrainConfig,
)
