"""Speech in, translated text out: batched beam search over a manifest, or one recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from slam_potsa.config import PotsaConfig, defaults
from slam_potsa.config.check import check
from slam_potsa.data.audio import measure_audio
from slam_potsa.data.manifest import Utterance
from slam_potsa.data.predictions import Prediction, write_pred_gt, write_predictions
from slam_potsa.engine.run_directory import CONFIG, MODEL
from slam_potsa.errors import InputError
from slam_potsa.model.plugin import build_dataset, get_speech_dataset, model_factory


class Translator:
    """A trained model, loaded once, that decodes manifests and recordings.

    Args:
        config: with `ckpt_path`; `decode` and `train_config.val_batch_size` rule the search.
        device: None takes CUDA where it is there.
    """

    def __init__(self, config: PotsaConfig, device: str | None = None):
        check(config)
        if not config.ckpt_path:
            raise InputError("ckpt_path is not set: give the model.pt of a run")
        self.config = config
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model, self.tokenizer = model_factory(
            config.train_config,
            config.model_config,
            language_bias=config.language_bias,
            alignment=replace(config.alignment, weight=0.0),
            decode=config.decode,
            ckpt_path=config.ckpt_path,
        )
        self.model.to(self.device).eval()

    def decode(self, manifest: str | Path, *, progress: bool = True) -> list[Prediction]:
        """Translations of every utterance, in the manifest's order."""
        return self._decode(self.dataset(manifest), progress)

    def dataset(self, manifest: str | Path) -> Any:
        """The utterances of a manifest as this model reads them, without their translations."""
        data = replace(
            self.config.dataset_config, test_data_path=str(manifest), inference_mode=True
        )
        return get_speech_dataset(data, self.tokenizer, "test")

    def to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {k: v.to(self.device) if torch.is_tensor(v) else v for k, v in batch.items()}

    def translate(
        self, recordings: Sequence[str | Path], language: str, target_language: str = ""
    ) -> list[str]:
        """Translations of recordings spoken in `language`, without a manifest."""
        spoken = [
            Utterance(
                key=str(path),
                audio=str(Path(path).resolve()),
                language=language,
                sentence_id=str(path),
                target_language=target_language or None,
                duration=measure_audio(str(path)),
            )
            for path in recordings
        ]
        data = replace(self.config.dataset_config, feature_store=None, inference_mode=True)
        dataset = build_dataset(data, spoken, self.tokenizer, training=False)
        return [prediction.prediction for prediction in self._decode(dataset, progress=False)]

    @torch.inference_mode()
    def _decode(self, dataset: Any, progress: bool) -> list[Prediction]:
        utterances = dataset.items.utterances
        # Longest first: batches of like length, and memory fails early or never.
        order = sorted(range(len(utterances)), key=lambda i: -(utterances[i].duration or 0.0))
        loader = DataLoader(
            dataset,
            batch_size=self.config.train_config.val_batch_size,
            sampler=order,
            collate_fn=dataset.collator,
            num_workers=self.config.train_config.num_workers_dataloader,
        )
        texts: list[str] = []
        bar = tqdm(total=len(order), desc="decoding", unit="utt", disable=not progress, leave=False)
        with bar:
            for batch in loader:
                texts += self._generate(batch)
                bar.update(len(batch["keys"]))
        by_index = dict(zip(order, texts, strict=True))
        beams = self.config.decode.num_beams
        return [_prediction(u, by_index[i], beams) for i, u in enumerate(utterances)]

    def _generate(self, batch: dict[str, Any]) -> list[str]:
        tokens = self.model.generate(**self.to_device(batch))
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]


def load_run(run: str | Path, **changes: Any) -> PotsaConfig:
    """The configuration of a run directory, with `ckpt_path` at its final model.

    `changes` replace top-level keys. The biases travel inside the checkpoint.
    """
    import yaml

    run = Path(run)
    if not (run / CONFIG).is_file():
        raise InputError(f"{run}: no {CONFIG} there; expected the output_dir of a training run")
    config = defaults(PotsaConfig, yaml.safe_load((run / CONFIG).read_text()))
    own = {
        "ckpt_path": str(run / MODEL),
        "language_bias": replace(config.language_bias, path=None),
    }
    return replace(config, **own | changes)


def decode(config: PotsaConfig) -> list[Prediction]:
    """Decode `dataset_config.test_data_path` into files that start with `decode_log`.

    `<decode_log>_pred` and `_gt` are SLAM-LLM's (key, tab, text);
    `<decode_log>_predictions.jsonl` adds language, source and beam.
    """
    if not config.decode_log:
        raise InputError("decode_log is not set: give the prefix of the files to write")
    manifest = config.dataset_config.test_data_path or config.dataset_config.val_data_path
    if not manifest:
        raise InputError("dataset_config.test_data_path is not set: give the manifest to decode")
    predictions = Translator(config).decode(manifest)
    write_decoded(config.decode_log, predictions)
    return predictions


def write_decoded(prefix: str | Path, predictions: Sequence[Prediction]) -> None:
    write_pred_gt(prefix, predictions)
    write_predictions(f"{prefix}_predictions.jsonl", predictions)


def _prediction(utterance: Utterance, text: str, beams: int) -> Prediction:
    return Prediction(
        key=utterance.key,
        language=utterance.language,
        source=utterance.audio,
        target_language=utterance.target_language or "",
        reference=utterance.target,
        prediction=text,
        beam=beams,
        transcript=utterance.transcript,
    )
