"""What SLAM-LLM loads by path: `plugin.py:model_factory` and `plugin.py:get_speech_dataset`.

It executes the file anew at every call, outside of any package: nothing may be defined here.
"""

from slam_potsa.data.dataset import get_speech_dataset  # noqa: F401
from slam_potsa.model.factory import model_factory  # noqa: F401
