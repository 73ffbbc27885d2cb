"""The measures of one corpus: sacrebleu's BLEU and chrF, jiwer's WER and CER, COMET.

`unbabel-comet` 2.2.7 pins numpy < 2, huggingface-hub < 1 and transformers < 5, which this package's
tested versions do not fit, so it is no dependency. Where it is not installed,
`score --comet MODEL --dump FOLDER --show-commands` prints the `comet-score` commands for an
environment of its own (they compute in half precision, this module does not).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError
from slam_potsa.evaluation.presets import Convention, ErrorRate, primary_language, transcribes
from slam_potsa.text import one_line, some


@dataclass(frozen=True)
class Score:
    """A corpus score, with the 95 % interval of its bootstrap distribution where there is one.

    The interval is sacrebleu's: bootstrap mean ± half the distance of the 2.5 % and 97.5 %
    quantiles. It is centred on the bootstrap mean, which small corpora shift from `value`, and can
    leave the scale there, though no resample does.
    """

    value: float
    low: float | None = None
    high: float | None = None
    signature: str = ""

    @property
    def half_width(self) -> float | None:
        return None if self.low is None else (self.high - self.low) / 2

    def interval_text(self) -> str:
        """ "7.1 – 9.3", or "" without an interval; cut to 0 … 100, where BLEU and chrF end."""
        return "" if self.low is None else f"{max(0.0, self.low):.1f} – {min(self.high, 100.0):.1f}"


def texts(items: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    """(predictions, references), each on one line, so that files of lines give the same scores."""
    predictions = [one_line(item.prediction) for item in items]
    return predictions, [one_line(item.reference or "") for item in items]


# -- BLEU and chrF ---------------------------------------------------------------------------------


def metrics_for(target_language: str, convention: Convention) -> dict[str, Any]:
    """sacrebleu's objects by the name of their column: BLEU, chrF or chrF++, and further BLEUs.

    Raises InputError where a tokeniser is unknown or not installed.
    """
    from sacrebleu.metrics import CHRF

    lower, order = convention.lowercase, convention.chrf_word_order
    found = {"BLEU": _bleu(convention.tokenizer(target_language), target_language, lower)}
    found[convention.chrf_name] = CHRF(lowercase=lower, word_order=order)
    for name, tokenizer in convention.more_bleu.items():
        found[name] = _bleu(tokenizer, target_language, lower)
    return found


def corpus_score(metric: Any, items: Sequence[Prediction], bootstrap: int) -> Score:
    """The corpus score by one of sacrebleu's metrics, with its interval if `bootstrap` > 1."""
    hypotheses, references = texts(items)
    _return_plain_floats(metric)
    result = metric.corpus_score(hypotheses, [references], n_bootstrap=max(bootstrap, 1))
    signature = str(metric.get_signature())
    if bootstrap <= 1:
        return Score(result.score, signature=signature)
    # The public form of the interval. A distribution that is zero throughout is left out of it.
    details = json.loads(result.format(width=10, signature=signature, is_json=True))
    mean, half_width = details.get("confidence_mean", 0.0), details.get("confidence_var", 0.0)
    return Score(result.score, mean - half_width, mean + half_width, signature)


def _return_plain_floats(metric: Any) -> None:
    """sacrebleu 2.6 averages resampled scores with `statistics.mean`, which fails where some are
    NumPy's float32 and some, being exactly 0, Python's float."""
    compute = metric._compute_score_from_stats

    def compute_plain(stats: Any) -> Any:
        result = compute(stats)
        result.score = float(result.score)
        return result

    metric._compute_score_from_stats = compute_plain


def _bleu(tokenizer: str, target_language: str, lowercase: bool) -> Any:
    """sacrebleu's BLEU with this tokeniser; InputError says how to get one that is not there."""
    from sacrebleu.metrics import BLEU
    from sacrebleu.tokenizers.tokenizer_spm import SACREBLEU_DIR, SPM_MODELS

    try:
        return BLEU(lowercase=lowercase, tokenize=tokenizer)
    except KeyError:
        why, remedy = "unknown to sacrebleu", f"expected one of {', '.join(BLEU.TOKENIZERS)}"
    except (RuntimeError, OSError, ImportError) as error:
        # RuntimeError: sacrebleu's for a dictionary that is not installed.
        why, remedy = str(error), f"pip install 'sacrebleu[{tokenizer.removesuffix('-mecab')}]'"
        if tokenizer in SPM_MODELS:  # of SentencePiece, which sacrebleu downloads
            url = SPM_MODELS[tokenizer]["url"]
            place = os.path.join(SACREBLEU_DIR, "models", os.path.basename(url))
            remedy = (
                f"pip install sentencepiece, download {url} where there is a network, save it as "
                f"{place} (the environment variable SACREBLEU moves the folder), or leave spBLEU "
                "out: --no-spbleu"
            )
    raise InputError(f"tokeniser {tokenizer!r} for {target_language!r}: {why}; {remedy}")


# -- WER and CER -----------------------------------------------------------------------------------


class Normalized(NamedTuple):
    """Lines that jiwer compares; `signature` says how they came about, how many were left out."""

    unit: str  # "WER" or "CER"
    references: list[str]
    hypotheses: list[str]
    signature: str


def error_rate(items: Sequence[Prediction], convention: Convention) -> dict[str, Score]:
    """{"WER": …} or {"CER": …} in per cent of a corpus that can have one; {} of any other."""
    lines = normalized(items, convention)
    if lines is None:
        return {}
    import jiwer

    measure = jiwer.cer if lines.unit == "CER" else jiwer.wer
    rate = 100 * measure(lines.references, lines.hypotheses)
    return {lines.unit: Score(rate, signature=lines.signature)}


