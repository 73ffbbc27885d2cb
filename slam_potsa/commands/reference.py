"""`slam-potsa reference`: every option of the configuration."""

from __future__ import annotations


def add(commands) -> None:
    reference = commands.add_parser("reference", help="every option, as docs/configuration.md")
    reference.set_defaults(command=_reference)


def _reference(args) -> None:
    from slam_potsa.config.reference import reference

    print(reference(), end="")
