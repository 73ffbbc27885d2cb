"""`slam-potsa COMMAND`: the command line of `cli.yaml`, whose functions are in `commands/`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from slam_potsa.errors import as_messages


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Wrong input prints one message and gives exit code 2."""
    args = vars(_parse(arguments))
    del args["command"]
    try:
        with as_messages():
            _found(args.pop("run_by"))(**args)
    except SystemExit as ended:
        return ended.code
    return 0


def _found(name: str) -> Any:
    """`module:attribute` of this package, imported when it is asked for."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(f"slam_potsa.{module}"), attribute)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """argparse ends positional words at the first option; `key=value` may follow one too."""
    parser = _parser()
    args, rest = parser.parse_known_args(arguments)
    unknown = [word for word in rest if "=" not in word or word.startswith("-")]
    if rest and (unknown or not hasattr(args, "assignments")):
        (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        own = commands.choices[args.command]
        own.error(f"unrecognized arguments: {' '.join(unknown or rest)}")
    if rest:
        args.assignments += rest
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slam-potsa", description="POTSA: cross-lingual speech alignment for speech LLMs."
    )
    table = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    _add_commands(parser, table["commands"], dest="command")
    return parser


def _add_commands(parser: argparse.ArgumentParser, table: Mapping[str, dict], dest: str) -> None:
    """The commands of `table`, see `cli.yaml`; what is not given is left to the function."""
    commands = parser.add_subparsers(required=True, metavar=dest.upper(), dest=dest)
    for name, found in table.items():
        own = {
            key: found[key]
            for key in ("help", "description", "add_help", "prefix_chars")
            if key in found
        }
        if "examples" in found:
            own["epilog"] = f"examples:\n{found['examples']}"
            own["formatter_class"] = argparse.RawDescriptionHelpFormatter
        command = commands.add_parser(name, argument_default=argparse.SUPPRESS, **own)
        for kind, made in {"path": Path, "int": int, "float": float, "names": _names}.items():
            command.register("type", kind, made)
        command.register("type", "positive", _positive)
        command.register("action", "system", _System)
        more = _found(found["more"]) if "more" in found else {}
        for flag, options in {**found.get("arguments", {}), **more}.items():
            command.add_argument(flag, **options)
        if "kinds" in found:
            _add_commands(command, found["kinds"], dest="kind")
        if "run_by" in found:
            command.set_defaults(run_by=found["run_by"])


def _names(text: str) -> list[str]:
    return text.split(",")


def _positive(text: str) -> float:
    if float(text) <= 0:
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text}")
    return float(text)


class _System(argparse.Action):
    """Where another system decodes, no RUN is given. Optional from the start, it would leave the
    manifest no place behind an option: `decode RUN --batch-size 4 MANIFEST`."""

    def __call__(self, parser, args, value, _flag=None):
        args.system = value
        (run,) = (action for action in parser._actions if action.dest == "run")
        run.nargs, run.default = "?", None


if __name__ == "__main__":
    sys.exit(main())
