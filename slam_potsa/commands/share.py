"""`slam-potsa export | import`: a run, or another's checkpoint, as a folder to give away."""

from __future__ import annotations

import sys
from pathlib import Path

from slam_potsa.errors import InputError


def add(commands) -> None:
    export = commands.add_parser(
        "export",
        help="what a run trained as safetensors, with configuration and model card: to give away",
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

    taken = commands.add_parser(
        "import",
        help="a checkpoint of SLAM-LLM, CoT-ST or DeepSpeed as such a folder",
    )
    taken.add_argument("checkpoint", type=Path, help="model.pt, or DeepSpeed's folder or states")
    taken.add_argument("out", type=Path, help="folder to write")
    taken.add_argument("assignments", nargs="*", metavar="key=value")
    taken.add_argument(
        "--bias-languages", default="", metavar="en,ja,…", help="a bias_table's rows"
    )
    taken.set_defaults(command=_import)


def _export(args) -> None:
    from slam_potsa.engine.decode import load_run
    from slam_potsa.engine.launch import quieten
    from slam_potsa.engine.share import export_run, is_local
    from slam_potsa.evaluation.card import write_card

    quieten()
    export_run(args.run, args.out, {"encoder": args.encoder, "llm": args.llm})
    name = args.push or args.out.name
    for reason in write_card(args.run, args.out, name, args.license, args.data):
        print(f"left out of the card: {reason}", file=sys.stderr)
    if local := " ".join(f"--{kind} NAME" for kind in is_local(load_run(args.out))):
        text = f"{args.out}: frozen models are folders of this machine; to share it, give {local}"
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


def _import(args) -> None:
    from slam_potsa.config.compose import compose_config
    from slam_potsa.engine.foreign import described, read_foreign
    from slam_potsa.engine.recipe import literal
    from slam_potsa.engine.share import Languages, write_shared

    codes = [code for code in args.bias_languages.split(",") if code]
    state = read_foreign(args.checkpoint, codes)
    told = [f"{name}={literal(value)}" for name, value in described(state, args.checkpoint).items()]
    plain = ["alignment=none", "dataset_config.pairing=none"]
    config = compose_config([*plain, *told, *args.assignments])
    print(write_shared(args.out, config, state, Languages(sorted(codes))))
