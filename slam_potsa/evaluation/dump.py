"""Plain text files of each corpus, and the command that computes each printed number from them.

In the folder, for a corpus `fr`: `fr.ref`, `fr.hyp`, `fr.src` (transcripts), and where they are
asked for `fr.baseline`, `fr.blind`, `fr.norm.ref` and `fr.norm.hyp` (after Whisper's normaliser);
`commands.sh` has the commands.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation.codes import one_line, transcribes
from slam_potsa.evaluation.scores import Convention, Corpus
from slam_potsa.evaluation.scores.error_rate import normalized, unit_of
from slam_potsa.evaluation.scores.metrics import texts
from slam_potsa.evaluation.significance import SAMPLES
from slam_potsa.files import atomic_write

# jiwer's own command line drops lines of fewer than two characters, so that files no longer match.
_JIWER = (
    "import jiwer, sys; read = lambda p: open(p, encoding='utf-8').read().split('\\n')[:-1]; "
    "print(100 * jiwer.{measure}(read(sys.argv[1]), read(sys.argv[2])))"
)


@dataclass(frozen=True)
class Settings:
    """What the numbers were computed with.

    Attributes:
        convention, bootstrap, seed: as of `score`.
        comet: the COMET model, "" without one.
        baseline: the other system's predictions, empty without one.
        test, samples: of the paired test against it; None is sacrebleu's own number.
        blind: the blind control's predictions, empty without one.
    """

    convention: Convention
    bootstrap: int = 1000
    seed: int = 12345
    comet: str = ""
    baseline: Sequence[Prediction] = ()
    test: str = "bs"
    samples: int | None = None
    blind: Sequence[Prediction] = ()


def dump(folder: str | Path, found: Sequence[Corpus], settings: Settings) -> str:
    """Write the files and `commands.sh`; return the commands, a comment line before each corpus."""
    folder = Path(folder)
    lines = []
    for corpus in found:
        if corpus.kind == "mean":
            lines.append(f"# {corpus.name}: the mean of the scores of {', '.join(corpus.parts)}")
            continue
        lines.append(f"# {corpus.name}")
        lines += _corpus(folder / _slug(corpus.name), corpus, settings)
    text = "\n".join(lines)
    atomic_write(folder / "commands.sh", text + "\n")
    return text


def _corpus(stem: Path, corpus: Corpus, settings: Settings) -> list[str]:
    convention, items = settings.convention, corpus.items
    hypotheses, references = texts(items)
    hyp, ref = _write(stem, "hyp", hypotheses), _write(stem, "ref", references)
    both = ["bleu", "chrf"]
    tokenizer = convention.tokenizer(corpus.target_language)
    commands = [_sacrebleu(ref, [hyp], both, tokenizer, settings, _confidence(settings))]
    commands += [
        _sacrebleu(ref, [hyp], ["bleu"], name, settings, _confidence(settings))
        for name in convention.more_bleu.values()
    ]
    if settings.baseline:
        old = _write(stem, "baseline", texts(_partners(items, settings.baseline))[0])
        samples = str(settings.samples or SAMPLES[settings.test])
        paired = [f"--paired-{settings.test}", f"--paired-{settings.test}-n", samples]
        # Not as JSON: sacrebleu 2.6.0 fails to write its own NumPy numbers of a paired test there.
        paired += ["-f", "text"]
        commands.append(_sacrebleu(ref, [old, hyp], both, tokenizer, settings, paired))
    if settings.blind:
        guessed = _write(stem, "blind", texts(_partners(items, settings.blind))[0])
        commands.append(_sacrebleu(ref, [guessed], ["bleu"], tokenizer, settings, []))
    return commands + _comet(stem, items, settings.comet) + _error_rate(stem, items, convention)


def _confidence(settings: Settings) -> list[str]:
    if settings.bootstrap <= 1:
        return []
    return ["--confidence", "--confidence-n", str(settings.bootstrap)]


def _sacrebleu(
    ref: Path,
    inputs: Sequence[Path],
    metrics: Sequence[str],
    tokenizer: str,
    settings: Settings,
    more: Sequence[str],
) -> str:
    convention = settings.convention
    arguments = ["python", "-m", "sacrebleu", str(ref), "-i", *map(str, inputs), "-m", *metrics]
    arguments += ["--tokenize", tokenizer]
    arguments += ["--lowercase"] if convention.lowercase else []
    if "chrf" in metrics:
        arguments += ["--chrf-lowercase"] if convention.lowercase else []
        order = convention.chrf_word_order
        arguments += ["--chrf-word-order", str(order)] if order else []
    arguments += ["--width", "4", *more]
    return f"SACREBLEU_SEED={settings.seed} {shlex.join(arguments)}"


def _comet(stem: Path, items: Sequence[Prediction], model: str) -> list[str]:
    if not model or any(transcribes(item) or item.transcript is None for item in items):
        return []
    src = _write(stem, "src", [one_line(item.transcript or "") for item in items])
    files = ["-s", src, "-t", stem.with_name(f"{stem.name}.hyp")]
    files += ["-r", stem.with_name(f"{stem.name}.ref")]
    return [shlex.join(map(str, ["comet-score", *files, "--model", model, "--only_system"]))]


def _error_rate(stem: Path, items: Sequence[Prediction], convention: Convention) -> list[str]:
    unit = unit_of(items, convention.error_rate) if convention.error_rate else None
    if convention.error_rate is None or unit is None:
        return []
    lines = normalized(items, convention.error_rate)
    ref = _write(stem, "norm.ref", lines.references)
    hyp = _write(stem, "norm.hyp", lines.hypotheses)
    code = _JIWER.format(measure=unit.lower())
    return [shlex.join(["python", "-c", code, str(ref), str(hyp)])]


def _partners(items: Sequence[Prediction], others: Sequence[Prediction]) -> list[Prediction]:
    """The other file's predictions of the same utterances, in the order of `items`."""
    found = {(item.key, item.target_language): item for item in others}
    return [found[item.key, item.target_language] for item in items]


def _write(stem: Path, ending: str, lines: Sequence[str]) -> Path:
    path = stem.with_name(f"{stem.name}.{ending}")
    atomic_write(path, "".join(f"{line}\n" for line in lines))
    return path


def _slug(name: str) -> str:
    """ "seen, pooled" -> "seen-pooled", "fr→zh" -> "fr-zh"."""
    return re.sub(r"[^\w-]+", "-", name.replace("→", "-")).strip("-")
