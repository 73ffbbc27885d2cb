"""Pinned Debian packages without root and without package lists on the machine.

`apt-get` is given folders of its own for its lists and cache, so that it neither needs nor changes
the machine's. Packages are checked by SHA-256 and read in memory; nothing is installed or unpacked.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from slam_potsa.errors import InputError

_AR_MAGIC = b"!<arch>\n"


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
    missing = [name for name, sha256 in pins.items() if not has(cache / name, sha256)]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise InputError(f"apt-get is not on this machine. {remedy}")
    apt = _private_apt(cache / "apt")
    updated = _run([*apt, "update"], cache)  # may complain of one source while another has it all
    for name in tqdm(missing, desc="packages", unit="file", disable=not progress):
        package, version, _ = name.split("_")
        downloaded = _run([*apt, "download", f"{package}={version}"], cache)
        if not (cache / name).exists():
            said = "\n".join(filter(None, [downloaded, updated]))
            raise InputError(f"{package}={version} cannot be downloaded:\n{said}\n{remedy}")
        check(cache / name, pins[name], remedy=remedy)
    shutil.rmtree(cache / "apt", ignore_errors=True)


def has(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def check(path: Path, sha256: str, *, remedy: str) -> None:
    """Raise InputError, and remove nothing, unless `path` has this hash."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise InputError(f"{path}: SHA-256 is {found}, expected {sha256}. {remedy}")


def read_deb(path: Path) -> dict[str, bytes]:
    """Path inside the package (`usr/share/...`) -> content, of a .deb with any tar compression."""
    try:
        data = _ar_member(path.read_bytes(), "data.tar")
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return {
                info.name.removeprefix("./"): archive.extractfile(info).read()
                for info in archive
                if info.isfile()
            }
    except (ValueError, tarfile.TarError, OSError) as error:
        raise InputError(f"{path}: not a Debian package ({error}); download it again") from None


def _ar_member(content: bytes, prefix: str) -> bytes:
    """The first member whose name begins with `prefix`: 60-byte headers, data at even offsets."""
    if not content.startswith(_AR_MAGIC):
        raise ValueError("no ar archive")
    position = len(_AR_MAGIC)
    while position + 60 <= len(content):
        header = content[position : position + 60]
        size = int(header[48:58])
        position += 60
        if header[:16].decode("ascii").startswith(prefix):
            return content[position : position + size]
        position += size + size % 2
    raise ValueError(f"no member {prefix}*")


def _private_apt(state: Path) -> list[str]:
    """An apt-get command line that keeps its state in `state`; sources and keys are the machine's.

    Every path is absolute: apt takes relative ones to be below its own folders.
    """
    state = state.resolve()
    folders = {
        "Dir::State": state / "state",
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state / "cache",
        "Dir::Cache::archives": state / "cache" / "archives",
    }
    for folder in folders.values():
        (folder / "partial").mkdir(parents=True, exist_ok=True)
    options = {
        **folders,
        "APT::Sandbox::User": "root",  # as root, apt would drop to a user who cannot write here
        "Acquire::Languages": "none",  # no translated descriptions
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "60",
    }
    return ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]


def _run(command: Sequence[str], folder: Path) -> str:
    """Run in `folder` and return what it complained of; whether it worked shows in the files."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr or done.stdout).strip()
