"""What `pip install` of the built wheel gives, away from a checkout."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """(an environment's bin folder, its slam_potsa), which sees our own libraries, not our code."""
    folder = tmp_path_factory.mktemp("wheel")
    source, environment = folder / "source", folder / "env"
    kept = ("slam_potsa", "conf", "examples", "setup.py", "pyproject.toml", "README.md", "LICENSE")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in kept:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=ignored)
        else:
            shutil.copy(path, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run([*pip, *build], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (wheel,) = folder.glob("*.whl")
    into = ["--python", str(environment / "bin" / "python"), "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, *into, str(wheel)], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text("\n".join(p for p in sys.path if p.endswith("-packages")))
    shutil.rmtree(source)
    return environment / "bin", site / "slam_potsa"


def run(installed, folder, *command):
    done = subprocess.run(
        [installed[0] / command[0], *command[1:]], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def test_all_that_the_package_reads_is_in_it(installed):
    names = {"slam_potsa": ROOT / "slam_potsa", "conf": ROOT / "conf"}
    names["examples"] = ROOT / "examples" / "potsa"
    for name, folder in names.items():
        there = installed[1] if name == "slam_potsa" else installed[1] / name
        files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        absent = {
            str(f) for f in files if not (there / f).is_file() and "__pycache__" not in f.parts
        }
        assert not absent


def test_commands_run_in_an_empty_folder(installed, tmp_path):
    for what in ("conf", "examples", "drop-in", "model", "dataset"):
        path = run(installed, tmp_path, "slam-potsa", "where", what).split(":")[0]
        assert Path(path).exists() and Path(path).is_relative_to(installed[1])
    assert "Table 1" in run(installed, tmp_path, "slam-potsa", "table", "1")
    entry = str(installed[1] / "examples" / "finetune.py")
    config = run(installed, tmp_path, "python", entry, "experiment=table2_mse", "--cfg", "job")
    assert "distance: mse" in config
    assert "--steps" in run(installed, tmp_path, "slam-potsa", "demo", "--help")
    demo = str(installed[1] / "examples" / "demo.py")  # which finds its parts
    assert "--from" in run(installed, tmp_path, "python", demo, "--help")


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_other_pythons_can_read_it(installed, version):
    found = [*Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    found += [Path(path)] if (path := shutil.which(f"python{version}")) else []
    if not found:
        pytest.skip(f"no Python {version}")
    command = [found[0], "-m", "compileall", "-q", "-f", str(installed[1])]
    assert subprocess.run(command, capture_output=True).returncode == 0
