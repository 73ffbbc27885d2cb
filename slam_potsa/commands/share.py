"""`slam-potsa export`: a trained run as a folder to give away."""

from __future__ import annotations

import sys
from pathlib import Path

from slam_potsa.errors import InputError

LOCAL = "frozen models are folders of this machine, and it loads nowhere else; give"


def add(commands) -> None:
    export = commands.add_parser(
        "export",
        help="write what a run trained as safetensors, with configuration and model card",
        description="Write what was trained as safetensors, its configuration and a model card; "
        "--push uploads them. What is frozen is named, with its revision, and never written.",
    )
    export.add_argument("run", type=Path, help="output_dir of a training that has ended")
    export.add_argument("out", type=Path, help="folder to write")
    export.add_argument("--push", metavar="USER/NAME", help="upload to the hub, private if new")
    for kind in ("encoder", "llm"):
        text = f"hub name of the {kind}, NAME or NAME@REVISION, where the run had it from a folder"
        export.add_argument(f"--{kind}", metavar="NAME", help=text)
    export.add_argument("--license", default="", help="of the trained weights, such as cc-by-4.0")
    export.add_argument("--data", default="", help="what it was trained on, and its licence")
    export.set_defaults(command=_export)


def _export(args) -> None:
    from slam_potsa.engine.decode import load_run
    from slam_potsa.engine.launch import quieten
    from slam_potsa.engine.share import export_run, is_local, push
    from slam_potsa.evaluation.card import write_card

    quieten()
    export_run(args.run, args.out, {"encoder": args.encoder, "llm": args.llm})
    name = args.push or args.out.name
    for reason in write_card(args.run, args.out, name, args.license, args.data):
        print(f"left out of the card: {reason}", file=sys.stderr)
    local = [f"--{kind} NAME" for kind in is_local(load_run(args.out))]
    if local and args.push:
        raise InputError(f"{args.out} is not uploaded: {LOCAL} {', '.join(local)}")
    if local:
        print(f"{args.out}: {LOCAL} {', '.join(local)}", file=sys.stderr)
    print(push(args.out, args.push) if args.push else args.out)
