"""Bias compensation: eq. 1-2 of POTSA.

    b_l  = 1/N_l  sum_i  mean_t H_i[t]          over the N_l utterances i of language l    (eq. 1)
    H~_i = H_i - b_l                             on every valid frame                       (eq. 2)

Shapes: B utterances, T encoder frames, E encoder width, L languages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from slam_potsa.data.languages import language_code, language_id
from slam_potsa.errors import InputError
from slam_potsa.model.carried_state import CarriedState
from slam_potsa.provenance import refuse_damaged, sealed

METADATA = "slam_potsa language bias 1"
PADDED = "+padding"  # ends the fingerprint where the silence that fills the window counted as valid


@dataclass
class BiasStatistics:
    """The running sums of eq. 1 in float64, by language."""

    sums: dict[str, Tensor] = field(default_factory=dict)  # [E], of the means of utterances
    counts: dict[str, int] = field(default_factory=dict)  # utterances

    def update(self, frames: Tensor, language: str) -> None:
        """Add an utterance of `language`: its valid encoder frames [T, E], one at least."""
        language_id(language)  # refuses codes that no batch could carry
        mean = frames.detach().double().mean(0).cpu()
        if not bool(torch.isfinite(mean).all()):
            told = "an utterance without an encoder frame, or with NaN or infinity in them"
            raise InputError(f"language bias: {told}")
        self.sums[language] = self.sums.get(language, 0) + mean
        self.counts[language] = self.counts.get(language, 0) + 1

    def means(self) -> dict[str, Tensor]:
        """b_l [E], float32, by language in alphabetical order."""
        return {code: (self.sums[code] / self.counts[code]).float() for code in sorted(self.counts)}


class LanguageBias(nn.Module):
    """Subtracts b_l from the encoder output of an utterance in language l (eq. 2).

    Args:
        biases: b_l [E] by language code; the attribute holds them as estimated, before `center`.
        counts: N_l, the utterances each was estimated from.
        center: "all" subtracts b_l, as the paper; "language_only" b_l - mean over l of b_l.
        unseen_language: what is subtracted where l was never estimated: "mean" (of all b_l), "zero"
            (nothing), or "error". The paper does not say.
        fingerprint: hash of encoder, window and preprocessing that the biases belong to.
        trained: the b_l are a parameter, which starts as they are given; as the authors' working
            tree has it. What is saved, here and in checkpoints, is what has become of them.

    Raises InputError on an empty table or widths that differ.
    """

    def __init__(
        self,
        biases: Mapping[str, Tensor],
        counts: Mapping[str, int] | None = None,
        *,
        center: str = "all",
        unseen_language: str = "mean",
        fingerprint: str = "",
        manifest: str = "",
        trained: bool = False,
    ):
        super().__init__()
        if not biases:
            raise InputError("language bias: no language given; estimate it from speech first")
        shapes = {language: tuple(bias.shape) for language, bias in biases.items()}
        if len(set(shapes.values())) > 1:
            raise InputError(f"language bias: expected one width for all languages, got {shapes}")
        self.center, self.unseen_language = center, unseen_language
        self.fingerprint, self.manifest = fingerprint, manifest
        self.carried = CarriedState()
        rows = torch.stack([biases[code].float() for code in sorted(biases)])  # [L, E]
        self.trained = nn.Parameter(rows) if trained else None
        self._set(biases, dict(counts or {}))
        self.register_load_state_dict_post_hook(_restore_tables)

    def forward(self, hidden: Tensor, mask: Tensor | None, language_ids: Tensor) -> Tensor:
        """H~ [B, T, E] in float32 at least: what is outside `mask` [B, T] becomes zero.

        `language_ids` [B] int64 as made by `data.languages.language_id`.
        """
        if language_ids.shape != hidden.shape[:1]:
            shape = list(language_ids.shape)
            raise InputError(f"language_ids: expected one a row, [{len(hidden)}], got {shape}")
        if self.unseen_language == "error":
            self._refuse_unseen(language_ids)
        bias = self.lookup(language_ids)
        # float32 whatever the trainer casts to: the difference of two near vectors loses digits.
        shifted = hidden.to(torch.promote_types(hidden.dtype, torch.float32)) - bias[:, None]
        return shifted if mask is None else torch.where(mask.bool()[..., None], shifted, 0.0)

    def lookup(self, language_ids: Tensor) -> Tensor:
        """The vector subtracted for each id: [B] -> [B, E] float32. Never waits for the device."""
        if self.table.device != language_ids.device:
            # By hand, for they are no buffers: a trainer's .half() must not touch them.
            self.table = self.table.to(language_ids.device)
            self.ids = self.ids.to(language_ids.device)
        table = self.table
        if self.trained is not None:
            table = self._with_unseen(self.trained.to(language_ids.device))
        match = language_ids[:, None] == self.ids  # [B, L]; none true: the unseen row L
        row = torch.where(match.any(1), match.int().argmax(1), len(self.languages))
        return table[row]

    def _set(self, biases: Mapping[str, Tensor], counts: dict[str, int]) -> None:
        # Plain attributes: no trainer may cast or broadcast them; `carried` is what travels.
        self.biases = {code: biases[code].detach().float().cpu() for code in sorted(biases)}
        self.languages, self.counts = tuple(self.biases), counts
        rows = torch.stack(list(self.biases.values()))
        if self.trained is not None:
            self.trained.data = rows.to(self.trained.device)
        self.table, self.width = self._with_unseen(rows), rows.shape[1]
        self.ids = torch.tensor([language_id(code) for code in self.biases])
        self.carried.write(self._serialize())

    def _with_unseen(self, rows: Tensor) -> Tensor:
        """The b_l [L, E] as they are subtracted, [L + 1, E]: the last where there is none."""
        if self.center == "language_only":
            rows = rows - rows.mean(0, keepdim=True)
        unseen = rows.mean(0, keepdim=True) * float(self.unseen_language == "mean")
        return torch.cat([rows, unseen])

    def keep_trained(self) -> None:
        """Let `biases`, and so what is carried and saved, follow the parameter."""
        if self.trained is not None:
            self.biases = dict(zip(self.languages, self.trained.detach().cpu(), strict=True))
            self.carried.write(self._serialize())

    def _save_to_state_dict(self, *args: Any) -> None:  # before that of what is carried
        self.keep_trained()
        super()._save_to_state_dict(*args)

    def _serialize(self) -> bytes:
        names = ("center", "unseen_language", "fingerprint", "manifest", "counts")
        about = {name: getattr(self, name) for name in names}
        tensors = {code: bias.contiguous() for code, bias in self.biases.items()}
        # One key: safetensors writes several in no fixed order, and the same biases must give the
        # same bytes.
        return save(tensors, {METADATA: json.dumps(about, sort_keys=True)})

    def _refuse_unseen(self, language_ids: Tensor) -> None:
        known = {int(i) for i in self.ids.tolist()}
        unseen = sorted({int(i) for i in language_ids.tolist()} - known)
        names = ", ".join(language_code(i) if i >= 0 else "(none given)" for i in unseen)
        if unseen:
            raise InputError(
                f"no language bias for {names}; there are {', '.join(self.languages)}. Estimate it "
                "from untranscribed speech with `slam-potsa bias`, or set "
                "language_bias.unseen_language=mean"
            )

    def save(self, path: str | Path) -> None:
        """Write `language_bias.safetensors`, sealed: an [E] float32 vector a language, metadata."""
        self.keep_trained()
        with sealed(path) as temporary:
            temporary.write_bytes(self._serialize())

    @classmethod
    def load(cls, path: str | Path, **overrides: Any) -> LanguageBias:
        """Read what `save` wrote; `center` and the like may be overridden."""
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file; estimate biases with `slam-potsa bias`")
        refuse_damaged(path)
        try:
            return cls.from_bytes(path.read_bytes(), **overrides)
        except (ValueError, KeyError, SafetensorError) as error:
            raise InputError(f"{path}: not a file of language biases ({error})") from error

    @classmethod
    def from_bytes(cls, payload: bytes, **overrides: Any) -> LanguageBias:
        """From the bytes of a `language_bias.safetensors` (also what checkpoints carry)."""
        biases, about = _parse(payload)
        return cls(biases, **(about | overrides))

    def check_fingerprint(self, expected: str) -> None:
        """Raise InputError when these biases belong to another encoder or window."""
        if self.fingerprint and expected and self.fingerprint.removesuffix(PADDED) != expected:
            raise InputError(
                f"language biases were estimated with another encoder or window "
                f"({self.fingerprint[:16]}, this model's is {expected[:16]}): estimate them again "
                "with `slam-potsa bias`"
            )

    def check_frames(self, attend_padding: bool) -> None:
        """Raise InputError when b_l was averaged over other frames than batches mark as valid."""
        if not self.fingerprint or self.fingerprint.endswith(PADDED) == attend_padding:
            return
        found, there = ("spoken frames", "all 30 s")[:: 1 if attend_padding else -1]
        raise InputError(
            f"language biases are means over {found}, but the batches mark {there} as speech: "
            f"estimate them with `slam-potsa bias{' --attend-padding' * attend_padding}`, or set "
            f"dataset_config.attend_padding={str(not attend_padding).lower()}"
        )


def _restore_tables(module: LanguageBias, _incompatible) -> None:
    """After load_state_dict: the tables follow the bytes that the checkpoint carried."""
    payload = module.carried.read()
    if payload is None:
        return
    try:
        biases, about = _parse(payload)
        if {bias.shape for bias in biases.values()} != {(module.width,)}:
            raise ValueError(f"expected {module.width} numbers for each language")
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        module.carried.write(module._serialize())
        raise InputError(f"language biases of the checkpoint: damaged ({error})") from None
    module.fingerprint, module.manifest = about["fingerprint"], about["manifest"]
    module._set(biases, about["counts"])


def _parse(payload: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Biases, and what is said about them, of a safetensors byte string."""
    tensors = load(payload)
    length = int.from_bytes(payload[:8], "little")  # safetensors: header length, header, tensors
    header = json.loads(payload[8 : 8 + length])
    about = json.loads(header["__metadata__"][METADATA])
    kinds = {"center": str, "unseen_language": str, "fingerprint": str, "manifest": str}
    kinds["counts"] = dict
    if not isinstance(about, dict) or {k: type(v) for k, v in about.items()} != kinds:
        raise ValueError(f"expected {', '.join(kinds)}")
    if not all(type(n) is int and n > 0 for n in about["counts"].values()):
        raise ValueError("counts: expected numbers of utterances")
    for code, bias in tensors.items():
        language_id(code)
        is_row = bias.ndim == 1 and bias.is_floating_point()
        if not is_row or not bool(bias.float().isfinite().all()):  # as it is used: float64 has more
            raise ValueError(f"{code}: expected a row of finite numbers, got {list(bias.shape)}")
    return tensors, about
