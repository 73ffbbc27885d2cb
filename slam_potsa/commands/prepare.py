"""`slam-potsa prepare KIND`: make or check manifests. The kinds are in prepare.yaml."""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from slam_potsa.files import alone

TYPES = {"path": Path, "int": int, "float": float, "names": lambda text: text.split(",")}


def add(commands) -> None:
    prepare = commands.add_parser("prepare", help="make or check manifests")
    kinds = prepare.add_subparsers(required=True, metavar="KIND", dest="kind")
    table = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    for name, told in table.items():
        arguments = told.pop("arguments")
        parser = kinds.add_parser(name, argument_default=argparse.SUPPRESS, **told)
        parser.set_defaults(command=_check if name == "check" else _make)
        for flag, options in arguments.items():
            kind = {"type": TYPES[options["type"]]} if "type" in options else {}
            parser.add_argument(flag, **options | kind)


def _check(args) -> None:
    from slam_potsa.data.manifest import check_manifest

    print(check_manifest(**_options(args)).table())


def _make(args) -> None:
    from slam_potsa.registry import DATA_SOURCES, resolve

    kinds = {**DATA_SOURCES, "convert": "slam_potsa.data.convert:convert"}
    make = resolve(kinds, args.kind, "data source")
    file = args.kind == "convert"  # its output is one; the others' a folder
    held, name = (args.output.parent, args.output.name) if file else (args.output, "")
    with alone(held, "is preparing", prefix=name):
        print(make(**_options(args)).summary)


def _options(args) -> dict:
    """What the kind's own function takes."""
    return {k: v for k, v in vars(args).items() if k not in ("command", "name", "kind")}
