"""Systems of others, by `peers.yaml`: a manifest decoded through transformers, as ours are scored.

One utterance at a time, so that no answer depends on padding; greedily unless told otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from tqdm import tqdm

from slam_potsa.config import PotsaConfig
from slam_potsa.data.audio import SAMPLE_RATE, load_audio
from slam_potsa.data.languages import find_language
from slam_potsa.data.manifest import Utterance, read_manifest, recordings_hash
from slam_potsa.data.predictions import Prediction
from slam_potsa.data.tasks import filled
from slam_potsa.engine.decode import predictions_of, write_decoded
from slam_potsa.engine.decode_processes import Answer, Journal, device
from slam_potsa.engine.run_directory import file_hash, model_hash
from slam_potsa.errors import InputError, refuse
from slam_potsa.files import alone
from slam_potsa.model.llm import from_pretrained, llm_dtype

PEERS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def decode_peer(
    system: str, model: str, manifest: str | Path, prefix: str | Path, task: str, **search: Any
) -> list[Prediction]:
    """Decode `manifest` into the files that a run's decoding writes; continues where it stopped.

    Args:
        system: a name of PEERS. model: a folder or hub name. task: asr or s2tt.
        search: options of `generate`.

    Raises InputError, before the model is loaded, for what the system cannot be asked.
    """
    if system not in PEERS:
        raise InputError(f"--system {system}: expected one of {', '.join(PEERS)}")
    rows, how = read_manifest(manifest), {"system": system, "model": model, "task": task}
    refuse(_problems(system, rows, task))
    how |= {"the manifest's content": file_hash(manifest), "table": PEERS[system], **search}
    how |= {"the model's content": model_hash(model)}
    how |= {"content of the recordings": recordings_hash(manifest)}
    with alone(Path(prefix).parent, "is decoding", prefix=Path(prefix).name):
        journal = Journal(prefix, how)
        if todo := [row for row in rows if row.key not in journal.answers()]:
            parts = load_peer(system, model)
            answers = (
                answer_to(system, parts, row, Path(manifest).parent, task, search)
                for row in tqdm(todo, desc="decoding", unit="utt")
            )
            journal.add(0, ([answer] for answer in answers))
        config = PotsaConfig()
        config.dataset_config.tasks, config.decode.num_beams = [task], search.get("num_beams", 1)
        found = predictions_of(config, rows, {}, journal.answers())
        return write_decoded(prefix, journal, found, manifest)


def load_peer(system: str, path: str) -> tuple[Any, Any]:
    """(Model, processor). Raises InputError where transformers has no such class."""
    import transformers

    kind = getattr(transformers, name := PEERS[system]["model"], None)
    if kind is None:
        raise InputError(f"transformers {transformers.__version__} has no {name}: another may have")
    processor = _processor(PEERS[system], path)
    model = from_pretrained(kind, path, "--model", dtype=llm_dtype("auto"))
    return model.to(device()).eval(), processor


def _processor(peer: Mapping[str, Any], path: str) -> Any:
    import transformers

    if "hears" not in peer:
        return from_pretrained(transformers.AutoProcessor, path, "--model")

    class Hears(getattr(transformers, peer["hears"])):
        """Without its processors of pictures and videos, which would need torchvision."""

        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            return argument and super().check_argument_for_proper_class(name, argument)

    parts = {"feature_extractor": "AutoFeatureExtractor", "tokenizer": "AutoTokenizer"}
    found = {
        k: from_pretrained(getattr(transformers, v), path, "--model") for k, v in parts.items()
    }
    return Hears(**found)


@torch.inference_mode()
def answer_to(
    system: str, parts: tuple[Any, Any], row: Utterance, base: Path, task: str, search: Any
) -> Answer:
    """What the system writes."""
    (model, processor), peer = parts, PEERS[system]
    found = _inputs(peer["form"], processor, _with_codes(peer["prompt"][task], row), row, base)
    inputs = {name: value.to(model.device) for name, value in found.items() if hasattr(value, "to")}
    inputs = {n: v.to(model.dtype) if v.is_floating_point() else v for n, v in inputs.items()}
    own = {k: _with_codes(v, row) for k, v in peer.get("options", {}).get(task, {}).items()}
    output = model.generate(**inputs, do_sample=False, **search, **own)
    start = inputs["input_ids"].shape[1] if peer["answer"] == "new" else 0
    text = processor.batch_decode(output[:, start:], skip_special_tokens=True)[0].strip()
    ends = model.generation_config.eos_token_id
    ended = not {*(ends if isinstance(ends, list) else [ends])}.isdisjoint(
        output[0, start:].tolist()
    )
    long = output.shape[1] - start >= search.get("max_new_tokens", math.inf)
    return Answer(row.key, [text], cut=long and not ended)


def _inputs(form: str, processor: Any, prompt: str, row: Utterance, base: Path) -> Mapping:
    if form == "conversation":
        turn = [{"type": "audio", "path": str(base / row.audio)}, {"type": "text", "text": prompt}]
        return processor.apply_chat_template([{"role": "user", "content": turn}])
    given = {"audio": load_audio(row.audio, base, duration=row.duration), "return_tensors": "pt"}
    if form == "audio":
        return processor(**given, sampling_rate=SAMPLE_RATE)
    if form == "chat":
        chat = {"tokenize": False, "add_generation_prompt": True}
        turns = [{"role": "user", "content": prompt}]
        prompt = processor.tokenizer.apply_chat_template(turns, **chat)
    return processor(text=prompt, **given)


def _problems(system: str, rows: list[Utterance], task: str) -> Iterator[str]:
    peer = PEERS[system]
    if task not in peer["prompt"]:
        yield f"--task {task}: {system} is asked for {', '.join(peer['prompt'])} here"
    if (package := peer.get("needs")) and find_spec(package.replace("-", "_")) is None:
        yield f"{system}: its processor needs {package}: pip install {package}"
    asked = {row.target_language for row in rows} if task == "s2tt" else set()
    for target in sorted(map(str, asked)):
        if target == "None" or target not in peer.get("targets", [target]):
            can = ", ".join(peer.get("targets", ["a target_language in every row"]))
            yield f"{system} cannot translate into {target}: expected {can}"


def _with_codes(text: str, row: Utterance) -> str:
    for name, code in (("iso639_3", row.language), ("target_iso639_3", row.target_language)):
        if f"{{{name}}}" in text:
            text = text.replace(f"{{{name}}}", find_language(code or "").iso639_3)
    return filled(text, row)
