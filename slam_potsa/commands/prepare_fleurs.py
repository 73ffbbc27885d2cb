"""`slam-potsa prepare fleurs`: FLEURS into manifests."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = """\
example:
  slam-potsa prepare fleurs corpora/fleurs data/fleurs train_languages=potsa zero_shot=potsa
  slam-potsa prepare fleurs data/fleurs --hub --train-languages en,ko --zero-shot fr --target zh
Every --option VALUE may also be written option=VALUE."""


def add_to(kinds) -> None:
    fleurs = kinds.add_parser(
        "fleurs",
        help="FLEURS: 102 languages, n-way parallel",
        description="Write train, dev, test and zero_shot.jsonl of FLEURS.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fleurs.add_argument(
        "source", type=Path, nargs="?", help="folder of FLEURS, with or without its data/"
    )
    fleurs.add_argument("output", type=Path)
    fleurs.add_argument(
        "--hub", action="store_true", help="instead of SOURCE: fetch what is needed from the hub"
    )
    fleurs.add_argument("--revision", help="of the data set on the hub")
    fleurs.add_argument(
        "--train-languages", default="potsa", help="potsa (en,ja,es,ko,ru), or a list of codes"
    )
    fleurs.add_argument(
        "--zero-shot",
        default="potsa",
        help="potsa (fr,de,kea,ceb,ast,ky), none, or a list of codes",
    )
    fleurs.add_argument("--target", default="cmn_hans_cn", help="translate into this language")
    fleurs.add_argument(
        "--keep-target-language",
        action="store_true",
        help="keep recordings in the target language: they are their own translation",
    )
    fleurs.add_argument("--min-seconds", type=float, default=1.0, help="drop shorter ones of train")
    fleurs.add_argument(
        "--max-seconds", type=float, default=30.0, help="drop longer ones of train; of others 30"
    )
    fleurs.add_argument(
        "--rate-deviations",
        type=float,
        default=5.0,
        help="drop recordings of train this far from the language's usual rate of speech; 0: none",
    )
    fleurs.add_argument(
        "--allow-truncated",
        action="store_true",
        help="use what truncated archives still have, instead of refusing them",
    )
    fleurs.add_argument("--workers", type=int, help="threads; default: one a core")
    fleurs.add_argument(
        "--replace", action="store_true", help="take the place of another data set in OUTPUT"
    )
    fleurs.set_defaults(command=_prepare_fleurs)
    _accept_key_value(fleurs)


def _accept_key_value(parser: argparse.ArgumentParser) -> None:
    """Read `train_languages=potsa` as `--train-languages=potsa`, for the options there are."""
    parse = parser.parse_known_args
    options = {
        option[2:].replace("-", "_"): option
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") and action.nargs != 0
    }

    def parse_known_args(args=None, namespace=None):
        given = []
        for argument in args or ():
            key, separator, value = argument.partition("=")
            known = separator and key in options
            given.append(f"{options[key]}={value}" if known else argument)
        return parse(given, namespace)

    parser.parse_known_args = parse_known_args


def _prepare_fleurs(args) -> None:
    from slam_potsa.registry import DATA_SOURCES, resolve

    build = resolve(DATA_SOURCES, "fleurs", "data source")
    names = set(vars(args)) - {"command", "output", "name"}
    print(build(args.output, **{name: getattr(args, name) for name in names}).summary)
