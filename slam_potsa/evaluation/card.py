"""The model card of an exported run: card.md.j2, filled with what lies in the run's directory."""

from __future__ import annotations

from pathlib import Path

import jinja2

from slam_potsa.config import PotsaConfig, flat
from slam_potsa.data.manifest import manifest_hash, read_manifest
from slam_potsa.engine.decode import load_run
from slam_potsa.engine.run_directory import best_checkpoint, file_hash, read_config
from slam_potsa.engine.share import BASES, CARD, languages
from slam_potsa.evaluation.report.collect import Request, collect
from slam_potsa.files import atomic_write


def write_card(run: Path, out: Path, name: str, license: str = "", data: str = "") -> list[str]:
    """Write the card of `run`, exported to `out`; returns the frozen models that only lie here.

    Args:
        name: the hub's, or the folder's.
        license: of the trained weights, an SPDX name; empty: the card says that it is not stated.
        data: what they were trained on and its licence, in the reader's words.

    Scores are those of tests that were decoded with these very weights.
    """
    (found,), weights = collect([run], Request(samples=0)).runs, file_hash(best_checkpoint(run))
    made = {test: found.records[test].made_from.get("the model's weights") for test in found.scored}
    shared, config, usual = load_run(out), read_config(run), flat(PotsaConfig())
    manifest = config.dataset_config.train_data_path
    trained = flat(config, affects=["weights", "outcome"]).items()
    bases = {kind: getattr(shared.model_config, key) for kind, key in BASES.items()}
    local = [kind for kind, path in bases.items() if Path(path).exists()]
    template = Path(__file__).with_name("card.md.j2").read_text(encoding="utf-8")
    how = {"trim_blocks": True, "keep_trailing_newline": True, "undefined": jinja2.StrictUndefined}
    page = jinja2.Template(template, **how).render(
        name=name,
        license=license,
        data=data,
        config=shared,
        local=local,
        known=languages(out),
        rows=read_manifest(manifest, needs=()),
        manifest=manifest_hash([manifest]),
        scores={t: s.text() for t, s in found.scored.items() if made[t] == weights},
        trained={n: v for n, v in trained if v != usual.get(n) and "/" not in str(v)},
    )
    atomic_write(out / CARD, page)
    return local
