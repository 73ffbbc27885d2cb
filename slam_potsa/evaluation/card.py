"""The model card of an exported run: card.md.j2, filled with what lies in the run's directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import jinja2

from slam_potsa.config import PotsaConfig, flat
from slam_potsa.data.languages import find_language
from slam_potsa.data.manifest import manifest_hash, read_manifest
from slam_potsa.engine.decode import load_run
from slam_potsa.engine.run_directory import best_checkpoint, file_hash, read_config
from slam_potsa.engine.share import CARD, PLACES, is_local, languages
from slam_potsa.errors import InputError
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
    found = collect([run], Request(samples=0, worst=0))
    weights, known = file_hash(best_checkpoint(run)), languages(out)
    (seen,), shared = found.runs, load_run(out)
    of_these = {
        test: scored
        for test, scored in seen.scored.items()
        if seen.records[test].made_from.get("the model's weights") == weights
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("card.md.j2").render(
        name=name,
        license=license,
        data=data,
        config=shared,
        local=is_local(shared),
        known=known,
        names={code: _name(code) for code in [*known.spoken, *known.written]},
        amounts=_amounts(read_config(run)),
        scores={test: scored.text() for test, scored in of_these.items()},
        trained=dict(_chosen(read_config(run))),
    )
    atomic_write(out / CARD, page)
    others = sorted(seen.scored.keys() - of_these.keys())
    return [*found.left_out, *(f"{test}: decoded with other weights" for test in others)]


def _amounts(config: PotsaConfig) -> str:
    """Utterances and hours of training by language; empty where the manifest is gone."""
    manifest = config.dataset_config.train_data_path
    with suppress(InputError):
        rows = read_manifest(manifest)
        count, hours = Counter(row.language for row in rows), Counter()
        for row in rows:
            hours[row.language] += (row.duration or 0) / 3600
        body = [[code, count[code], f"{hours[code]:.2f}"] for code in sorted(count)]
        text = table(["spoken", "utterances", "hours"], body)
        return f"{text}\n{Path(manifest).name}: sha256 {manifest_hash([manifest])}"
    return ""


def _chosen(config: PotsaConfig) -> Iterator[tuple[str, object]]:
    """Options of the training that are not the defaults; none that names a place."""
    usual = flat(PotsaConfig())
    for name, value in flat(config, affects=["weights", "outcome"]).items():
        is_place = isinstance(value, str) and "/" in value or name.endswith(PLACES)
        if not is_place and value != usual.get(name):
            yield name, value


def _name(code: str) -> str:
    with suppress(InputError):
        return find_language(code).name
    return code
