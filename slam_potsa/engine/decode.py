"""Speech in, text out: batched beam search over a manifest, or over recordings.

A decoding goes through the manifest from the longest utterance to the shortest, in one process or
several, writes down each batch's answers at once, and gives predictions in the manifest's order:

    <prefix>_predictions.jsonl     with language, source and beam
    <prefix>_pred  <prefix>_gt     SLAM-LLM's (key, tab, text)
    <prefix>.done.json             what they were made from, by which command, of which manifest
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from slam_potsa.config import PotsaConfig, flat
from slam_potsa.config.check import check
from slam_potsa.data.audio import measure_audio
from slam_potsa.data.dataset import build_dataset, exchanged_recordings, get_speech_dataset
from slam_potsa.data.feature_store import has_features
from slam_potsa.data.manifest import Utterance, read_manifest
from slam_potsa.data.order import ranks
from slam_potsa.data.predictions import Prediction, write_pred_gt, write_predictions
from slam_potsa.data.tasks import (
    NEEDS,
    read_answer,
    reference,
    require,
    task_to_decode,
    written_language,
)
from slam_potsa.engine import decode_processes
from slam_potsa.engine.decode_processes import Answer, Journal, in_processes
from slam_potsa.engine.prepare import quieten
from slam_potsa.engine.run_directory import (
    best_checkpoint,
    features_of,
    file_hash,
    frozen_models,
    read_config,
)
from slam_potsa.engine.share import load_shared
from slam_potsa.errors import InputError
from slam_potsa.files import alone
from slam_potsa.model.factory import model_factory
from slam_potsa.model.speech_llm import SpeechLLM
from slam_potsa.provenance import why_outdated, write_record

logger = logging.getLogger(__name__)


class Translator:
    """A trained model, loaded once, that decodes manifests and recordings.

    In float32 the answers do not depend on the batch size. In bfloat16 and float16 two answers that
    are equally probable up to rounding may still change places with it: rare, and the remedy is
    `model_config.llm_dtype=float32`, or always the same `train_config.val_batch_size`.

    Args:
        config: with `ckpt_path`; `decode` and `train_config.val_batch_size` rule the search.
        device: None takes CUDA where it is there.
    """

    def __init__(self, config: PotsaConfig, device: str | torch.device | None = None):
        check(config)
        if not config.ckpt_path:
            raise InputError("ckpt_path is not set: give the model.pt of a run")
        self.config = config
        self.device = torch.device(device or decode_processes.device())
        self.model, self.tokenizer = model_factory(
            config.train_config,
            # Training may have left the encoder out; what is decoded has seldom been stored.
            replace(config.model_config, load_encoder=True),
            language_bias=config.language_bias,
            alignment=replace(config.alignment, terms={}, teacher=None),
            decode=config.decode,
            ckpt_path=config.ckpt_path,
        )
        self.model.to(self.device).eval()

    @classmethod
    def from_pretrained(
        cls, name: str | Path, device: str | torch.device | None = None
    ) -> Translator:
        """Of a run directory, an exported folder, or a hub's NAME or NAME@REVISION."""
        return cls(load_run(name), device)

    @classmethod
    def around(cls, model: SpeechLLM, config: PotsaConfig) -> Translator:
        """Of a model in memory, such as one in training, with the options of `config`."""
        own = cls.__new__(cls)
        own.config, own.model, own.tokenizer = config, model, model.tokenizer
        own.device = next(model.parameters()).device
        return own

    def decode(
        self, manifest: str | Path, *, progress: bool = True, shuffle_audio: bool = False
    ) -> list[Prediction]:
        """Predictions for every utterance, in the manifest's order.

        Args:
            shuffle_audio: the blind control, see `exchanged_recordings`.
        """
        return self._decode(self.dataset(manifest, shuffle_audio), progress)

    def dataset(self, manifest: str | Path, shuffle_audio: bool = False) -> Any:
        """The utterances of a manifest as this model reads them, without their translations.

        From the run's feature store where it has them all, else from the recordings.
        """
        data = replace(
            self.config.dataset_config, test_data_path=str(manifest), inference_mode=True
        )
        store, encoder = data.feature_store, self.model.encoder
        if store and not has_features(store, manifest, encoder.fingerprint()):
            logger.info("%s is not in %s: reading recordings", manifest, data.feature_store)
            data = replace(data, feature_store=None)
        dataset = get_speech_dataset(data, self.tokenizer, "test")
        if shuffle_audio:
            dataset.recordings = exchanged_recordings(dataset.items.utterances)
        return dataset

    def to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {k: v.to(self.device) if torch.is_tensor(v) else v for k, v in batch.items()}

    @torch.inference_mode()
    def encoded(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch of `dataset`'s on the device, its speech encoded once for all that reads it."""
        batch = self.to_device(batch)
        if "audio_mel" in batch:
            mel, valid = batch.pop("audio_mel"), batch["audio_mel_post_mask"]
            batch["encoder_features"] = self.model.encoder(mel, valid)
        return batch

    def translate(
        self, recordings: Sequence[str | Path], language: str, target_language: str = "", **how: Any
    ) -> list[str]:
        """The texts of `predictions`."""
        found = self.predictions(recordings, language, target_language, **how)
        return [prediction.prediction for prediction in found]

    def predictions(
        self, recordings: Sequence[str | Path], language: str, target_language: str = "", **how: Any
    ) -> list[Prediction]:
        """Of recordings in `language`, of 30 s or less (longer: `data.pieces`), with options of
        transformers' `generate`: `num_return_sequences`, a `streamer` of one greedy answer."""
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
        require(data, [task_to_decode(data.tasks, data.test_task)], spoken)
        return self._decode(build_dataset(data, spoken, self.tokenizer), len(spoken) > 1, **how)

    def _decode(self, dataset: Any, progress: bool, **options: Any) -> list[Prediction]:
        batches = self.answers(dataset, progress=progress, **options)
        answers = {answer.key: answer for batch in batches for answer in batch}
        return predictions_of(self.config, dataset.items.utterances, dataset.recordings, answers)

    def answers(
        self,
        dataset: Any,
        done: Collection[str] = (),
        rank: int = 0,
        processes: int = 1,
        progress: bool = True,
        **options: Any,
    ) -> Iterator[list[Answer]]:
        """By batch, to the utterances whose keys are not `done`.

        Args:
            rank: of this process, which answers every `processes`-th utterance.
        """
        rows = dataset.items.utterances
        seconds = [dataset.heard(row).duration or 0.0 for row in rows]
        # Longest first: batches of like length, and memory fails early or never.
        share = sorted(range(len(rows)), key=lambda i: -seconds[i])[rank::processes]
        loader = DataLoader(
            dataset,
            batch_size=self.config.train_config.val_batch_size,
            sampler=[i for i in share if rows[i].key not in done],
            collate_fn=dataset.collator,
            num_workers=self.config.train_config.num_workers_dataloader,
        )
        with tqdm(
            total=len(share),
            initial=len(share) - len(loader.sampler),
            desc=f"decoding (share 1 of {processes})" if processes > 1 else "decoding",
            unit="utt",
            disable=not progress or rank > 0,
        ) as bar:
            for batch in map(self.encoded, loader):
                losses = self.losses(batch) if self.config.decode.cross_entropy else {}
                answers = self._generate(batch, **options)
                yield [replace(answer, cross_entropy=losses.get(answer.key)) for answer in answers]
                bar.update(len(batch["keys"]))

    @torch.inference_mode()
    def _generate(self, batch: dict[str, Any], **options: Any) -> Iterator[Answer]:
        count = options.get("num_return_sequences", self.config.decode.num_return_sequences)
        scores: list[Any] = [None] * len(batch["keys"])
        if count == 1:
            tokens = self.model.generate(**batch, **options)
        else:
            # Scores keep each step's distribution: batch x beams x vocabulary x steps x 4 bytes.
            scored = {"return_dict_in_generate": True, "output_scores": True}
            output = self.model.generate(**batch, **scored, **options)
            tokens = output.sequences
            scores = output.sequences_scores.view(-1, count).tolist()
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        went_on = (tokens[::count] != self.tokenizer.eos_token_id).all(1)
        cut = (went_on & (tokens.shape[1] >= self.config.decode.max_new_tokens)).tolist()
        for row, key in enumerate(batch["keys"]):
            best = [text.strip() for text in texts[row * count : (row + 1) * count]]
            yield Answer(key, best, scores[row], cut=cut[row])

    @torch.inference_mode()
    def losses(self, batch: dict[str, Any]) -> dict[str, float]:
        """By key, the cross-entropy of the true answer in nats a token, where there is one."""
        if not any(batch["answer_ids"]):
            return {}
        losses = self.model.sentence_losses(**batch).tolist()
        rows = zip(batch["keys"], batch["answer_ids"], losses, strict=True)
        return {key: loss for key, ids, loss in rows if ids}


def predictions_of(
    config: PotsaConfig,
    rows: Iterable[Utterance],
    recordings: Mapping[str, Utterance],
    answers: Mapping[str, Answer],
) -> list[Prediction]:
    """`answers` by key to `rows`, which heard `recordings` where there are any for their keys."""
    found = [_prediction(config, answers[u.key], u, recordings.get(u.key, u)) for u in rows]
    data = config.dataset_config
    malformed = sum(prediction.heard is None for prediction in found)
    if malformed and task_to_decode(data.tasks, data.test_task) == "cot":
        lack = "%d of %d answers lack the marker of dataset_config.cot_answer: the whole text "
        logger.warning(lack + "is taken for the translation", malformed, len(found))
    return found


def _prediction(
    config: PotsaConfig, answer: Answer, utterance: Utterance, heard: Utterance
) -> Prediction:
    """`answer` to `utterance` as it is scored: the format of the task taken off again."""
    data = config.dataset_config
    task = task_to_decode(data.tasks, data.test_task)
    readings = [read_answer(data, task, utterance, text) for text in answer.texts]
    texts = [reading.text for reading in readings]
    alternatives = answer.scores and tuple(zip(texts, answer.scores, strict=True))
    return Prediction(
        key=utterance.key,
        language=utterance.language,
        source=heard.audio or "",
        target_language=written_language(task, utterance) or "",
        reference=reference(task, utterance),
        prediction=texts[0],
        beam=config.decode.num_beams,
        transcript=utterance.transcript,
        heard=readings[0].heard,
        sentence_id=utterance.sentence_id,
        cross_entropy=answer.cross_entropy,
        alternatives=alternatives,
        cut=answer.cut,
        synthetic=utterance.synthetic,
    )


def load_run(run: str | Path, ckpt_path: str | None = None) -> PotsaConfig:
    """The configuration of a run directory, with `ckpt_path`, or its best model by validation.

    The biases travel inside the checkpoint. An exported folder, or a hub's name, is a run too.
    """
    if shared := load_shared(run):
        return replace(shared, ckpt_path=ckpt_path or shared.ckpt_path)
    config = read_config(run)
    bias = replace(config.language_bias, path=None)
    return replace(config, ckpt_path=ckpt_path or str(best_checkpoint(run)), language_bias=bias)


# -- into files ------------------------------------------------------------------------------------


def decode(config: PotsaConfig) -> list[Prediction]:
    """Decode `dataset_config.test_data_path` into files that start with `decode_log`."""
    if not config.decode_log:
        raise InputError("decode_log is not set: give the prefix of the files to write")
    manifest = config.dataset_config.test_data_path or config.dataset_config.val_data_path
    if not manifest:
        raise InputError("dataset_config.test_data_path is not set: give the manifest to decode")
    if ranks() > 1:
        raise InputError("start one process; `slam-potsa decode --processes N` decodes in several")
    return decode_to(config.decode_log, config, manifest)


def decode_to(
    prefix: str | Path,
    config: PotsaConfig,
    manifest: str | Path,
    *,
    shuffle_audio: bool = False,
    processes: int = 1,
) -> list[Prediction]:
    """Decode `manifest` into files that start with `prefix`, and continue where one was stopped."""
    check(config)
    data = replace(config.dataset_config, task_shares=[])
    task = task_to_decode(data.tasks, data.test_task)
    rows = read_manifest(manifest, needs=NEEDS[task][:1])
    require(data, [task], rows)
    recordings = exchanged_recordings(rows) if shuffle_audio else {}
    made_from = decoded_from(config, manifest, shuffle_audio)  # before: of what it reads
    with alone(Path(prefix).parent, "is decoding", prefix=Path(prefix).name):
        journal = Journal(prefix, made_from)
        in_processes(processes, _decode_share, journal, config, manifest, shuffle_audio)
        found = predictions_of(config, rows, recordings, journal.answers())
        return write_decoded(prefix, journal, found, manifest)


def write_decoded(prefix: str | Path, journal: Journal, found: list, manifest: str | Path) -> list:
    """Write the files of a decoding that has ended; its journal goes."""
    write_pred_gt(prefix, found)
    record_file(prefix).unlink(missing_ok=True)
    write_predictions(predictions_file(prefix), found)
    where = {"manifest": str(Path(manifest).resolve())}
    write_record(record_file(prefix), journal.made_from, [predictions_file(prefix)], notes=where)
    journal.remove()
    return found


def _decode_share(
    rank: int,
    processes: int,
    journal: Journal,
    config: PotsaConfig,
    manifest: str | Path,
    shuffle_audio: bool,
) -> None:
    quieten()
    translator = Translator(config, decode_processes.device(rank))
    dataset, done = translator.dataset(manifest, shuffle_audio), journal.answers()
    if done:
        logger.info("continuing: %d are answered", len(done))
    journal.add(rank, translator.answers(dataset, done, rank, processes))


def predictions_file(prefix: str | Path) -> Path:
    return Path(f"{prefix}_predictions.jsonl")


def record_file(prefix: str | Path) -> Path:
    """A `slam_potsa.provenance.Record`; its notes name the `manifest`."""
    return Path(f"{prefix}.done.json")


def decoded_from(
    config: PotsaConfig, manifest: str | Path, shuffle_audio: bool = False
) -> dict[str, Any]:
    """All that the answers to `manifest` depend on, by name; no model is loaded for it.

    Weights, biases, models, manifest, recordings by content; stored features by their encoder.
    """
    data, bias = config.dataset_config, config.language_bias.path
    # Compared by what they are, not by where they lie.
    placeless = replace(data, train_data_path="", feature_store=None, test_task="")
    options = replace(config, ckpt_path=None, dataset_config=placeless)
    known = flat(options, affects=["weights", "answers"]) | frozen_models(config, str(manifest))
    return known | {
        "task": task_to_decode(data.tasks, data.test_task),
        "recordings are exchanged": shuffle_audio,
        "the model's weights": file_hash(config.ckpt_path),
        "the biases": file_hash(bias),
        "the manifest's content": file_hash(manifest),
        "the stored features": features_of(data.feature_store),
    }


def why_decode(prefix: str | Path, config: PotsaConfig, manifest: str | Path) -> list[str]:
    """Why it is to be decoded, again or for the first time; nothing where that is done."""
    if not predictions_file(prefix).is_file():
        return ["not decoded yet"]
    return why_outdated(record_file(prefix), decoded_from(config, manifest))
