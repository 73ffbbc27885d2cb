"""The model card of an exported run: card.md.j2, filled with what lies in the run's directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jinja2

from slam_potsa.config import PotsaConfig, flat
from slam_potsa.data.manifest import manifest_hash, read_manifest
from slam_potsa.engine.decode import load_run
from slam_potsa.engine.run_directory import best_checkpoint, file_hash, read_config
from slam_potsa.engine.share import CARD, PLACES, is_local, languages
from slam_potsa.evaluation.report import Request, collect
from slam_potsa.files import atomic_write
from slam_potsa.text import table


def write_card(run: Path, out: Path, name: str, license: str = "", data: str = "") -> list[str]:
    """Write the card of `run`, exported to `out`; returns what is left out of it, and why.

    Args:
        name: the hub's, or the folder's.
        license: of the trained weights, an SPDX name; empty: the card says that it is not stated.
        data: what they were trained on and its licence, in the reader's words.
    """
    found, weights = collect([run], Request(samples=0)), file_hash(best_checkpoint(run))
    made = {t: found.runs[0].records[t].made_from for t in found.runs[0].scored}
    others = [t for t in made if made[t].get("the model's weights") != weights]
    template = Path(__file__).with_name("card.md.j2").read_text(encoding="utf-8")
    how = {"trim_blocks": True, "keep_trailing_newline": True, "undefined": jinja2.StrictUndefined}
    page = jinja2.Template(template, **how).render(
        name=name,
        license=license,
        data=data,
        config=load_run(out),
        local=is_local(load_run(out)),
        known=languages(out),
        amounts=_amounts(read_config(run).dataset_config.train_data_path),
        scores={t: s.text() for t, s in found.runs[0].scored.items() if t not in others},
        trained=dict(_chosen(read_config(run))),
    )
    atomic_write(out / CARD, page)
    return [*found.left_out, *(f"{test}: decoded with other weights" for test in others)]


def _amounts(manifest: str) -> str:
    """Utterances and hours of training by language."""
    spoken: dict[str, list[float]] = {}
    for row in read_manifest(manifest):
        spoken.setdefault(row.language, []).append((row.duration or 0) / 3600)
    body = [[code, len(spoken[code]), f"{sum(spoken[code]):.2f}"] for code in sorted(spoken)]
    text = table(["spoken", "utterances", "hours"], body)
    return f"{text}\n{Path(manifest).name}: sha256 {manifest_hash([manifest])}"


def _chosen(config: PotsaConfig) -> Iterator[tuple[str, object]]:
    """Options of the training that are not the defaults; none that names a place."""
    usual = flat(PotsaConfig())
    for name, value in flat(config, affects=["weights", "outcome"]).items():
        is_place = isinstance(value, str) and "/" in value or name.endswith(PLACES)
        if not is_place and value != usual.get(name):
            yield name, value
