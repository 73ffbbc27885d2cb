"""`slam-potsa export | import | serve`: a trained run, or another's, given away; a page."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

from slam_potsa.errors import InputError


def add(commands) -> None:
    told = "what a run trained as safetensors, with configuration and model card: to give away"
    export = commands.add_parser("export", help=told).add_argument
    export("run", type=Path, help="output_dir of a training that has ended")
    export("out", type=Path, help="folder to write")
    export("--push", metavar="USER/NAME", help="upload to the hub, private if new")
    for kind in ("encoder", "llm"):
        export(f"--{kind}", metavar="NAME", help=f"hub name of the {kind}, NAME or NAME@REVISION")
    export("--license", default="", help="of the trained weights, such as cc-by-4.0")
    export("--data", default="", help="what it was trained on, and its licence")
    commands.choices["export"].set_defaults(command=_export)

    scripts = {"import": "SLAM-LLM's or DeepSpeed's checkpoint as such a folder"}
    scripts["serve"] = "a page and an endpoint that translate recordings, on this machine"
    for command, told in scripts.items():  # of examples/potsa/, with a --help of their own
        parser = commands.add_parser(command, help=told, add_help=False)
        parser.add_argument("arguments", nargs=argparse.REMAINDER)
        parser.set_defaults(command=_script)


def _export(args) -> None:
    from slam_potsa.engine.launch import quieten
    from slam_potsa.engine.share import export_run
    from slam_potsa.evaluation.figures import require

    require("jinja2")
    from slam_potsa.evaluation.card import write_card

    quieten()
    export_run(args.run, args.out, {"encoder": args.encoder, "llm": args.llm})
    name = args.push or args.out.name
    if local := write_card(args.run, args.out, name, args.license, args.data):
        names = " ".join(f"--{kind} NAME" for kind in local)
        text = f"{args.out}: frozen models are folders of this machine; to share it, give {names}"
        if args.push:
            raise InputError(text)
        print(text, file=sys.stderr)
    print(_push(args.out, args.push) if args.push else args.out)


def _push(folder: Path, name: str) -> str:
    """Upload an exported folder to the hub, into a repository that is private if it is new."""
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo(name, private=True, exist_ok=True)
        return str(HfApi().upload_folder(repo_id=name, folder_path=folder))
    except (OSError, ValueError) as error:
        why = str(error).strip().splitlines()[0]
        raise InputError(f"--push {name}: not uploaded ({why}); see `hf auth login`") from None


def _script(args) -> None:
    from slam_potsa.config.compose import examples_dir

    (script,) = examples_dir().glob(f"{args.name}*.py")
    sys.argv = [script.name, *args.arguments]
    runpy.run_path(str(script), run_name="__main__")
