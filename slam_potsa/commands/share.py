"""`slam-potsa export | import | serve | demo | where`: a model given away, scripts, and paths."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import slam_potsa
from slam_potsa.config.compose import conf_dir, examples_dir
from slam_potsa.errors import InputError


def export(
    run: Path,
    out: Path,
    push: str = "",
    encoder: str = "",
    llm: str = "",
    license: str = "",
    data: str = "",
) -> None:
    from slam_potsa.engine.launch import quieten
    from slam_potsa.engine.share import export_run
    from slam_potsa.evaluation.figures import require

    require("jinja2")
    from slam_potsa.evaluation.card import write_card

    quieten()
    export_run(run, out, {"encoder": encoder, "llm": llm})
    if local := write_card(run, out, push or out.name, license, data):
        names = " ".join(f"--{kind} NAME" for kind in local)
        text = f"{out}: frozen models are folders of this machine; to share it, give {names}"
        if push:
            raise InputError(text)
        print(text, file=sys.stderr)
    print(_push(out, push) if push else out)


def _push(folder: Path, name: str) -> str:
    """Upload an exported folder to the hub, into a repository that is private if it is new."""
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo(name, private=True, exist_ok=True)
        return str(HfApi().upload_folder(repo_id=name, folder_path=folder))
    except (OSError, ValueError) as error:
        why = str(error).strip().splitlines()[0]
        raise InputError(f"--push {name}: not uploaded ({why}); see `hf auth login`") from None


def import_checkpoint(arguments: Sequence[str]) -> None:
    _run_script("import_checkpoint.py", arguments)


def serve(arguments: Sequence[str]) -> None:
    _run_script("serve.py", arguments)


def _run_script(name: str, arguments: Sequence[str]) -> None:
    """Of examples/potsa/, with a --help of its own."""
    sys.argv = [name, *arguments]
    runpy.run_path(str(examples_dir() / name), run_name="__main__")


def demo(
    output: str = "outputs/demo",
    source: str = "",
    steps: int | None = None,
    seed: int | None = None,
) -> None:
    asked = {"--output": output, "--from": source, "--steps": steps, "--seed": seed}
    words = [str(word) for pair in asked.items() if pair[1] not in (None, "") for word in pair]
    sys.exit(subprocess.call([sys.executable, str(examples_dir() / "demo.py"), *words]))


def where(what: str) -> None:
    from slam_potsa.engine.slam_llm import plugin_file

    ready = Path(slam_potsa.__file__).with_name("model") / "drop_in_file.py"
    found = {"conf": conf_dir, "examples": examples_dir, "drop-in": lambda: ready}
    print(found[what]() if what in found else plugin_file(what))
