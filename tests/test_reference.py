"""docs/configuration.md says what slam_potsa/config says."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import pytest

from slam_potsa.commands import model as command
from slam_potsa.config import PotsaConfig
from slam_potsa.config.option import section_kind
from slam_potsa.config.reference import COMMAND, PAGE, reference

ROOT = Path(__file__).resolve().parents[1]


def options(kind=PotsaConfig, path=""):
    """(dotted section, field) of every option."""
    for spec in dataclasses.fields(kind):
        if inner := section_kind(spec):
            name = f"{path}.{spec.name}" + (".NAME" if "each" in spec.metadata else "")
            yield from options(inner, name.lstrip("."))
        else:
            yield path, spec


def test_the_page_is_up_to_date():
    # Not an assertion about the texts: pytest would print both pages.
    if (ROOT / PAGE).read_text(encoding="utf-8") != reference():
        pytest.fail(f"{PAGE} is not what slam_potsa/config says; write it again: {COMMAND}")


def test_every_option_has_one_row_of_its_own_section():
    sections = {}
    for part in reference().split("\n## ")[1:]:
        title, *lines = part.splitlines()
        sections[title.strip("`")] = [line for line in lines if line.startswith("| `")]
    assert sum(map(len, sections.values())) == len(list(options()))
    for path, spec in options():
        rows = [r for r in sections[path or "Top level"] if r.startswith(f"| `{spec.name}` |")]
        assert len(rows) == 1, (path, spec.name)
        unescaped = rows[0].replace("\\|", "").count("|")
        assert unescaped == 7, rows[0]
        for choice in spec.metadata["choices"] or ():
            assert (f"`{choice}`" if choice else '`""`') in rows[0]


@pytest.mark.parametrize(
    "part",
    [
        "lambda of eq. 4; 0: as if not chosen | float, at least 0 | weights | POTSA",
        "`USER: Translate the speech to {target_language}.\\n ASSISTANT: `",
        "| `path` | `null` |",
        '| `file` | `""` |',
        "dropout of the update's input | float, 0 to 1 | weights | SLAM-LLM |",
        '| `target_modules` | `["q_proj", "v_proj"]` | LLM modules adapted | list of str |',
        "| `unseen_language` | `mean` |",
        "## `alignment.schedule`",
    ],
)
def test_a_row_has_default_meaning_limits_and_source(part):
    assert part in reference()


def test_the_command_prints_the_page(capsys):
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    args = parser.parse_args(["reference"])
    args.command(args)
    assert capsys.readouterr().out == reference()
