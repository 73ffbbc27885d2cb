"""docs/configuration.md says what slam_potsa/config says."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import pytest

from slam_potsa.commands import model as command
from slam_potsa.config import PotsaConfig
from slam_potsa.config.option import section_kind, sections
from slam_potsa.config.reference import COMMAND, PAGE, reference

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_is_up_to_date():
    # Not an assertion about the texts: pytest would print both pages.
    if (ROOT / PAGE).read_text(encoding="utf-8") != reference():
        pytest.fail(f"{PAGE} is not what slam_potsa/config says; write it again: {COMMAND}")


def test_every_option_has_one_row_of_its_own_section():
    found = {}
    for part in reference().split("\n## ")[1:]:
        title, *lines = part.splitlines()
        found[title.strip("`")] = [line for line in lines if line.startswith("| `")]
    for path, kind in sections(PotsaConfig):
        specs = [spec for spec in dataclasses.fields(kind) if section_kind(spec) is None]
        for spec, row in zip(specs, found[path or "Top level"], strict=True):
            assert row.startswith(f"| `{spec.name}` |")
            assert row.replace("\\|", "").count("|") == 7, row
            for choice in spec.metadata["choices"] or ():
                assert (f"`{choice}`" if choice else '`""`') in row


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
