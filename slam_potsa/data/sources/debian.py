"""Debian packages as they are published: fetched without root, checked, unpacked, never installed.

`pins` are the packages' file names and their SHA-256.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from slam_potsa.errors import InputError, each
from slam_potsa.provenance import content_hash


@contextmanager
def unpacked(
    pins: Mapping[str, str], folder: Path | None, cache: Path, progress: bool, remedy: str
) -> Iterator[Path]:
    """The folder in which the packages lie unpacked: `folder`, where it has no .deb; else a
    temporary one, filled from the packages in `folder`, or from those that are fetched to `cache`.

    Raises InputError, and removes nothing, where packages are missing or have another hash; each
    problem ends in `remedy`.
    """
    if folder and not any(folder.glob("*.deb")):
        yield folder
        return
    if folder is None:
        fetch(pins, cache, progress, remedy)

    def verify(name: str) -> None:
        if problem := _problem((folder or cache) / name, pins[name]):
            raise InputError(f"{problem}. {remedy}")

    each(verify, pins)
    if shutil.which("dpkg-deb") is None:
        raise InputError(f"dpkg-deb is not on this machine: install dpkg. {remedy}")
    with tempfile.TemporaryDirectory() as temporary:
        for name in pins:
            subprocess.run(["dpkg-deb", "-x", (folder or cache) / name, temporary], check=True)
        yield Path(temporary)


def fetch(pins: Mapping[str, str], cache: Path, progress: bool, remedy: str) -> None:
    """Bring the packages into `cache`; right ones there stay.

    Raises InputError where there is no apt-get, or a version cannot be had.
    """
    missing = [name for name, sha256 in pins.items() if _problem(cache / name, sha256)]
    if missing and shutil.which("apt-get") is None:
        raise InputError(f"apt-get is not on this machine. {remedy}")

    def apt(*words: str) -> str:
        command = ["apt-get", "-qq", *_private_options(cache / "apt"), *words]
        return subprocess.run(command, cwd=cache, capture_output=True, text=True).stderr

    def download(name: str) -> None:
        package, version, _ = name.replace("%3a", ":").split("_")
        said = apt("download", f"{package}={version}")
        if not (cache / name).is_file():
            raise InputError(f"{package}={version} cannot be downloaded:\n{said}{updated}{remedy}")

    cache.mkdir(parents=True, exist_ok=True)
    # Not checked: it may complain of one source while another has it all.
    updated = apt("update") if missing else ""
    each(download, missing, workers=1, progress="packages" if progress else "")
    shutil.rmtree(cache / "apt", ignore_errors=True)


def _problem(path: Path, sha256: str) -> str:
    """What is wrong with a package; "": nothing."""
    if not path.is_file():
        return f"{path}: no such package"
    found = content_hash(path)
    return "" if found == sha256 else f"{path}: SHA-256 is {found}, expected {sha256}"


def _private_options(state: Path) -> list[str]:
    """With these, apt-get needs no root, and neither needs nor changes the machine's package lists:
    its state is in `state`. Sources and keys are the machine's."""
    own = {"Dir::State": state.resolve() / "state", "Dir::Cache": state.resolve() / "cache"}
    for folder in own.values():
        folder.mkdir(parents=True, exist_ok=True)
    options = {
        "APT::Sandbox::User": "root",  # as root, apt would drop to a user who cannot write here
        "Acquire::Languages": "none",  # no translated descriptions
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "60",
    }
    return [f"-o{name}={value}" for name, value in (own | options).items()]
