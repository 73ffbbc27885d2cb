"""Debian packages as they are published: without root, checked, unpacked, never installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from slam_potsa.errors import InputError, each, refuse
from slam_potsa.provenance import content_hash

# What apt-get, which runs in folders of its own, is told besides.
APT_OPTIONS = (
    "APT::Sandbox::User=root",  # as root, apt would drop to a user who cannot write here
    "Acquire::Languages=none",  # no translated descriptions
    "Acquire::Retries=2",
    "Acquire::http::Timeout=60",
)


@contextmanager
def unpacked(
    pins: Mapping[str, str],
    given: str | Path | None,
    output: Path,
    progress: bool,
    remedy: str,
) -> Iterator[Path]:
    """The folder in which packages lie unpacked: `given`, where it has no .deb; else a temporary
    one, filled from the packages in `given`, or from those that are fetched to `output`/packages.

    Args:
        pins: the packages' SHA-256 by file name.
        remedy: what every InputError ends in, those of the caller's block too.

    Raises InputError, and removes nothing, where packages are missing or have another hash.
    """
    folder = Path(given) if given else output / "packages"
    try:
        if given and not any(folder.glob("*.deb")):
            yield folder
            return
        if not given:
            _fetch(pins, folder, progress)
        refuse(_problems(pins, folder).values())
        if shutil.which("dpkg-deb") is None:
            raise InputError("dpkg-deb is not on this machine: install dpkg")
        with tempfile.TemporaryDirectory() as temporary:
            unpack = ["dpkg-deb", "-x"]
            each(lambda name: subprocess.run([*unpack, folder / name, temporary], check=True), pins)
            yield Path(temporary)
    except InputError as error:
        *others, last = error.problems
        raise InputError([*others, f"{last.rstrip()}\n{remedy}"]) from None


def _fetch(pins: Mapping[str, str], folder: Path, progress: bool) -> None:
    """Bring the packages into `folder`; right ones there stay.

    apt-get needs no root, and neither needs nor changes the machine's lists of packages: its state
    is in `folder`. Sources and keys are the machine's.
    """
    missing = _problems(pins, folder)
    if missing and shutil.which("apt-get") is None:
        raise InputError("apt-get is not on this machine")
    own = {"Dir::State": folder / "apt" / "state", "Dir::Cache": folder / "apt" / "cache"}
    options = [*(f"{name}={place.resolve()}" for name, place in own.items()), *APT_OPTIONS]

    def apt(*words: str) -> str:
        command = ["apt-get", "-qq", *(f"-o{option}" for option in options), *words]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True).stderr

    def download(name: str) -> None:
        package, version, _ = name.replace("%3a", ":").split("_")
        said = apt("download", f"{package}={version}")
        if not (folder / name).is_file():
            raise InputError(f"{package}={version} cannot be downloaded:\n{said}{updated}")

    for place in own.values():
        place.mkdir(parents=True, exist_ok=True)
    # Not checked: it may complain of one source while another has it all.
    updated = apt("update") if missing else ""
    each(download, missing, workers=1, progress="packages" if progress else "")
    shutil.rmtree(folder / "apt", ignore_errors=True)


def _problems(pins: Mapping[str, str], folder: Path) -> dict[str, str]:
    """What is wrong with packages, by name."""
    found = {}
    for name, sha256 in pins.items():
        path = folder / name
        if not path.is_file():
            found[name] = f"{path}: no such package"
        elif content_hash(path) != sha256:
            found[name] = f"{path}: SHA-256 is {content_hash(path)}, expected {sha256}"
    return found
