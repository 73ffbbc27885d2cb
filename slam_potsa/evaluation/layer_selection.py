"""Which layers can be aligned: those where a sentence finds itself on the other side (AI-STA 4.2).

    D_ij = W(x_i, y_j)                     the Wasserstein distance of two token sequences   (eq. 3)
    MRR  = 1/Q Σ_i 1/r_i                   r_i: the rank of y_i among all y by D_i           (eq. 4)
    I    = {l : MRR at layer l > 0.05}                                                       (eq. 5)

x is speech and y its transcript at a layer of the LLM; or, which no paper has, both are speech, in
two languages, at a layer of the Q-Former (strategy (vi) beside POTSA's Table 3).

A rank only asks which distances are below the matched one, and W is never below the cost of sending
each token to its nearest (the larger of both ways, a relaxation). So most of the Q² problems are
never solved, and the matrix is never held. One layer's tokens are in memory at a time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from slam_potsa.data.jsonl import Log
from slam_potsa.data.manifest import Utterance
from slam_potsa.data.pairs import ParallelSpeechDataset
from slam_potsa.engine.run_directory import frozen_models
from slam_potsa.errors import InputError
from slam_potsa.evaluation import figures
from slam_potsa.evaluation.activations import padded, record, rows_of
from slam_potsa.files import atomic_write
from slam_potsa.model.taps import llm_blocks
from slam_potsa.objective.transport import transport
from slam_potsa.provenance import content_hash

if TYPE_CHECKING:
    from slam_potsa.engine.decode import Translator

FOLDER = "layers"
NUMBERS = 1 << 26  # float32 numbers in work at once, 256 MiB
TIE = 1e-5  # of distance and squared norm: what is closer is equal, as in a space that collapsed

Tokens = Sequence[Tensor]  # of Q recordings or texts, [n_i, D] each
Padded = tuple[Tensor, Tensor]  # [Q, N, D], and which are valid [Q, N]
Pair = tuple[Utterance, Utterance]
Sides = Callable[[int], tuple[Tokens, Tokens]]  # layer -> (x, y)


@dataclass(frozen=True)
class SelectionSettings:
    """What the choice depends on besides model and manifest."""

    pairs: int = 1000  # at most, drawn by the seed (AI-STA 4.2)
    threshold: float = 0.05  # on MRR (AI-STA 4.2)
    seed: int = 0
    epsilon: float = 0.02  # of W, times the mean cost; ours: the paper's W has none
    max_iterations: int = 100


@dataclass(frozen=True)
class Selection:
    """MRR by layer, "llm" or "qformer" of a run."""

    part: str
    made_from: dict[str, Any]
    queries: int
    mrr: dict[int, float] = field(default_factory=dict)

    @property
    def layers(self) -> list[int]:
        return [k for k, value in self.mrr.items() if value > self.made_from["threshold"]]

    def text(self) -> str:
        chance = sum(1 / rank for rank in range(1, self.queries + 1)) / self.queries
        rows = "".join(f"\n  {k:3d}  {value:.4f}" for k, value in self.mrr.items())
        chosen = f"above {self.made_from['threshold']:g}: {self.layers or 'none'}"
        return f"{self.part}, MRR of {self.queries} (chance {chance:.4f}){rows}\n{chosen}"


def select_layers(
    translator: Translator, manifest: str | Path, folder: Path, part: str = "llm", **settings: Any
) -> Selection:
    """Measure every layer; writes `<part>.yaml` and `<part>.svg` into `folder`.

    What an interrupted call has measured is kept there, and taken up. Fields of
    `SelectionSettings` are options.

    Raises InputError with every line of the manifest that has no transcript (of "llm"), or where
    fewer than two pairs are left.
    """
    how = SelectionSettings(**settings)
    made_from = {"checkpoint": content_hash(translator.config.ckpt_path), **asdict(how)}
    made_from |= {"manifest": content_hash(manifest), **frozen_models(translator.config, manifest)}
    pairs = draw_pairs(manifest, part, how)
    meanings = [y.transcript if part == "llm" else y.sentence_id for _, y in pairs]
    found = Selection(part, made_from, len(pairs))
    with Log(folder / f"{part}.jsonl") as log:
        same = (row for row in log.rows if row["made_from"] == made_from)
        found.mrr.update((row["layer"], row["mrr"]) for row in same)
        sides, layers = (_llm if part == "llm" else _qformer)(translator, pairs)
        for layer in tqdm([k for k in layers if k not in found.mrr], desc=part, unit="layer"):
            ranks = reciprocal_ranks(*sides(layer), meanings, how, translator.device)
            found.mrr[layer] = round(ranks.mean().item(), 6)
            log.add([{"made_from": made_from, "layer": layer, "mrr": found.mrr[layer]}])
    write(folder, found)
    return found


def draw_pairs(manifest: str | Path, part: str, how: SelectionSettings) -> list[Pair]:
    """An utterance with itself; or two of one sentence, in two languages that were drawn."""
    rows = rows_of(manifest, *["transcript"] * (part == "llm"))
    pairs = [(row, row) for row in rows]
    if part == "qformer":
        drawn = (item for item in ParallelSpeechDataset(rows, seed=how.seed) if len(item) == 2)
        pairs = [*{item[0].sentence_id: item for item in drawn}.values()]
    chosen = random.Random(f"layers:{how.seed}").sample(pairs, min(how.pairs, len(pairs)))
    if len(chosen) < 2:
        wanted = "a transcript" if part == "llm" else "a sentence_id in two languages"
        raise InputError(f"{manifest}: found {len(chosen)} with {wanted}, expected at least 2")
    return chosen


def _llm(translator: Translator, pairs: Sequence[Pair]) -> tuple[Sides, range]:
    """Speech as the LLM receives it, and transcripts, each through its blocks alone."""
    rows, model = [row for row, _ in pairs], translator.model
    speech = _tokens(translator, rows, ["projector"])["projector"]
    ids = (translator.tokenizer.encode(r.transcript, add_special_tokens=False) for r in rows)
    texts = [*map(torch.tensor, ids)]
    size, dtype = translator.config.train_config.val_batch_size, model.llm.dtype

    def states(layer: int, name: str, sequences: Tokens) -> list[Tensor]:
        found = []
        for start in range(0, len(sequences), size):
            batch = sequences[start : start + size]
            inputs = pad_sequence(batch, batch_first=True).to(translator.device)
            inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
            hidden = model.controller.recorder.read([f"llm.{layer}"], **{name: inputs})
            hidden = hidden[f"llm.{layer}"].tensor.float().cpu()
            found += [row[: len(own)] for row, own in zip(hidden, batch, strict=True)]
        return found

    layers = range(len(llm_blocks(model.llm)) + 1)
    return lambda k: (states(k, "inputs_embeds", speech), states(k, "input_ids", texts)), layers


def _qformer(translator: Translator, pairs: Sequence[Pair]) -> tuple[Sides, range]:
    layers = range(1, len(translator.model.encoder_projector.layers) + 1)
    names = [f"qformer.{layer}" for layer in layers]
    found = _tokens(translator, [row for pair in pairs for row in pair], names)
    return lambda k: (found[f"qformer.{k}"][::2], found[f"qformer.{k}"][1::2]), layers


def _tokens(
    translator: Translator, rows: Sequence[Utterance], taps: list[str]
) -> dict[str, list[Tensor]]:
    found = record(translator, rows, taps, keep=range(len(rows)), positions=1 << 20)
    return {tap: [own.tokens[row] for row in range(len(rows))] for tap, own in found.items()}


@torch.inference_mode()
def reciprocal_ranks(
    x: Tokens, y: Tokens, meanings: Sequence[str], settings: SelectionSettings, device: Any = "cpu"
) -> Tensor:
    """1/r_i [Q] of y_i among all y, by W from x_i (eq. 3-4).

    Other y of the same meaning are no rivals. Distances that are equal up to rounding count half,
    so that a space that collapsed to a point is not perfect.
    """
    meant = torch.tensor([meanings.index(meaning) for meaning in meanings])
    searched, every, found = padded(y, device), torch.arange(len(x)), []
    block = max(1, NUMBERS // (max(map(len, x)) * searched[1].numel()))
    for rows in tqdm(every.split(block), desc="ranks", leave=False, disable=None):
        asked = padded([x[row] for row in rows], device)
        matched = _distances(asked, searched, torch.arange(len(rows)), rows, settings)
        tie = TIE * (matched + asked[0].square().sum(2).mean().cpu())
        near = _at_least(asked, searched).cpu() <= (matched + tie)[:, None]
        which, other = (near & (meant[rows][:, None] != meant[None])).nonzero().unbind(1)
        behind = _distances(asked, searched, which, other, settings) - matched[which]
        tie = tie[which]
        ahead = (behind < -tie).float() + 0.5 * (behind.abs() <= tie)
        found.append(1 / (1 + torch.zeros(len(rows)).index_add_(0, which, ahead)))
    return torch.cat(found)


def _distances(
    x: Padded, y: Padded, which: Tensor, other: Tensor, settings: SelectionSettings
) -> Tensor:
    """⟨Γ, C⟩ of x[which] and y[other], on the host."""
    (xs, x_mask), (ys, y_mask) = x, y
    numbers = (xs.shape[1] + ys.shape[1]) * xs.shape[2] + 4 * xs.shape[1] * ys.shape[1]
    size = max(1, NUMBERS // numbers)
    how = {"epsilon": settings.epsilon, "max_iterations": settings.max_iterations}
    found = [
        transport(xs[i], ys[j], x_mask[i], y_mask[j], cost_scale="none", **how).cost.cpu()
        for i, j in zip(which.split(size), other.split(size), strict=True)
    ]
    return torch.cat(found)


def _at_least(x: Padded, y: Padded) -> Tensor:
    """A lower bound of W [Q_x, Q_y]: each token to its nearest, whatever the others do."""
    (xs, x_mask), (ys, y_mask) = x, y
    cost = torch.cdist(xs.flatten(0, 1), ys.flatten(0, 1)).square()
    cost = cost.view(*xs.shape[:2], *ys.shape[:2])  # [Q_x, N, Q_y, M]
    there = cost.masked_fill(~y_mask, torch.inf).amin(3)  # [Q_x, N, Q_y]
    back = cost.masked_fill(~x_mask[:, :, None, None], torch.inf).amin(1)  # [Q_x, Q_y, M]
    there = (there * x_mask[:, :, None]).sum(1) / x_mask.sum(1)[:, None]
    back = torch.where(y_mask, back, 0.0).sum(2) / y_mask.sum(1)
    return torch.maximum(there, back)


def write(folder: Path, found: Selection) -> None:
    """The layers as configuration, and MRR over layers as AI-STA's Fig. 4 has it."""
    path = folder / f"{found.part}.yaml"
    told = "".join(f"#   {line}\n" for line in found.text().splitlines())
    use = f"alignment.terms.NAME.layers='${{selected_layers:{path}}}'"
    atomic_write(path, f"# {use}\n{told}layers: {found.layers}\n")
    layers, threshold = [*found.mrr], [found.made_from["threshold"]] * len(found.mrr)
    lines = [figures.Series("MRR", layers, [*found.mrr.values()])]
    lines.append(figures.Series("threshold", layers, threshold, 7, 2))
    title = f"Retrieval of {'text' if found.part == 'llm' else 'speech'} by speech, layer by layer"
    svg = figures.line_chart(lines, title=title, x_label="layer", y_label="MRR")
    atomic_write(folder / f"{found.part}.svg", figures.standalone(svg))
