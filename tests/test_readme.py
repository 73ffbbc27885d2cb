"""The README says what was measured and names what is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "benchmarks" / "results"


def test_the_demo_table_is_the_one_that_was_printed():
    assert (RESULTS / "demo.txt").read_text().strip() in README


def test_the_demo_table_and_its_json_are_of_one_run():
    systems = json.loads((RESULTS / "demo.json").read_text())["systems"]
    for name, found in systems.items():
        for test, table in found["scores"].items():
            pooled = {row["name"]: row for row in table["rows"]}["zero-shot, pooled"]
            bleu = f"{pooled['scores']['BLEU']['value']:.1f}"
            line = rf"{re.escape(test)} +zero-shot +{name} +{re.escape(bleu)} "
            assert re.search(line, README), line


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists(), target


def test_commands_of_the_makefile_are_there():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)", README):
        assert f"\n{target}:" in makefile, target


def test_python_examples_run():
    for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(code, "README.md", "exec"), {})


def test_the_sweeps_rows_are_the_ones_that_were_printed():
    printed = (RESULTS / "variants.txt").read_text().splitlines()
    (quoted,) = re.findall(r"```text\n(variant .*?)\n```", README, flags=re.S)
    for line in quoted.splitlines():
        assert any(row.startswith(line) for row in printed), line
