"""The Whisper encoder, at the true length of an utterance or over Whisper's 30 s window.

transformers' own forward insists on 3,000 mel frames. This one runs the same modules over any
length, with padding masked out of the convolutions and of attention, so that the features of an
utterance do not depend on what it is batched with.

Shapes: B utterances, F mel frames (10 ms), M mel bands, T = ceil(F / 2) encoder frames (20 ms).
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slam_potsa.errors import InputError
from slam_potsa.model.llm import from_pretrained

ENCODER = "model_config.encoder_path_hf"


class SpeechEncoder(nn.Module):
    """Wraps a transformers `WhisperEncoder`.

    Args:
        whisper: the module.
        window: "30s" or "trimmed"; part of `fingerprint`, since features differ between the two.
    """

    def __init__(self, whisper: nn.Module, window: str = "30s"):
        super().__init__()
        self.whisper, self.window = whisper, window
        config = whisper.config
        self.width, self.n_mels = config.d_model, config.num_mel_bins
        self.max_frames = config.max_source_positions
        self._fingerprint: str | None = None
        # transformers 4 insists on this argument, transformers 5 no longer has it.
        arguments = inspect.signature(whisper.layers[0].forward).parameters
        self._layer_options = {"layer_head_mask": None} if "layer_head_mask" in arguments else {}

    def forward(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mel` [B, F, M], `mask` [B, T] true on valid encoder frames (None: all) -> [B, T, E].

        With the 30 s window the mask is not used: Whisper attends to the silence that fills it.
        Raises InputError beyond Whisper's 30 s.
        """
        frames = mel.shape[1] + mel.shape[1] % 2
        if frames // 2 > self.max_frames:
            seconds, most = mel.shape[1] / 100, self.max_frames / 50
            raise InputError(f"audio of {seconds:.1f} s: Whisper reads at most {most:.0f} s")
        mel = F.pad(mel, (0, 0, 0, frames - mel.shape[1]))
        mel = mel.to(self.whisper.conv1.weight.dtype)
        if mask is None or self.window == "30s":
            mask = torch.ones(mel.shape[0], frames // 2, device=mel.device)
        mask = mask.bool()
        hidden = self._convolve(mel.transpose(1, 2), mask.repeat_interleave(2, dim=1)[:, None])
        hidden = hidden.transpose(1, 2) + self.whisper.embed_positions.weight[: frames // 2]
        attend = torch.zeros_like(mask, dtype=hidden.dtype)  # [B, 1, 1, T], added to the scores
        attend = attend.masked_fill(~mask, torch.finfo(hidden.dtype).min)[:, None, None, :]
        for layer in self.whisper.layers:
            output = layer(hidden, attend, **self._layer_options)
            hidden = output if isinstance(output, Tensor) else output[0]
        return self.whisper.layer_norm(hidden)

    def _convolve(self, mel: Tensor, valid: Tensor) -> Tensor:
        """Both convolutions see zeros beyond the utterance, as they do at the end of a lone one."""
        hidden = F.gelu(self.whisper.conv1(torch.where(valid, mel, 0.0)))
        return F.gelu(self.whisper.conv2(torch.where(valid, hidden, 0.0)))

    def extract_variable_length_features(self, mel: Tensor) -> Tensor:
        """SLAM-LLM's name for a Whisper encoder's forward: `mel` [B, M, F] -> [B, T, E]."""
        return self(mel.transpose(1, 2))

    def fingerprint(self) -> str:
        """Hash of weights, sizes and window: what stored features and biases belong to.

        Computed once, so that it does not change when a trainer casts the encoder later.
        """
        if self._fingerprint is None:
            about = json.dumps([self.window, self.width, self.n_mels])
            digest = hashlib.sha256(about.encode())
            for name, tensor in sorted(self.whisper.state_dict().items()):
                digest.update(name.encode())
                digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


def adapt_encoder(encoder: SpeechEncoder, layers: int | None, dtype: torch.dtype) -> SpeechEncoder:
    """Freeze all but the last `layers` and the norm behind them; None: all of it trains.

    Whisper's positions never train. Frozen throughout, it is cast to `dtype`. Raises InputError
    where there are not as many layers.
    """
    whisper = encoder.whisper
    if (layers or 0) > (there := len(whisper.layers)):
        raise InputError(f"train_config.train_parts: encoder.last_{layers}, but there are {there}")
    encoder.requires_grad_(layers is None)
    for part in (*whisper.layers[-layers:], whisper.layer_norm) if layers else ():
        part.requires_grad_(True)
    whisper.embed_positions.requires_grad_(False)
    return encoder.to(dtype) if layers == 0 else encoder


def load_encoder(
    path: str, window: str = "30s", state: Mapping[str, Tensor] | None = None
) -> SpeechEncoder:
    """From a transformers folder or hub name: a whole Whisper or its encoder alone.

    Loaded in float32, in evaluation mode. Raises InputError when it is neither.

    Args:
        state: a checkpoint, of which the encoder's weights that a stage trained are taken.
    """
    from transformers import WhisperModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    if (encoder_config(path).architectures or [""])[0] == "WhisperEncoder":
        whisper = from_pretrained(WhisperEncoder, path, ENCODER, dtype=torch.float32)
    else:
        whisper = from_pretrained(WhisperModel, path, ENCODER, dtype=torch.float32).get_encoder()
    encoder = SpeechEncoder(whisper.eval(), window)
    own = encoder.state_dict()
    trained = encoder_state(state or {}).items()  # what does not fit, `require_fit` tells of
    fitting = {n: tensor for n, tensor in trained if n in own and own[n].shape == tensor.shape}
    encoder.load_state_dict(own | fitting)
    return encoder


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a trained encoder in a checkpoint, by their names in it."""
    own = "encoder."
    return {name.removeprefix(own): t for name, t in state.items() if name.startswith(own)}


def encoder_fingerprint(path: str, window: str = "30s") -> str:
    """`load_encoder(path, window).fingerprint()`, worked out once a process for the same files."""
    files = sorted(Path(path).glob("*"))  # none for a hub's name
    return _fingerprint(path, window, tuple((f.name, f.stat().st_mtime_ns) for f in files))


@cache
def _fingerprint(path: str, window: str, _files: tuple[Any, ...]) -> str:
    return load_encoder(path, window).fingerprint()


def encoder_config(path: str) -> Any:
    """The Whisper configuration at `path`. Raises InputError where there is none."""
    from transformers import AutoConfig

    config = from_pretrained(AutoConfig, path, ENCODER)
    if config.model_type != "whisper":
        raise InputError(f"{ENCODER}={path!r}: expected a Whisper, got {config.model_type!r}")
    return config
