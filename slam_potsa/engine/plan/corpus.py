"""How much there is to train on: counted in the manifest where it is here, else assumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slam_potsa.config import DatasetConfig, PotsaConfig
from slam_potsa.data.dataset import training_items
from slam_potsa.data.tasks import NEEDS, answer, question
from slam_potsa.errors import InputError

FIRST_IDEOGRAPH = "\u2e80"  # Chinese, Japanese and Korean writing lies above
FLEURS_LANGUAGES = ("en", "ja", "es", "ko", "ru")  # POTSA 4.1


@dataclass(frozen=True)
class Lengths:
    """Lengths of rows: all of them, or a mean with an assumed spread."""

    mean: float
    longest: float
    values: tuple[float, ...] = ()  # in ascending order
    spread: float = 1.0

    @classmethod
    def of(cls, values: Sequence[float]) -> Lengths:
        values = tuple(sorted(values))
        return cls(sum(values) / len(values), values[-1], values)

    def expected_longest(self, rows: int) -> float:
        """The mean, over batches, of the longest of `rows` drawn at random.

        E max = sum_i x_i ((i/n)^k - ((i-1)/n)^k) over the n values in ascending order.
        """
        if not self.values:
            return min(self.longest, self.mean * self.spread) if rows > 1 else self.mean
        below = [(i / len(self.values)) ** rows for i in range(len(self.values) + 1)]
        return sum(x * (below[i + 1] - below[i]) for i, x in enumerate(self.values))


@dataclass(frozen=True)
class Corpus:
    """What a stage trains on."""

    source: str  # where the numbers are from
    counted: bool
    recordings: int
    hours: float
    items: int  # of an epoch
    pairs: int  # of the items; a pair is two rows
    seconds: Lengths
    answers: Lengths  # LLM tokens, with eos
    prompt: int  # LLM tokens of the longest
    languages: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Without the length of every recording."""
        return asdict(self, dict_factory=lambda fields: {k: v for k, v in fields if k != "values"})


def corpus_of(config: PotsaConfig, given: Mapping[str, float]) -> Corpus:
    """The training data of a stage.

    Args:
        given: the assumptions, by name.

    Raises InputError with every bad line of a manifest that is here, or without durations.
    """
    if Path(config.dataset_config.train_data_path or "").is_file():
        return _counted(config, given)
    return _assumed(config.dataset_config, given)


def _counted(config: PotsaConfig, given: Mapping[str, float]) -> Corpus:
    data, items = config.dataset_config, training_items(config.dataset_config)
    rows, path = items.utterances, data.train_data_path
    seconds = [u.duration for u in rows]
    if None in seconds:
        raise InputError(
            f"{path}: {seconds.count(None)} recordings have no `duration`, which a plan needs; "
            "write them with `slam-potsa prepare`"
        )
    count, how = _counter(config.model_config.llm_path, given)
    answers = [count(answer(data, task, u)) + 1 for u in rows for task in data.tasks]
    # One utterance of each language will do: prompts differ by no more.
    some = {(u.language, u.target_language): u for u in rows}.values()
    prompts = [count(question(data, task, u)) for u in some for task in dict.fromkeys(data.tasks)]
    return Corpus(
        source=f"{path}: {len(rows):,} recordings; answers counted {how}",
        counted=True,
        recordings=len(rows),
        hours=sum(seconds) / 3600,
        items=len(items),
        pairs=items.num_pairs,
        seconds=Lengths.of(seconds),
        answers=Lengths.of(answers),
        prompt=math.ceil(max(prompts)),
        languages=tuple(sorted({u.language for u in rows})),
    )


def _assumed(data: DatasetConfig, given: Mapping[str, float]) -> Corpus:
    english = "covost" in data.train_data_path.lower()
    corpus, languages = ("covost2", ("en",)) if english else ("fleurs", FLEURS_LANGUAGES)
    count = 1 if english else given["fleurs_languages"]
    recordings = count * given[f"{corpus}_recordings"]
    hours = count * given[f"{corpus}_hours"]
    pairs = recordings // 2 if data.pairing != "none" and count > 1 else 0
    answers = [1 + sum(given[f"{corpus}_{p}_tokens"] for p in NEEDS[task]) for task in data.tasks]
    mean, longest = sum(answers) / len(answers), given["longest_answer"] * max(answers)
    prompts = {"asr": data.asr_prompt, "cot": data.cot_prompt}
    letters = max(len(prompts.get(task, data.prompt)) for task in data.tasks)
    missing = f"{data.train_data_path} is not here" if data.train_data_path else "no manifest"
    seconds, spread = 3600 * hours / recordings, given["batch_spread"]
    return Corpus(
        source=f"{missing}; assumed {'CoVoST2 en' if english else f'FLEURS, {count} languages'}",
        counted=False,
        recordings=recordings,
        hours=hours,
        items=pairs or recordings,
        pairs=pairs,
        seconds=Lengths(seconds, given["longest_seconds"], spread=spread),
        answers=Lengths(mean, longest, spread=spread),
        prompt=math.ceil(letters * given["tokens_per_letter"]),
        languages=languages[:count],
    )


def _counter(llm_path: str, given: Mapping[str, float]) -> tuple[Callable[[str], float], str]:
    """`(tokens of a text, how)`: by the LLM's tokenizer where it is here."""
    if Path(llm_path).is_dir():
        from slam_potsa.model.llm import load_tokenizer

        try:
            encode = load_tokenizer(llm_path).encode
            return (lambda text: len(encode(text, add_special_tokens=False))), "by the LLM"
        except InputError:
            pass  # a folder with config.json alone

    def estimate(text: str) -> float:
        dense = sum(letter >= FIRST_IDEOGRAPH for letter in text)
        return dense * given["tokens_per_ideograph"] + (
            (len(text) - dense) * given["tokens_per_letter"]
        )

    return estimate, "by their characters"
