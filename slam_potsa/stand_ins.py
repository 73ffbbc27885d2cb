"""Stand-ins for modules that the unmodified SLAM-LLM imports but, for our purposes, does not use.

SLAM-LLM imports `pkg_resources.packaging`, which setuptools 82 took away, and its speech datasets
import torchaudio without a call to it. Where such a module is absent, an empty one in `sys.modules`
is all that SLAM-LLM needs. SLAM-LLM's own entry scripts import it before any code of ours runs, so
there the stand-ins are put in place first:

    torchrun -m slam_potsa.stand_ins examples/asr_librispeech/finetune_asr.py [its arguments]
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import runpy
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn


def install() -> list[str]:
    """Put a stand-in in place of each module that is absent; the names of those just installed."""
    found = [_stand_in("torchaudio")] if _absent("torchaudio") else []
    if _absent("pkg_resources"):
        found.append(_stand_in("pkg_resources"))
    resources = importlib.import_module("pkg_resources")
    if "packaging" not in vars(resources):  # setuptools 70 has the module without this name
        resources.packaging = importlib.import_module("packaging")
        importlib.import_module("packaging.version")
    return found


def run(arguments: list[str]) -> None:
    """Run a script (its path and its arguments) as Python would, with the stand-ins in place.

    The `deepspeed` launcher puts --local_rank before the script; LOCAL_RANK says the same.
    """
    while arguments and arguments[0].startswith("--local_rank"):
        arguments = arguments[1:]
    if not arguments:
        sys.exit("usage: python -m slam_potsa.stand_ins SCRIPT.py [its arguments]")
    install()
    sys.argv = list(arguments)
    sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0])))
    runpy.run_path(sys.argv[0], run_name="__main__")


def _absent(name: str) -> bool:
    return name not in sys.modules and importlib.util.find_spec(name) is None


def _stand_in(name: str) -> str:
    def missing(attribute: str) -> NoReturn:
        # AttributeError, so that hasattr() and the import system get the answer they expect.
        raise AttributeError(
            f"{name}.{attribute} is needed, but {name} is not installed and slam_potsa only stands "
            f"in for its import: install {name}"
        )

    module = ModuleType(name, f"Stands in for {name}, which is not installed (slam_potsa).")
    # Without a spec, importlib.util.find_spec(name) raises: transformers asks for torchaudio so.
    module.__spec__ = ModuleSpec(name, loader=None)
    module.__getattr__ = missing
    sys.modules[name] = module
    return name


if __name__ == "__main__":
    run(sys.argv[1:])
