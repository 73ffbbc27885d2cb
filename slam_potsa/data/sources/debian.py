"""Pinned Debian packages without root and without package lists on the machine.

`apt-get` is given folders of its own for its lists and cache, so that it neither needs nor changes
the machine's. Packages are checked by SHA-256 and read in memory; nothing is installed or unpacked.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from slam_potsa.errors import InputError
from slam_potsa.provenance import content_hash


def fetch(pins: Mapping[str, str], cache: Path, *, remedy: str, progress: bool = True) -> None:
    """Bring the packages `pins` into `cache`; those that are there with the right hash stay.

    Args:
        pins: file name `<package>_<version>_all.deb` -> SHA-256.
        remedy: what to do where this machine's sources do not carry them; ends each message.

    Raises:
        InputError: no apt-get, a version that cannot be had, or a file with another hash.
    """
    from tqdm import tqdm

    cache.mkdir(parents=True, exist_ok=True)
    missing = [name for name, sha256 in pins.items() if not _has(cache / name, sha256)]
    if missing and shutil.which("apt-get") is None:
        raise InputError(f"apt-get is not on this machine. {remedy}")
    if missing:
        apt = _private_apt(cache / "apt")
        # It may complain of one source while another has it all.
        updated = _run([*apt, "update"], cache)
    for name in tqdm(missing, desc="packages", unit="file", disable=not progress):
        package, version, _ = name.split("_")
        said = _run([*apt, "download", f"{package}={version}"], cache)
        if not (cache / name).is_file():
            said = "\n".join(filter(None, [said, updated]))
            raise InputError(f"{package}={version} cannot be downloaded:\n{said}\n{remedy}")
    shutil.rmtree(cache / "apt", ignore_errors=True)
    check(pins, cache, remedy=remedy)


def _has(path: Path, sha256: str) -> bool:
    return path.is_file() and content_hash(path) == sha256


def check(pins: Mapping[str, str], folder: Path, *, remedy: str) -> None:
    """Raise InputError, and remove nothing, where a package is missing or has another hash."""
    absent = [str(folder / name) for name in pins if not (folder / name).is_file()]
    if absent:
        raise InputError(f"no such package: {', '.join(absent)}. {remedy}")
    for name, sha256 in pins.items():
        found = content_hash(folder / name)
        if found != sha256:
            raise InputError(f"{folder / name}: SHA-256 is {found}, expected {sha256}. {remedy}")


def read_deb(path: Path) -> dict[str, bytes]:
    """Path inside the package (`usr/share/...`) -> content, by dpkg-deb."""
    if shutil.which("dpkg-deb") is None:
        raise InputError(f"{path}: dpkg-deb is not on this machine: install dpkg")
    done = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(path)], capture_output=True)
    if done.returncode:
        raise InputError(f"{path}: not a Debian package ({done.stderr.decode().strip()})")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        return {
            info.name.removeprefix("./"): archive.extractfile(info).read()
            for info in archive
            if info.isfile()
        }


def _private_apt(state: Path) -> list[str]:
    """An apt-get command line that keeps its state in `state`; sources and keys are the machine's.

    Every path is absolute: apt takes relative ones to be below its own folders.
    """
    options = {
        "Dir::State": state.resolve() / "state",
        "Dir::Cache": state.resolve() / "cache",
        "APT::Sandbox::User": "root",  # as root, apt would drop to a user who cannot write here
        "Acquire::Languages": "none",  # no translated descriptions
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "60",
    }
    for name in ("state", "cache"):
        (state / name).mkdir(parents=True, exist_ok=True)
    return ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]


def _run(command: Sequence[str], folder: Path) -> str:
    """Run in `folder` and return what it complained of; whether it worked shows in the files."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr or done.stdout).strip()
