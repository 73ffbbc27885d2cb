"""How much there is to train on: counted in the manifest where it is here, else assumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slam_potsa.config import PotsaConfig
from slam_potsa.data.dataset import training_items
from slam_potsa.data.manifest import Utterance
from slam_potsa.data.tasks import NEEDS, answer, question
from slam_potsa.engine.plan.assumptions import Assumptions
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
        count = len(self.values)
        below = [(i / count) ** rows for i in range(count + 1)]
        return sum(x * (below[i + 1] - below[i]) for i, x in enumerate(self.values))


@dataclass(frozen=True)
class Corpus:
    """What a stage trains on.

    Attributes:
        source: where the numbers are from.
        items: of an epoch; `pairs` of them are pairs, of two rows.
        prompt: LLM tokens of the longest prompt.
    """

    source: str
    counted: bool
    recordings: int
    hours: float
    items: int
    pairs: int
    seconds: Lengths
    answers: Lengths  # LLM tokens, with eos
    prompt: int
    languages: tuple[str, ...]

    @property
    def rows_per_item(self) -> float:
        return 1 + self.pairs / self.items


def corpus_of(config: PotsaConfig, assumptions: Assumptions) -> Corpus:
    """The training data of a stage.

    Raises InputError with every bad line of a manifest that is here, and with recordings that are
    longer than the encoder's window.
    """
    path = Path(config.dataset_config.train_data_path or "")
    if not path.is_file():
        return _assumed(config, assumptions)
    return _counted(config, path, assumptions)


def _counted(config: PotsaConfig, path: Path, assumptions: Assumptions) -> Corpus:
    data = config.dataset_config
    items = training_items(data)
    utterances = items.utterances
    durations = [u.duration for u in utterances if u.duration is not None]
    if len(durations) < len(utterances):
        raise InputError(
            f"{path}: {len(utterances) - len(durations)} recordings have no `duration`, which a "
            "plan needs; write them with `slam-potsa prepare`"
        )
    too_long = [u.key for u in utterances if u.duration > assumptions.longest_seconds]
    if too_long:
        raise InputError(
            f"{path}: {len(too_long)} recordings are longer than "
            f"{assumptions.longest_seconds:g} s (such as {too_long[0]!r}), which Whisper cannot "
            "place; split them or leave them out"
        )
    count, how = _counter(config.model_config.llm_path, assumptions)
    answers = [count(answer(data, task, u)) + 1 for u in utterances for task in data.tasks]
    prompts = [count(question(data, task, u)) for u, task in _some(utterances, data)]
    return Corpus(
        source=f"{path}: {len(utterances):,} recordings; answers counted {how}",
        counted=True,
        recordings=len(utterances),
        hours=sum(durations) / 3600,
        items=len(items),
        pairs=items.num_pairs,
        seconds=Lengths.of(durations),
        answers=Lengths.of(answers),
        prompt=math.ceil(max(prompts)),
        languages=tuple(sorted({u.language for u in utterances})),
    )


def _assumed(config: PotsaConfig, assumptions: Assumptions) -> Corpus:
    data, given = config.dataset_config, assumptions
    english = "covost" in data.train_data_path.lower()
    name, languages = ("covost2", ("en",)) if english else ("fleurs", FLEURS_LANGUAGES)
    count = 1 if english else given.fleurs_languages
    recordings = count * getattr(given, f"{name}_recordings")
    hours = count * getattr(given, f"{name}_hours")
    paired = data.pairing != "none" and count > 1
    seconds = 3600 * hours / recordings
    tokens = {
        "transcript": getattr(given, f"{name}_transcript_tokens"),
        "target": getattr(given, f"{name}_target_tokens"),
    }
    answers = [1 + sum(tokens[part] for part in NEEDS[task]) for task in data.tasks]
    answer = sum(answers) / len(answers)
    missing = f"{data.train_data_path} is not here" if data.train_data_path else "no manifest"
    return Corpus(
        source=f"{missing}; assumed {'CoVoST2 en' if english else f'FLEURS, {count} languages'}",
        counted=False,
        recordings=recordings,
        hours=hours,
        items=recordings // 2 if paired else recordings,
        pairs=recordings // 2 if paired else 0,
        seconds=Lengths(seconds, given.longest_seconds, spread=given.batch_spread),
        answers=Lengths(answer, given.longest_answer * max(answers), spread=given.batch_spread),
        prompt=math.ceil(max(len(_prompt(data, t)) for t in data.tasks) * given.tokens_per_letter),
        languages=languages[:count],
    )


def _prompt(data: Any, task: str) -> str:
    return {"asr": data.asr_prompt, "cot": data.cot_prompt}.get(task, data.prompt)


def _some(utterances: Sequence[Utterance], data: Any) -> list[tuple[Utterance, str]]:
    """One utterance of each language, with each task: prompts differ by no more."""
    first = {(u.language, u.target_language): u for u in utterances}
    return [(u, task) for u in first.values() for task in dict.fromkeys(data.tasks)]


def _counter(llm_path: str, assumptions: Assumptions) -> tuple[Callable[[str], float], str]:
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
        sparse = len(text) - dense
        return dense * assumptions.tokens_per_ideograph + sparse * assumptions.tokens_per_letter

    return estimate, "by their characters"
