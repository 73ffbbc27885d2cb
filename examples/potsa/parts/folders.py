"""Model folders that are whole or absent, and that say what they were built from."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slam_potsa.errors import InputError
from slam_potsa.provenance import why_outdated, write_record

RECORD = "built_from.json"  # written last: a folder that has it is complete


def packaged_file(package: str, distribution: str, relative: str) -> Path:
    """The file `relative` of an installed `package`, without importing the package.

    Raises InputError when the package, or the file in it, is absent; it names the pip command.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"The Python package {package!r} is not installed, and the demo takes {relative!r} "
            f"from it. Install it: pip install {distribution}"
        )
    path = Path(next(iter(spec.submodule_search_locations))) / relative
    if not path.exists():
        raise InputError(
            f"The installed package {package!r} should hold {relative!r}, but {path} does not "
            f"exist. Reinstall it: pip install --force-reinstall {distribution}"
        )
    return path


def build_folder(
    output_dir: str | Path, made_from: Mapping[str, Any], build: Callable[[Path], None]
) -> Path:
    """Fill `output_dir` by `build(temporary folder)`, unless it was built from this already.

    `made_from` (everything that decides the content) is recorded in the folder and compared on the
    next call. A folder that was built from something else is replaced, one of a stranger refused.

    Raises:
        InputError: when `output_dir` holds files that this function did not write.
    """
    output_dir = Path(output_dir)
    if not why_outdated(output_dir / RECORD, made_from):
        return output_dir
    _refuse_foreign(output_dir)
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=output_dir.parent, prefix=f".{output_dir.name}-"))
    try:
        build(temporary)
        write_record(temporary / RECORD, made_from, sorted(temporary.iterdir()))
        _open_to_readers(temporary)
        if output_dir.exists():
            shutil.rmtree(output_dir)
        os.replace(temporary, output_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return output_dir


def _open_to_readers(folder: Path) -> None:
    """mkdtemp and safetensors close what they write to other users; a cache is read by all."""
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)


def _refuse_foreign(folder: Path) -> None:
    ours = (folder / RECORD).exists() or not folder.exists()
    if not ours and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder}: expected a new or empty folder, or one that this function built (with "
            f"{RECORD}); found other files. Name another folder, or remove this one."
        )
