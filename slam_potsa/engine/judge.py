"""By what the best checkpoint is chosen: `native.choose_by`.

The lowest cross-entropy is seldom the best translation: what matters can be asked for. "ce" and
"accuracy" (of the true answer's tokens, AI-STA's A.1) come with every validation; a score of
`registry.SCORES` is that of greedy translations of a sample of the validation set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist

from slam_potsa.config import PotsaConfig
from slam_potsa.data.dataset import build_dataset
from slam_potsa.data.manifest import read_manifest
from slam_potsa.data.tasks import needed_fields
from slam_potsa.engine.decode import Translator, predictions_of
from slam_potsa.errors import InputError
from slam_potsa.model.speech_llm import SpeechLLM
from slam_potsa.registry import SCORES, resolve

MEASURED = {"ce": ("eval_loss", 1), "accuracy": ("eval_accuracy", -1)}  # and lower is better
GREEDY = {"num_beams": 1, "num_return_sequences": 1}


class Judge:
    """What a validation is worth; lower is better.

    Raises InputError where `native.choose_by` is not known, or there is no validation to judge by.
    """

    def __init__(self, config: PotsaConfig):
        native, self.config = config.native, config
        self.by = native.choose_by
        if (self.by != "ce" or native.patience) and not config.train_config.run_validation:
            raise InputError("native.choose_by and patience need train_config.run_validation=true")
        if self.by not in MEASURED:
            known = SCORES | dict.fromkeys(MEASURED, "")
            self.score = resolve(known, self.by, "native.choose_by")

    def value(self, metrics: dict[str, float], model: SpeechLLM, validation: int) -> float | None:
        """Of the `validation`-th, from 1; None where it is not judged. Adds its score to `metrics`.

        Every rank calls it, and gets the same.
        """
        if validation % self.config.native.choose_interval:
            return None
        if self.by in MEASURED:
            name, sign = MEASURED[self.by]
            return sign * metrics[name]
        metrics[f"eval_{self.by}"] = self._translated(model)
        return -metrics[f"eval_{self.by}"]

    def _translated(self, model: SpeechLLM) -> float:
        """Each rank translates its share of the sample, greedily."""
        config, manifest = self.config, self.config.dataset_config.val_data_path
        rows = read_manifest(manifest, needs=needed_fields(config.dataset_config.tasks))
        count = min(config.native.choose_sample or len(rows), len(rows))
        rows = [rows[place * len(rows) // count] for place in range(count)]
        data = replace(config.dataset_config, inference_mode=True)
        dataset = build_dataset(data, rows, model.tokenizer, Path(manifest).parent)
        decode = replace(config.decode, cross_entropy=False, **GREEDY)
        translator = Translator.around(model, replace(config, decode=decode))
        ranks = dist.get_world_size() if dist.is_initialized() else 1
        rank = dist.get_rank() if ranks > 1 else 0
        usual, model.decode = model.decode, model.decode | GREEDY
        try:
            batches = translator.answers(dataset, (), rank, ranks, progress=False)
            found: list[Mapping] = [{answer.key: answer for batch in batches for answer in batch}]
        finally:
            model.decode = usual
        if ranks > 1:
            own, found = found[0], [{}] * ranks
            dist.all_gather_object(found, own)
        answers = {key: answer for share in found for key, answer in share.items()}
        return self.score(predictions_of(translator.config, rows, {}, answers))
