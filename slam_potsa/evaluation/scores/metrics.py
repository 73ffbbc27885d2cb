"""sacrebleu's metrics, set up by a convention, and the score of a corpus with its interval."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError
from slam_potsa.evaluation.codes import one_line
from slam_potsa.evaluation.scores.conventions import Convention
from slam_potsa.evaluation.scores.rows import Score


def metrics_for(target_language: str, convention: Convention) -> dict[str, Any]:
    """sacrebleu's BLEU and CHRF objects for a target language, as {"bleu": …, "chrf": …}.

    Raises InputError where the tokeniser is unknown or not installed.
    """
    from sacrebleu.metrics import CHRF

    bleu = bleu_metric(convention.tokenizer(target_language), target_language, convention.lowercase)
    chrf = CHRF(lowercase=convention.lowercase, word_order=convention.chrf_word_order)
    return {"bleu": bleu, "chrf": chrf}


def more_metrics(target_language: str, convention: Convention) -> dict[str, Any]:
    """The convention's further BLEU columns: name -> BLEU object, spBLEU among them."""
    return {
        name: bleu_metric(tokenizer, target_language, convention.lowercase)
        for name, tokenizer in convention.more_bleu.items()
    }


def bleu_metric(tokenizer: str, target_language: str, lowercase: bool) -> Any:
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
        if tokenizer in SPM_MODELS:
            raise InputError(_no_pieces(tokenizer, error)) from error
        # RuntimeError: its message for a dictionary that is not installed.
        extra = f"sacrebleu[{tokenizer.removesuffix('-mecab')}]"
        raise InputError(
            f"scoring {target_language!r} needs the tokeniser {tokenizer!r}, which is not "
            f"installed: pip install '{extra}'"
        ) from error


def _no_pieces(tokenizer: str, error: Exception) -> str:
    """What to do where sacrebleu cannot download or load a tokeniser's SentencePiece model."""
    from sacrebleu.tokenizers import tokenizer_spm

    if isinstance(error, ImportError):
        return f"the tokeniser {tokenizer!r} needs sentencepiece: pip install sentencepiece"
    url = tokenizer_spm.SPM_MODELS[tokenizer]["url"]
    place = os.path.join(tokenizer_spm.SACREBLEU_DIR, "models", os.path.basename(url))
    return (
        f"the tokeniser {tokenizer!r} (spBLEU) needs a SentencePiece model at {place}, which "
        f"sacrebleu could neither load nor download ({error}): download {url} where there is a "
        "network, save it under that name (the environment variable SACREBLEU moves the folder), "
        "or leave spBLEU out with --no-spbleu"
    )


@contextmanager
def sacrebleu_seed(seed: int) -> Iterator[None]:
    """sacrebleu reads the seed of its resampling from the environment, and nowhere else."""
    before = os.environ.get("SACREBLEU_SEED")
    os.environ["SACREBLEU_SEED"] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SACREBLEU_SEED"]
        else:
            os.environ["SACREBLEU_SEED"] = before


def texts(items: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    """(predictions, references), each on one line, so that files of lines give the same scores."""
    return [one_line(item.prediction) for item in items], [
        one_line(item.reference or "") for item in items
    ]


def corpus_score(metric: Any, items: Sequence[Prediction], bootstrap: int) -> Score:
    """The corpus score by one of sacrebleu's metrics, with its interval if `bootstrap` > 1."""
    import json

    hypotheses, references = texts(items)
    _return_plain_floats(metric)
    result = metric.corpus_score(hypotheses, [references], n_bootstrap=max(bootstrap, 1))
    signature = str(metric.get_signature())
    if bootstrap <= 1:
        return Score(result.score, signature=signature)
    # The public form of the interval. A distribution that is zero throughout is left out of it.
    details = json.loads(result.format(width=10, signature=signature, is_json=True))
    mean, half_width = details.get("confidence_mean", 0.0), details.get("confidence_var", 0.0)
    return Score(result.score, mean, half_width, signature)


def _return_plain_floats(metric: Any) -> None:
    """sacrebleu 2.6 averages resampled scores with `statistics.mean`, which fails where some are
    NumPy's float32 and some, being exactly 0, Python's float."""
    compute = metric._compute_score_from_stats

    def compute_plain(stats: Any) -> Any:
        result = compute(stats)
        result.score = float(result.score)
        return result

    metric._compute_score_from_stats = compute_plain
