"""Stand-ins for what SLAM-LLM imports and does not use; SLAM-LLM itself is not needed here."""

import importlib.util
import sys
from types import ModuleType

import pytest

from slam_potsa import stand_ins

NAMES = ("torchaudio", "pkg_resources")


@pytest.fixture
def absent(monkeypatch):
    """As where neither module is installed."""
    find = importlib.util.find_spec

    def found(name, *rest):
        return None if name in NAMES and name not in sys.modules else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in NAMES:
        sys.modules.pop(name, None)


def test_what_slam_llm_imports_is_there_and_a_use_of_it_names_the_remedy(absent):
    assert stand_ins.install() == ["torchaudio", "pkg_resources"]
    import torchaudio
    from pkg_resources import packaging

    assert packaging.version.parse("2.13.0").release >= (2, 0)
    assert importlib.util.find_spec("torchaudio") is torchaudio.__spec__
    assert stand_ins.install() == []
    with pytest.raises(AttributeError, match="install torchaudio"):
        torchaudio.functional.resample(None, 1, 2)


def test_real_modules_are_left_alone_but_for_a_missing_packaging(monkeypatch):
    for name in NAMES:
        module = ModuleType(name)
        module.__spec__ = importlib.util.spec_from_loader(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    real = sys.modules["pkg_resources"]
    real.packaging = "its own"
    assert stand_ins.install() == [] and real.packaging == "its own"
    del real.packaging
    assert stand_ins.install() == [] and real.packaging.version.parse("1.0").release == (1, 0)


def test_a_script_runs_as_main_with_its_arguments(tmp_path, monkeypatch, capsys):
    (tmp_path / "beside.py").write_text("NAME = 'beside'")
    script = tmp_path / "script.py"
    script.write_text("import sys, beside; print(__name__, beside.NAME, sys.argv[1:])")
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    stand_ins.run(["--local_rank=0", str(script), "a=1"])  # as the deepspeed launcher starts it
    assert capsys.readouterr().out.strip() == "__main__ beside ['a=1']"
