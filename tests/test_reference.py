"""docs/configuration.md says what slam_potsa/config says."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/reference.py")
page = importlib.util.module_from_spec(spec)
spec.loader.exec_module(page)


def test_the_page_is_what_the_command_prints():
    # Not an assertion about the texts: pytest would print both pages.
    if (ROOT / page.PAGE).read_text(encoding="utf-8") != page.reference():
        pytest.fail(f"{page.PAGE} is not what slam_potsa/config says: {page.COMMAND}")