def normalized(items: Sequence[Prediction], convention: Convention) -> Normalized | None:
    """A corpus after Whisper's normaliser; None where it has no error rate.

    Two kinds of rows have one: those that transcribe, and those of chain-of-thought decoding, which
    say what they heard (CoT-ST's and LLM-SRT's scripts score that half so). References that the
    normaliser empties (a lone "…") are left out, as CoT-ST's script does, and a row that does not
    tell what was heard counts as nothing heard. A corpus that mixes WER and CER has neither.
    """
    rate = convention.error_rate
    heard = any(item.heard is not None for item in items)
    told = all(transcribes(item) or (heard and item.transcript is not None) for item in items)
    languages = {primary_language(item.language) for item in items}
    units = {rate.unit(language) for language in languages} if rate else set()
    if not told or len(units) != 1:
        return None
    unit, lines, silent = units.pop(), [], 0
    between = "" if unit == "CER" and not rate.count_spaces else " "
    for item in items:
        said, written = item.transcript, item.heard
        if transcribes(item):
            said, written = item.reference, item.prediction
        silent += written is None
        english = rate.english and primary_language(item.language) == "en"
        normalize = _whisper_normalizer(english, rate.keep_marks)
        pair = [between.join(normalize(one_line(t or "")).split()) for t in (said, written)]
        lines.append(pair)
    kept = [pair for pair in lines if pair[0]]
    signature = _signature(languages, unit, rate)
    left_out = len(lines) - len(kept)
    signature += f"|empty references left out:{left_out}" if left_out else ""
    signature += f"|not told:{silent}" if silent else ""
    references, hypotheses = ([pair[side] for pair in kept] for side in (0, 1))
    return Normalized(unit, references, hypotheses, signature) if kept else None


def check_error_rate_installed() -> None:
    """Raise InputError unless what WER and CER need is installed."""
    missing = [name for name in ("jiwer", "whisper_normalizer") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"WER and CER need {' and '.join(missing)}: pip install {' '.join(missing)}, or leave "
            "them out with --no-wer"
        )


def _signature(languages: set[str], unit: str, rate: ErrorRate) -> str:
    normalizers = sorted({rate.english and language == "en" for language in languages})
    names = "+".join(f"whisper-{'english' if english else 'basic'}" for english in normalizers)
    parts = [f"norm:{names} {version('whisper_normalizer')}"]
    if False in normalizers:
        parts.append(f"marks:{'kept' if rate.keep_marks else 'removed'}")
    if unit == "CER":
        parts.append(f"spaces:{'counted' if rate.count_spaces else 'deleted'}")
    return "|".join([*parts, f"jiwer:{version('jiwer')}"])


@lru_cache(maxsize=3)
def _whisper_normalizer(english: bool, keep_marks: bool) -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer() if english else BasicTextNormalizer(preserve_marks=keep_marks)


# -- COMET -----------------------------------------------------------------------------------------

COMET_SCALE = 100  # its own is about 0 to 1; LLM-SRT and others print it times 100
CHECKPOINT = Path("checkpoints/model.ckpt")  # in the folder that COMET downloads


@dataclass(frozen=True)
class Comet:
    """A learnt score of a translation by its source, its reference and itself (Rei et al. 2022).

    Called with predictions, it returns the score of each times 100. `model` is what COMET's
    `load_from_checkpoint` returns.
    """

    model: Any
    name: str

    @property
    def signature(self) -> str:
        return f"model:{self.name}|scale:{COMET_SCALE}|unbabel-comet:{version('unbabel-comet')}"

    def __call__(self, predictions: Sequence[Prediction]) -> list[float]:
        import torch

        check_sources(predictions)
        samples = [
            {"src": one_line(item.transcript or ""), "mt": written, "ref": reference}
            for item, written, reference in zip(predictions, *texts(predictions), strict=True)
        ]
        gpus = int(torch.cuda.is_available())
        output = self.model.predict(samples, batch_size=16, gpus=gpus)
        return [COMET_SCALE * float(value) for value in output.scores]


def load_comet(path_or_name: str) -> Comet:
    """Load a model from a checkpoint, from the folder COMET keeps it in, or by its name.

    A checkpoint is loaded by COMET, through pickle: take it from a source you trust.
    Raises InputError: COMET is not installed, or cannot find or download the model.
    """
    if not find_spec("comet"):
        raise InputError(
            "COMET is not installed here. It pins numpy < 2 and transformers < 5, so give it an "
            "environment of its own: python -m venv comet-env && comet-env/bin/pip install "
            f"unbabel-comet; `slam-potsa score FILE --comet {path_or_name} --dump FOLDER "
            "--show-commands` prints the commands to run there"
        )
    import comet

    path = Path(path_or_name)
    place = path / CHECKPOINT if path.is_dir() else path
    try:
        found = str(place) if place.is_file() else comet.download_model(path_or_name)
        return Comet(comet.load_from_checkpoint(found), path.name)
    except Exception as error:  # COMET raises bare Exceptions, and KeyError for what it lacks
        raise InputError(
            f"COMET cannot load {path_or_name!r} ({error}); expected a model's name such as "
            f"'Unbabel/wmt22-comet-da' and a network, its folder with {CHECKPOINT} and "
            "hparams.yaml, or that checkpoint"
        ) from error


def check_sources(predictions: Sequence[Prediction]) -> None:
    """Raise InputError unless every translation has the transcript that COMET reads."""
    bare = [item.key for item in predictions if item.transcript is None and not transcribes(item)]
    if bare:
        raise InputError(
            f"COMET reads the source, and {len(bare)} predictions have no transcript: "
            f"{some(bare)}; give the manifest its transcripts and decode again, or leave COMET out"
        )
