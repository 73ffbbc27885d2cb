"""Exported folders for transformers, once this module is imported: AutoConfig, AutoModel, pipeline.

The model is a `Translator` in transformers' clothes: it decodes as that does, and its own classes
of generation, training and saving stay ours.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import soundfile
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSpeechSeq2Seq,
    Pipeline,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.pipelines import PIPELINE_REGISTRY

from slam_potsa.data.pieces import cut, translated, written
from slam_potsa.engine.decode import Translator
from slam_potsa.engine.share import MODEL_TYPE
from slam_potsa.errors import InputError, refuse

TASK = "speech-translation"
# What transformers passes on by itself, and would change nothing.
HARMLESS = {"adapter_kwargs", "dtype", "torch_dtype", "trust_remote_code"}


class SlamPotsaConfig(PretrainedConfig):
    """`config.json` of an export: `options`, `languages`, `sha256`."""

    model_type = MODEL_TYPE


class SlamPotsaModel(PreTrainedModel):
    """A model of an exported folder, or of its name on the hub, frozen parts included.

    Its precision is the export's (`model_config.llm_dtype`), whatever transformers is asked for.
    """

    config_class = SlamPotsaConfig

    def __init__(self, config: SlamPotsaConfig, translator: Translator):
        super().__init__(config)
        self.translator, self.speech_llm = translator, translator.model

    @classmethod
    def from_pretrained(
        cls, name: str, config: SlamPotsaConfig, revision: str | None = None, **asked: Any
    ) -> SlamPotsaModel:
        """Raises InputError for options of transformers' that are not read here."""
        ignored = {key for key, value in asked.items() if value and key[0] != "_"} - HARMLESS
        refuse(f"{key}: not read here; leave it out" for key in sorted(ignored))
        place = f"{name}@{revision}" if revision and not Path(name).exists() else name
        return cls(config, Translator.from_pretrained(place, "cpu")).eval()

    def translate(self, recordings: list[str], language: str, target_language: str) -> list[str]:
        self.translator.device = self.device
        return self.translator.translate(recordings, language, target_language)

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        raise InputError("an export is written from its run: slam-potsa export RUN OUT")


class SpeechTranslationPipeline(Pipeline):
    """Recordings of any length to {"text": ...}: a path, or {"array", "sampling_rate"}.

    Args of a call, or of all calls: `language`, `target_language`; where training heard one
    language, or wrote one, that is the default.
    """

    _load_processor = _load_image_processor = _load_video_processor = False
    _load_feature_extractor = _load_tokenizer = False

    def _sanitize_parameters(self, **languages: str) -> tuple[dict, dict, dict]:
        return {}, languages, {}

    def preprocess(self, recording: Any) -> dict[str, Any]:
        return {"recording": recording}

    def _forward(self, inputs: dict[str, Any], **languages: str) -> dict[str, str]:
        recording, known = inputs["recording"], self.model.config.languages
        every = {
            "language": " ".join(known["spoken"]),
            "target_language": " ".join(known["written"]),
        }
        told = every | languages
        if told.keys() != every.keys() or " " in "".join(told.values()) or not all(told.values()):
            raise InputError(f"{languages}: expected language and target_language, each of {known}")
        with TemporaryDirectory() as folder:
            if isinstance(recording, dict):
                path = str(Path(folder, "array.wav"))
                sound, rate = recording["array"], recording["sampling_rate"]
                soundfile.write(path, sound, rate, subtype="FLOAT")
                recording = path
            spoken = [cut(recording, folder)]
            pieces = translated(spoken, lambda files: self.model.translate(files, **told))
        return {"text": written(pieces[0], "text")}

    def postprocess(self, found: dict[str, str]) -> dict[str, str]:
        return found


AutoConfig.register(MODEL_TYPE, SlamPotsaConfig)
for kind in (AutoModel, AutoModelForSpeechSeq2Seq):
    kind.register(SlamPotsaConfig, SlamPotsaModel)
PIPELINE_REGISTRY.register_pipeline(TASK, SpeechTranslationPipeline, pt_model=AutoModel)
