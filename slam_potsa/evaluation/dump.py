"""Plain text files of each corpus, and the command that computes each printed number from them.

In the folder, for a corpus `fr`: `fr.ref`, `fr.hyp`, `fr.src` (transcripts), and where they are
asked for `fr.baseline`, `fr.blind`, `fr.norm.ref` and `fr.norm.hyp` (after Whisper's normaliser);
`commands.sh` has the commands.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation.compare import SAMPLES
from slam_potsa.evaluation.corpora import corpora
from slam_potsa.evaluation.metrics import normalized, texts
from slam_potsa.evaluation.presets import Convention, transcribes
from slam_potsa.files import atomic_write
from slam_potsa.text import one_line

# jiwer's own command line drops lines of fewer than two characters, so that files no longer match.
_JIWER = (
    "import jiwer, sys; read = lambda p: open(p, encoding='utf-8').read().split('\\n')[:-1]; "
    "print(100 * jiwer.{measure}(read(sys.argv[1]), read(sys.argv[2])))"
)


def dump(
    folder: str | Path,
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
    comet: str = "",
) -> str:
    """Write the files and `commands.sh`; return the commands, a comment line before each corpus.

    The arguments are those of `score`, but for `comet`: the model's name; "" leaves COMET out.
    """
    confidence = ["--confidence", "--confidence-n", str(bootstrap)] if bootstrap > 1 else []
    # Not as JSON: sacrebleu 2.6.0 fails to write its own NumPy numbers of a paired test there.
    paired = [f"--paired-{test}", f"--paired-{test}-n", str(samples or SAMPLES[test]), "-f", "text"]
    lines = []
    for corpus in corpora(predictions, seen, zero_shot):
        if corpus.kind == "mean":
            lines.append(f"# {corpus.name}: the mean of the scores of {', '.join(corpus.parts)}")
            continue
        # "seen, pooled" -> "seen-pooled", "fr→zh" -> "fr-zh"
        stem = Path(folder) / re.sub(r"[^\w-]+", "-", corpus.name.replace("→", "-")).strip("-")
        hypotheses, references = texts(corpus.items)
        hyp, ref = _write(stem, "hyp", hypotheses), _write(stem, "ref", references)
        sacrebleu = _sacrebleu(ref, convention)
        tokenizer, both = convention.tokenizer(corpus.items[0].target_language), ["bleu", "chrf"]
        lines += [f"# {corpus.name}", sacrebleu([hyp], tokenizer, both, confidence)]
        for other in convention.more_bleu.values():
            lines.append(sacrebleu([hyp], other, ["bleu"], confidence))
        if baseline:
            old = _write(stem, "baseline", _of_others(baseline, corpus.items))
            lines.append(sacrebleu([old, hyp], tokenizer, both, paired))
        if blind:
            exchanged = _write(stem, "blind", _of_others(blind, corpus.items))
            lines.append(sacrebleu([exchanged], tokenizer, ["bleu"], []))
        lines += _comet_command(stem, corpus.items, comet)
        lines += _error_rate_command(stem, corpus.items, convention)
    text = "\n".join(lines)
    atomic_write(Path(folder) / "commands.sh", text + "\n")
    return text


def _write(stem: Path, ending: str, lines: Sequence[str]) -> str:
    path = stem.with_name(f"{stem.name}.{ending}")
    atomic_write(path, "".join(f"{line}\n" for line in lines))
    return str(path)


def _of_others(others: Sequence[Prediction], items: Sequence[Prediction]) -> list[str]:
    """What another system wrote of the same utterances."""
    found = {(item.key, item.target_language): item for item in others}
    return texts([found[item.key, item.target_language] for item in items])[0]


def _sacrebleu(reference: str, convention: Convention) -> Callable[..., str]:
    """The command line against one file of references, for what is to be scored and how."""
    lowercase = ["--lowercase"] if convention.lowercase else []
    chrf = ["--chrf-lowercase"] if convention.lowercase else []
    if convention.chrf_word_order:
        chrf += ["--chrf-word-order", str(convention.chrf_word_order)]

    def command(
        inputs: Sequence[str], tokenizer: str, metrics: Sequence[str], more: Sequence[str]
    ) -> str:
        words = ["python", "-m", "sacrebleu", reference, "-i", *inputs, "-m", *metrics]
        words += ["--tokenize", tokenizer, *lowercase, *(chrf if "chrf" in metrics else [])]
        seed = os.environ.get("SACREBLEU_SEED", "12345")
        return f"SACREBLEU_SEED={seed} {shlex.join([*words, '--width', '4', *more])}"

    return command


def _comet_command(stem: Path, items: Sequence[Prediction], model: str) -> Iterator[str]:
    if model and not any(transcribes(item) or item.transcript is None for item in items):
        src = _write(stem, "src", [one_line(item.transcript or "") for item in items])
        words = ["comet-score", "-s", src, "-t", f"{stem}.hyp", "-r", f"{stem}.ref"]
        yield shlex.join([*words, "--model", model, "--only_system"])


def _error_rate_command(
    stem: Path, items: Sequence[Prediction], convention: Convention
) -> Iterator[str]:
    lines = normalized(items, convention)
    if lines:
        ref = _write(stem, "norm.ref", lines.references)
        hyp = _write(stem, "norm.hyp", lines.hypotheses)
        yield shlex.join(["python", "-c", _JIWER.format(measure=lines.unit.lower()), ref, hyp])
