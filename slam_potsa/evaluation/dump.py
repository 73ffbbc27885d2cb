"""Plain text files of each corpus, and the command that computes each printed number from them.

In the folder, for a corpus `fr`: `fr.ref`, `fr.hyp`, `fr.src` (transcripts), and where they are
asked for `fr.baseline`, `fr.blind`, `fr.norm.ref` and `fr.norm.hyp` (after Whisper's normaliser);
`commands.sh` has the commands.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation.compare import SAMPLES
from slam_potsa.evaluation.corpus_score import texts
from slam_potsa.evaluation.error_rate import normalized, unit_of
from slam_potsa.evaluation.file_scores import PredictionFile, ScoreRequest
from slam_potsa.evaluation.presets import transcribes
from slam_potsa.evaluation.scores import Corpus, corpora
from slam_potsa.files import atomic_write
from slam_potsa.text import one_line

# jiwer's own command line drops lines of fewer than two characters, so that files no longer match.
_JIWER = (
    "import jiwer, sys; read = lambda p: open(p, encoding='utf-8').read().split('\\n')[:-1]; "
    "print(100 * jiwer.{measure}(read(sys.argv[1]), read(sys.argv[2])))"
)


def dump(folder: str | Path, file: PredictionFile, request: ScoreRequest, comet: str = "") -> str:
    """Write the files and `commands.sh`; return the commands, a comment line before each corpus.

    `comet` names the model; "" leaves COMET out.
    """
    folder, lines = Path(folder), []
    for corpus in corpora(file.predictions, request.seen, request.zero_shot):
        if corpus.kind == "mean":
            lines.append(f"# {corpus.name}: the mean of the scores of {', '.join(corpus.parts)}")
            continue
        files = _Files(folder / _file_name(corpus.name), corpus)
        lines.append(f"# {corpus.name}")
        lines += _sacrebleu_commands(files, file, request)
        lines += _comet_command(files, comet) + _error_rate_command(files, request)
    text = "\n".join(lines)
    atomic_write(folder / "commands.sh", text + "\n")
    return text


@dataclass(frozen=True)
class _Files:
    """The text files of one corpus, which share a stem."""

    stem: Path
    corpus: Corpus

    def write(self, ending: str, lines: Sequence[str]) -> str:
        path = self.stem.with_name(f"{self.stem.name}.{ending}")
        atomic_write(path, "".join(f"{line}\n" for line in lines))
        return str(path)

    def write_other(self, ending: str, others: Sequence[Prediction]) -> str:
        """What another system wrote of the same utterances."""
        found = {(item.key, item.target_language): item for item in others}
        items = [found[item.key, item.target_language] for item in self.corpus.items]
        return self.write(ending, texts(items)[0])


def _sacrebleu_commands(files: _Files, file: PredictionFile, request: ScoreRequest) -> list[str]:
    """The scores, each further BLEU, the paired test, and the blind control."""
    convention, (hypotheses, references) = request.convention, texts(files.corpus.items)
    hyp, ref = files.write("hyp", hypotheses), files.write("ref", references)
    tokenizer = convention.tokenizer(files.corpus.target_language)
    lower = ["--lowercase"] if convention.lowercase else []
    chrf = ["--chrf-lowercase"] if convention.lowercase else []
    if convention.chrf_word_order:
        chrf += ["--chrf-word-order", str(convention.chrf_word_order)]

    def command(inputs: Sequence[str], tokenizer: str, metrics: Sequence[str], more) -> str:
        words = ["python", "-m", "sacrebleu", ref, "-i", *inputs, "-m", *metrics]
        words += ["--tokenize", tokenizer, *lower, *(chrf if "chrf" in metrics else [])]
        seed = os.environ.get("SACREBLEU_SEED", "12345")
        return f"SACREBLEU_SEED={seed} {shlex.join([*words, '--width', '4', *more])}"

    both, confidence = ["bleu", "chrf"], ["--confidence", "--confidence-n", str(request.bootstrap)]
    confidence = confidence if request.bootstrap > 1 else []
    commands = [command([hyp], tokenizer, both, confidence)]
    commands += [command([hyp], t, ["bleu"], confidence) for t in convention.more_bleu.values()]
    if file.baseline:
        samples = str(request.samples or SAMPLES[request.test])
        # Not as JSON: sacrebleu 2.6.0 fails to write its own NumPy numbers of a paired test there.
        paired = [f"--paired-{request.test}", f"--paired-{request.test}-n", samples, "-f", "text"]
        old = files.write_other("baseline", file.baseline)
        commands.append(command([old, hyp], tokenizer, both, paired))
    if file.blind:
        blind = files.write_other("blind", file.blind)
        commands.append(command([blind], tokenizer, ["bleu"], []))
    return commands


def _comet_command(files: _Files, model: str) -> list[str]:
    items = files.corpus.items
    if not model or any(transcribes(item) or item.transcript is None for item in items):
        return []
    src = files.write("src", [one_line(item.transcript or "") for item in items])
    stem = src.removesuffix("src")
    words = ["comet-score", "-s", src, "-t", f"{stem}hyp", "-r", f"{stem}ref", "--model", model]
    return [shlex.join([*words, "--only_system"])]


def _error_rate_command(files: _Files, request: ScoreRequest) -> list[str]:
    items, convention = files.corpus.items, request.convention.error_rate
    unit = unit_of(items, convention) if convention else None
    if convention is None or unit is None:
        return []
    lines = normalized(items, convention)
    ref, hyp = files.write("norm.ref", lines.references), files.write("norm.hyp", lines.hypotheses)
    return [shlex.join(["python", "-c", _JIWER.format(measure=unit.lower()), ref, hyp])]


def _file_name(corpus: str) -> str:
    """ "seen, pooled" -> "seen-pooled", "fr→zh" -> "fr-zh"."""
    return re.sub(r"[^\w-]+", "-", corpus.replace("→", "-")).strip("-")
