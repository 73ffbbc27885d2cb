"""Plain text files of each corpus, and the command that computes each number from them.

In the folder, for a corpus `fr`: `fr.ref`, `fr.hyp`, `fr.src` (transcripts, where all have one),
and where there are such `fr.baseline` and `fr.blind`; `commands.sh` has the commands. COMET's are
for an environment of its own: `unbabel-comet` 2.2.7 pins numpy < 2 and transformers < 5, which this
package's tested versions do not fit.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation.compare import SAMPLES, corpora
from slam_potsa.evaluation.presets import Convention, transcribes
from slam_potsa.evaluation.text_metrics import texts
from slam_potsa.files import atomic_write
from slam_potsa.text import one_line

COMET = "Unbabel/wmt22-comet-da"


def dump(
    folder: Path,
    predictions: Sequence[Prediction],
    *,
    convention: Convention,
    seen: Sequence[str] = (),
    zero_shot: Sequence[str] = (),
    bootstrap: int = 1000,
    baseline: Sequence[Prediction] = (),
    blind: Sequence[Prediction] = (),
    test: str = "bs",
    samples: int | None = None,
) -> None:
    """Write the files and `commands.sh`, a comment before each corpus; arguments as of `score`."""
    confidence = ["--confidence", "--confidence-n", str(bootstrap)] if bootstrap > 1 else []
    # Not as JSON: sacrebleu 2.6.0 fails to write its own NumPy numbers of a paired test there.
    paired = [f"--paired-{test}", f"--paired-{test}-n", str(samples or SAMPLES[test]), "-f", "text"]
    lines: list[str] = []
    for corpus in corpora(predictions, seen, zero_shot):
        items = corpus.items
        if corpus.kind == "mean":
            lines.append(f"# {corpus.name}: the mean of the scores of {', '.join(corpus.parts)}")
            continue
        # "seen, pooled" -> "seen-pooled", "fr→zh" -> "fr-zh"
        stem = folder / re.sub(r"[^\w-]+", "-", corpus.name.replace("→", "-")).strip("-")
        hypotheses, references = texts(items)
        hyp, ref = _write(stem, "hyp", hypotheses), _write(stem, "ref", references)
        own, both = convention.tokenizer(items[0].target_language), ["bleu", "chrf"]
        runs = [([hyp], own, both, confidence)]
        runs += [([hyp], other, ["bleu"], confidence) for other in convention.more_bleu.values()]
        if baseline:
            old = _write(stem, "baseline", _of_others(baseline, items))
            runs.append(([old, hyp], own, both, paired))
        if blind:
            runs.append(([_write(stem, "blind", _of_others(blind, items))], own, ["bleu"], []))
        lines += [f"# {corpus.name}", *(_sacrebleu(convention, ref, *run) for run in runs)]
        if not any(transcribes(item) or item.transcript is None for item in items):
            src = _write(stem, "src", [one_line(item.transcript or "") for item in items])
            words = ["comet-score", "-s", src, "-t", hyp, "-r", ref, "--model", COMET]
            lines.append(shlex.join([*words, "--only_system"]))
    atomic_write(folder / "commands.sh", "".join(f"{line}\n" for line in lines))


def _write(stem: Path, ending: str, lines: Sequence[str]) -> str:
    path = stem.with_name(f"{stem.name}.{ending}")
    atomic_write(path, "".join(f"{line}\n" for line in lines))
    return str(path)


def _of_others(others: Sequence[Prediction], items: Sequence[Prediction]) -> list[str]:
    """What another system wrote of the same utterances."""
    found = {(item.key, item.target_language): item for item in others}
    return texts([found[item.key, item.target_language] for item in items])[0]


def _sacrebleu(
    convention: Convention,
    reference: str,
    inputs: Sequence[str],
    tokenizer: str,
    metrics: Sequence[str],
    more: Sequence[str],
) -> str:
    words = ["python", "-m", "sacrebleu", reference, "-i", *inputs, "-m", *metrics]
    words += ["--tokenize", tokenizer, *(["--lowercase"] if convention.lowercase else [])]
    if "chrf" in metrics:
        words += ["--chrf-lowercase"] if convention.lowercase else []
        words += ["--chrf-word-order", str(convention.chrf_word_order)]
    seed = os.environ.get("SACREBLEU_SEED", "12345")
    return f"SACREBLEU_SEED={seed} {shlex.join([*words, '--width', '4', *more])}"
