"""Model folders that are whole or absent, and that say what they were built from."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slam_potsa.errors import InputError

RECIPE_FILE = "built_from.json"  # written last: a folder that has it is complete


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def packaged_file(package: str, distribution: str, relative: str) -> Path:
    """The file `relative` of an installed `package`, without importing the package.

    Raises:
        InputError: when the package, or the file in it, is absent; it names the pip command.
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
    output_dir: str | Path, recipe: Mapping[str, Any], build: Callable[[Path], None]
) -> Path:
    """Fill `output_dir` by `build(temporary folder)`, unless this very `recipe` built it already.

    The recipe (everything that decides the content, as JSON) is saved in the folder and compared
    on the next call. A folder of another recipe is replaced, one of a stranger is refused.

    Raises:
        InputError: when `output_dir` holds files that this function did not write.
    """
    output_dir, recipe = Path(output_dir), json.loads(json.dumps(recipe))
    if _recipe_of(output_dir) == recipe:
        return output_dir
    _refuse_foreign(output_dir)
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=output_dir.parent, prefix=f".{output_dir.name}-"))
    try:
        build(temporary)
        (temporary / RECIPE_FILE).write_text(json.dumps(recipe, indent=2, sort_keys=True) + "\n")
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


def _recipe_of(folder: Path) -> Any:
    try:
        return json.loads((folder / RECIPE_FILE).read_text())
    except (OSError, ValueError):
        return None


def _refuse_foreign(folder: Path) -> None:
    ours = (folder / RECIPE_FILE).exists() or not folder.exists()
    if not ours and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder}: expected a new or empty folder, or one that this function built (with "
            f"{RECIPE_FILE}); found other files. Name another folder, or remove this one."
        )
