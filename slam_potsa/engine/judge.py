"""By what the best checkpoint is chosen: `native.choose_by`.

The lowest cross-entropy is seldom the best translation: what matters can be asked for. "ce" and
"accuracy" (of the true answer's tokens, AI-STA's A.1) come with every validation; a score of
`registry.SCORES` is that of greedy translations of a sample of the validation set.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import compress
from pathlib import Path

import torch.distributed as dist

from slam_potsa.config import PotsaConfig
from slam_potsa.data.dataset import build_dataset, read_rows
from slam_potsa.data.manifest import Utterance
from slam_potsa.data.predictions import Prediction
from slam_potsa.data.tasks import fitting, task_to_decode, written_language
from slam_potsa.engine.decode import Translator, predictions_of
from slam_potsa.errors import InputError, collecting, refuse
from slam_potsa.model.speech_llm import SpeechLLM
from slam_potsa.registry import SCORES, resolve

MEASURED = {"ce": ("eval_loss", 1), "accuracy": ("eval_accuracy", -1)}  # and lower is better
GREEDY = {"num_beams": 1, "num_return_sequences": 1}


class Judge:
    """What a validation is worth; lower is better.

    Raises InputError where `native.choose_by` is not known, or there is no validation to judge by.
    """

    def __init__(self, config: PotsaConfig):
        native, self.config, self.by = config.native, config, config.native.choose_by
        if (self.by != "ce" or native.patience) and not config.train_config.run_validation:
            raise InputError("native.choose_by and patience need train_config.run_validation=true")
        if self.by not in MEASURED:
            known = SCORES | dict.fromkeys(MEASURED, "")
            self.score = resolve(known, self.by, "native.choose_by")

    def try_out(self) -> None:
        """Raise InputError where what it takes to score a language is not installed."""
        if self.by in MEASURED or not self.config.dataset_config.val_data_path:
            return
        task, rows = self._rows()
        problems = [] if rows else [f"the validation manifest has no row for {task}"]
        for written in sorted({written_language(task, row) or "" for row in rows}):
            with collecting(problems):
                self.score([Prediction("", "", "", written, reference="a", prediction="a")])
        refuse(f"native.choose_by={self.by}: {problem}" for problem in problems)

    def value(self, metrics: dict[str, float], model: SpeechLLM, validation: int) -> float | None:
        """Of the `validation`-th, from 1, the same on every rank; None where it is not judged.

        Adds its score to `metrics`.
        """
        if validation % self.config.native.choose_interval:
            return None
        name, sign = MEASURED.get(self.by, (f"eval_{self.by}", -1))
        if self.by not in MEASURED:
            metrics[name] = self._translated(model)
        return sign * metrics[name]

    def _rows(self) -> tuple[str, list[Utterance]]:
        """The task that is decoded, and all that can be asked it."""
        data = self.config.dataset_config
        task = task_to_decode(data.tasks, data.test_task)
        rows = read_rows(data, data.val_data_path)
        return task, [*compress(rows, fitting(task, rows))]

    def _translated(self, model: SpeechLLM) -> float:
        """Each rank translates its share of the sample."""
        data, native = self.config.dataset_config, self.config.native
        _, rows = self._rows()
        count = min(native.choose_sample or len(rows), len(rows))
        rows = [rows[place * len(rows) // count] for place in range(count)]
        asked = replace(data, inference_mode=True), rows, model.tokenizer
        dataset = build_dataset(*asked, Path(data.val_data_path).parent)
        decode = replace(self.config.decode, cross_entropy=False, **GREEDY)
        translator = Translator.around(model, replace(self.config, decode=decode))
        ranks = dist.get_world_size() if dist.is_initialized() else 1
        rank = dist.get_rank() if ranks > 1 else 0
        usual, model.decode = model.decode, model.decode | GREEDY
        try:
            own = [*translator.answers(dataset, (), rank, ranks, progress=False)]
        finally:
            model.decode = usual
        shares = [own] * ranks
        if ranks > 1:
            dist.all_gather_object(shares, own)
        answers = {answer.key: answer for of in shares for batch in of for answer in batch}
        return self.score(predictions_of(translator.config, rows, {}, answers))
