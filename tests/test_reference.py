"""docs/configuration.md says what slam_potsa/config says."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import get_args

import pytest

from slam_potsa.config import PotsaConfig
from slam_potsa.config.option import Affects, section_kind, sections

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/reference.py")
page = importlib.util.module_from_spec(spec)
spec.loader.exec_module(page)


def test_the_page_is_what_the_command_prints():
    # Not an assertion about the texts: pytest would print both pages.
    if (ROOT / page.PAGE).read_text(encoding="utf-8") != page.reference():
        pytest.fail(f"{page.PAGE} is not what slam_potsa/config says: {page.COMMAND}")


def test_every_option_has_one_row_of_its_own_section():
    found = {}
    for part in page.reference().split("\n## ")[1:]:
        title, *lines = part.splitlines()
        found[title.strip("`")] = [line for line in lines if line.startswith("| `")]
    for path, kind in sections(PotsaConfig):
        specs = [spec for spec in dataclasses.fields(kind) if section_kind(spec) is None]
        for spec, row in zip(specs, found[path or "Top level"], strict=True):
            assert row.startswith(f"| `{spec.name}` |")
            assert row.replace("\\|", "").count("|") == 7, row
            assert spec.metadata["help"] and spec.metadata["affects"] in get_args(Affects), row
            for choice in spec.metadata["choices"] or ():
                assert (f"`{choice}`" if choice else '`""`') in row
