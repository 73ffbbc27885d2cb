"""COMET: a learnt score of a translation by its source, its reference and itself (Rei et al. 2022).

    comet = Comet.load("Unbabel/wmt22-comet-da")
    table = score(predictions, comet=comet)

`unbabel-comet` 2.2.7 pins numpy < 2, huggingface-hub < 1 and transformers < 5, which this package's
tested versions do not fit, so it is no dependency. Where it is not installed beside this package,
`score --comet MODEL --dump FOLDER --show-commands` writes the files and prints the `comet-score`
command for an environment of its own (which computes in half precision; this module does not).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError
from slam_potsa.evaluation.presets import transcribes
from slam_potsa.text import one_line, some

SCALE = 100  # COMET's own is about 0 to 1; LLM-SRT and others print it times 100
CHECKPOINT = Path("checkpoints/model.ckpt")  # in the folder that COMET downloads


class Comet:
    """A loaded model: called with predictions, it returns each one's score times SCALE.

    Args:
        model: what COMET's `load_from_checkpoint` returns.
        name: of the model, for the signature.
        batch_size: sentences at once.
    """

    def __init__(self, model: Any, name: str, batch_size: int = 16):
        self.model, self.name, self.batch_size = model, name, batch_size

    @classmethod
    def load(cls, path_or_name: str, batch_size: int = 16) -> Comet:
        """Load a model from a checkpoint, from the folder COMET keeps it in, or by its name.

        A checkpoint is loaded by COMET, through pickle: take it from a source you trust.

        Raises:
            InputError: COMET is not installed, or the model can be neither found nor downloaded.
        """
        try:
            import comet
        except ImportError as error:
            raise InputError(
                f"COMET is not installed here ({error}). It pins numpy < 2 and transformers < 5, "
                "so give it an environment of its own: python -m venv comet-env && "
                "comet-env/bin/pip install unbabel-comet; `slam-potsa score FILE --comet "
                f"{path_or_name} --dump FOLDER --show-commands` then writes its input and prints "
                "the comet-score commands to run there"
            ) from error
        path = Path(path_or_name)
        place = path / CHECKPOINT if path.is_dir() else path
        try:
            found = str(place) if place.is_file() else comet.download_model(path_or_name)
            model = comet.load_from_checkpoint(found)
        except Exception as error:  # COMET raises bare Exceptions, and KeyError for what it lacks
            raise InputError(
                f"COMET cannot load {path_or_name!r} ({error}); expected a model's name such as "
                f"'Unbabel/wmt22-comet-da' and a network, its folder with {CHECKPOINT} and "
                "hparams.yaml, or that checkpoint"
            ) from error
        return cls(model, path.name, batch_size)

    @property
    def signature(self) -> str:
        """The model, COMET's version, and the scale."""
        return f"model:{self.name}|scale:{SCALE}|unbabel-comet:{version('unbabel-comet')}"

    def __call__(self, predictions: Sequence[Prediction]) -> list[float]:
        """The score of each prediction. Raises InputError for those without a transcript."""
        check_sources(predictions)
        import torch

        samples = [
            {
                "src": one_line(item.transcript or ""),
                "mt": one_line(item.prediction),
                "ref": one_line(item.reference or ""),
            }
            for item in predictions
        ]
        gpus = int(torch.cuda.is_available())
        output = self.model.predict(samples, batch_size=self.batch_size, gpus=gpus)
        return [SCALE * float(value) for value in output.scores]


def installed() -> bool:
    """Whether COMET can be imported here."""
    try:
        import comet  # noqa: F401
    except ImportError:
        return False
    return True


def check_sources(predictions: Sequence[Prediction]) -> None:
    """Raise InputError unless every translation has the transcript that COMET reads."""
    bare = [item.key for item in predictions if item.transcript is None and not transcribes(item)]
    if bare:
        raise InputError(
            f"COMET reads the source, and {len(bare)} predictions have no transcript: "
            f"{some(bare)}; give the manifest its transcripts and decode again, or leave COMET out"
        )
