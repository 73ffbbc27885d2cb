"""`slam-potsa COMMAND`: the commands are in `slam_potsa/commands/`, one module a group."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from slam_potsa.commands import (
    analyze,
    decode,
    model,
    plan,
    prepare,
    report,
    run,
    score,
    share,
)
from slam_potsa.errors import InputError, told

GROUPS = (prepare, model, plan, run, decode, score, analyze, report, share)
EXIT_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Wrong input prints one message and gives exit code 2."""
    args = _parse(arguments)
    try:
        args.command(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT
    except OSError as error:
        print(f"error: {told(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """argparse ends positional words at the first option; `key=value` may follow one too."""
    parser = _parser()
    args, rest = parser.parse_known_args(arguments)
    unknown = [word for word in rest if "=" not in word or word.startswith("-")]
    if rest and (unknown or not hasattr(args, "assignments")):
        (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        own = commands.choices[args.name]
        own.error(f"unrecognized arguments: {' '.join(unknown or rest)}")
    if rest:
        args.assignments += rest
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slam-potsa", description="POTSA: cross-lingual speech alignment for speech LLMs."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="name")
    for group in GROUPS:
        group.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
