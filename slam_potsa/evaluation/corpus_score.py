"""The score of one corpus by sacrebleu's BLEU or chrF, with its interval and signature."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError
from slam_potsa.evaluation.presets import Convention
from slam_potsa.text import one_line


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
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def interval_text(self) -> str:
        """ "7.1 – 9.3", or "" without an interval; cut to 0 … 100, where BLEU and chrF end."""
        if self.low is None or self.high is None:
            return ""
        low, high = (min(max(0.0, end), 100.0) for end in (self.low, self.high))
        return f"{low:.1f} – {high:.1f}"


def metrics_for(target_language: str, convention: Convention) -> dict[str, Any]:
    """sacrebleu's objects by the name of their column: BLEU, chrF or chrF++, and further BLEUs.

    Raises InputError where a tokeniser is unknown or not installed.
    """
    from sacrebleu.metrics import CHRF

    lowercase = convention.lowercase
    more = {
        name: _bleu(tokenizer, target_language, lowercase)
        for name, tokenizer in convention.more_bleu.items()
    }
    return {
        "BLEU": _bleu(convention.tokenizer(target_language), target_language, lowercase),
        convention.chrf_name: CHRF(lowercase=lowercase, word_order=convention.chrf_word_order),
        **more,
    }


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


def texts(items: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    """(predictions, references), each on one line, so that files of lines give the same scores."""
    predictions = [one_line(item.prediction) for item in items]
    return predictions, [one_line(item.reference or "") for item in items]


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
    from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS

    try:
        return BLEU(lowercase=lowercase, tokenize=tokenizer)
    except KeyError:
        raise InputError(
            f"tokeniser {tokenizer!r} for {target_language!r} is unknown to sacrebleu; it has "
            f"{', '.join(BLEU.TOKENIZERS)}"
        ) from None
    except (RuntimeError, OSError, ImportError) as error:
        # RuntimeError: sacrebleu's for a dictionary that is not installed.
        remedy = f"pip install 'sacrebleu[{tokenizer.removesuffix('-mecab')}]'"
        if tokenizer in SPM_MODELS:
            remedy = _how_to_get_pieces(SPM_MODELS[tokenizer]["url"])
        raise InputError(
            f"scoring {target_language!r} needs the tokeniser {tokenizer!r}, which cannot be "
            f"loaded ({error}): {remedy}"
        ) from error


def _how_to_get_pieces(url: str) -> str:
    """Where sacrebleu neither loads nor downloads a SentencePiece model, that of spBLEU."""
    from sacrebleu.tokenizers.tokenizer_spm import SACREBLEU_DIR

    place = os.path.join(SACREBLEU_DIR, "models", os.path.basename(url))
    return (
        f"pip install sentencepiece, download {url} where there is a network, save it as {place} "
        "(the environment variable SACREBLEU moves the folder), or leave spBLEU out: --no-spbleu"
    )
