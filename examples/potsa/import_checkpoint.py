"""A checkpoint of SLAM-LLM's recipes as `slam-potsa export` writes a run: `slam-potsa import`.

Sizes are read off its tensors; models, prompts and tasks are what key=value says, or the defaults.

    model.pt                      DDP, and CoT-ST's adapter
    FOLDER/pytorch_model*.bin     DeepSpeed, put together; in shards, with their index
    FOLDER/latest, global_stepN/  DeepSpeed's own: mp_rank_00_model_states.pt, also by itself

The last in the half precision it was trained with. What ZeRO-3 parted must be put together first.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from slam_potsa.config.compose import compose_config
from slam_potsa.engine.recipe import literal
from slam_potsa.engine.share import write_shared
from slam_potsa.errors import InputError
from slam_potsa.model.checkpoint import BIAS_STATE, MODEL, State, carried_bias, read_checkpoint
from slam_potsa.model.language_bias import LanguageBias
from slam_potsa.text import some

STATES, WHOLE = "mp_rank_00_model_states.pt", "pytorch_model.bin"
TABLE = "bias_table"  # [L, E], added to the encoder's output: the authors' public working tree
LAYER = re.compile(r"encoder_projector\.qformer\.encoder\.layer\.(\d+)\.")
LORA = re.compile(r"\.(\w+)\.lora_A\.")


def read_foreign(path: str | Path, bias_languages: Sequence[str] = ()) -> State:
    """What was trained; `bias_languages` are the codes of a `bias_table`'s rows, in their order."""
    file, state = _file(Path(path)), {}
    for part in _shards(file) if file.suffix == ".json" else [file]:
        state |= read_checkpoint(part)
    table = state.pop(TABLE, torch.empty(0))
    if len(table) != len(bias_languages):
        raise InputError(
            f"{file}: holds a bias_table of {len(table)} languages, and {len(bias_languages)} were "
            "named: give their codes in its order, --bias-languages en,ja,…"
        )
    if bias_languages:
        rows = dict(zip(bias_languages, -table, strict=True))  # ours are subtracted
        state[f"{BIAS_STATE}.as_parameter"] = LanguageBias(rows).carried.as_parameter.detach()
    return state


def described(state: State, source: Any = "") -> dict[str, Any]:
    """The options that the tensors tell, by dotted name. Raises InputError without a Q-Former."""
    if (query := state.get("encoder_projector.query")) is None:
        raise InputError(f"{source}: no Q-Former of SLAM-LLM's in it, but {some(sorted(state), 4)}")
    lora = {found[1]: t.shape[0] for name, t in state.items() if (found := LORA.search(name))}
    whole = [part for part in ("encoder", "llm") if any(n.startswith(f"{part}.") for n in state)]
    options = {
        "train_config.train_parts": ["projector", *(["llm.lora"] if lora else whole)],
        "model_config.query_len": query.shape[1],
        "dataset_config.fix_length_audio": query.shape[1],
        "model_config.qformer_dim": query.shape[2],
        "model_config.qformer_layers": len({m[1] for name in state if (m := LAYER.match(name))}),
        "language_bias.enabled": any(name.startswith(BIAS_STATE) for name in state),
    }
    if lora:
        options["train_config.peft_config.r"] = max(lora.values())
        options["train_config.peft_config.target_modules"] = sorted(lora)
    return options


def _shards(index: Path) -> list[Path]:
    try:
        parts = json.loads(index.read_text())["weight_map"].values()
        return sorted({index.parent / part for part in parts})
    except (ValueError, TypeError, LookupError, AttributeError):
        raise InputError(f'{index}: expected {{"weight_map": {{PARAMETER: FILE, …}}}}') from None


def _file(path: Path) -> Path:
    """The one to read of what lies in a folder."""
    step = (path / "latest").read_text().strip() if (path / "latest").is_file() else ""
    wanted = [MODEL, WHOLE, f"{WHOLE}.index.json", f"{step}/{STATES}"]
    found = [path] if not path.is_dir() else [path / w for w in wanted if (path / w).is_file()]
    if not found:
        known = f"expected {', '.join(wanted)}; ZeRO-3's parts are joined by their zero_to_fp32.py"
        raise InputError(f"{path}: {known}")
    return found[0]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="slam-potsa import", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="model.pt, or DeepSpeed's folder or states")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--bias-languages", default="", metavar="en,ja,…", help="of a bias_table")
    args, options = parser.parse_known_args(arguments)
    codes = [code for code in args.bias_languages.split(",") if code]
    state = read_foreign(args.checkpoint, codes)
    told = [f"{name}={literal(value)}" for name, value in described(state, args.checkpoint).items()]
    plain = ["alignment=none", "dataset_config.pairing=none"]
    config = compose_config([*plain, *told, *options])
    bias = carried_bias(state)  # of each language that was spoken in training
    spoken = list(LanguageBias.from_bytes(bias).languages) if bias else []
    print(write_shared(args.out, config, state, {"spoken": spoken, "written": []}))


if __name__ == "__main__":
    main(sys.argv[1:])
