"""finetune.py, with what every rank's schedule chose and saw written to rank-N.json."""

import json
import os
from pathlib import Path

from slam_potsa.engine import launch, native
from slam_potsa.model.metrics import rounded


def finetune_and_tell(config) -> None:
    lines = []

    class Listening(native.NativeTrainer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.controller.listeners.append(
                lambda line: lines.append([line["step"], list(line["layers"]), rounded(line["ce"])])
            )

    native.NativeTrainer = Listening
    native.finetune(config)
    path = Path(config.train_config.output_dir) / f"rank-{os.environ['RANK']}.json"
    path.write_text(json.dumps(lines))


if __name__ == "__main__":
    launch.run_with_hydra(finetune_and_tell)
