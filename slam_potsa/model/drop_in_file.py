"""What a recipe of SLAM-LLM's names as its files: `slam-potsa where drop-in` prints this path.

++model_config.file=$(slam-potsa where drop-in):model_factory
++dataset_config.file=$(slam-potsa where drop-in):get_speech_dataset
"""

from slam_potsa.model.drop_in import from_yaml

model_factory, get_speech_dataset = from_yaml("potsa.yaml")
