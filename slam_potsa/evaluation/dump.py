"""Plain text files of each corpus, for other programs: sacrebleu's command line, COMET.

In the folder, for a corpus `fr`: `fr.ref`, `fr.hyp`, and `fr.src` (transcripts, where all have
one). The commands are in docs/evaluation.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation.compare import corpora
from slam_potsa.evaluation.text_metrics import texts
from slam_potsa.files import atomic_write
from slam_potsa.text import one_line


def dump(
    folder: Path,
    predictions: Sequence[Prediction],
    seen: Sequence[str] = (),
    zero_shot: Sequence[str] = (),
) -> None:
    """Write the files; the arguments are those of `score`."""
    for corpus in corpora(predictions, seen, zero_shot):
        if corpus.kind == "mean":
            continue
        files = dict(zip(("hyp", "ref"), texts(corpus.items), strict=True))
        sources = [item.transcript for item in corpus.items]
        if None not in sources:
            files["src"] = list(map(one_line, sources))
        # "seen, pooled" -> "seen-pooled", "fr→zh" -> "fr-zh"
        stem = re.sub(r"[^\w-]+", "-", corpus.name.replace("→", "-")).strip("-")
        for ending, lines in files.items():
            atomic_write(folder / f"{stem}.{ending}", "".join(f"{line}\n" for line in lines))
