"""The demo's modules are found as when it runs: by the folder of demo.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples/potsa"))
