r"""Which Q-Former layer is aligned at which step (POTSA eq. 5–7 and the rivals of Table 3).

For each candidate layer l, numbered from 1: R_l, an average of its rewards; n_l, how often it was
chosen; L_CE^prev(l), the task loss of its previous activation. At step t (the t-th choice):

    U_l = R_l + β sqrt(ln t / n_l)                                         (6)  never tried: U_l = ∞
    p_l = exp(U_l / τ) / Σ_k exp(U_k / τ),  l_t ~ p                        (7)
    r = L_CE^prev − L_CE(t);  R ← γ R + (1 − γ) r;  L_CE^prev ← L_CE(t)    (5)  for l_t

The authors' public working tree (which may differ from their final code) has a temperature that
falls, τ_t = max(τ_min, τ d^t), takes the alignment loss of the layer for L_CE, and turns the
reward's sign in (6), U_l = β sqrt(ln t / n_l) − R_l, so that layers with a smaller reward are
preferred. All three are options; the paper's equations are the default.

A step is an optimizer step. ``choose`` opens one, ``observe`` reports its loss, at once or some
steps later. The first loss of a layer has nothing to be compared with and is only remembered.

Source: POTSA (Li et al.), section 3.3; UCB: Auer et al., 2002.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STRATEGIES = {
    "single": "one fixed layer at every step (Table 3, i)",
    "multi": "several fixed layers at every step (Table 3, ii)",
    "random": "one candidate at a time, each as likely (Table 3, iii)",
    "ucb": "one candidate at a time by eq. 5–7 (Table 3, iv and v)",
}

# The paper gives none of the three. Ours follow from one figure: from one activation of a layer to
# its next, the mean cross-entropy of a step moves by about 1e-2, most of it the batches' noise.
REWARD_DECAY = 0.9  # γ: averages some ten activations, which leaves 2e-3 of that noise
EXPLORATION = 0.1  # β: at step 1,000 of 4 layers, one tried half as often as the rest gains 7e-3
TEMPERATURE = 0.01  # τ: a layer that is better by 1e-2 is e times as likely
PREFERENCES = {"larger": 1.0, "smaller": -1.0}  # the reward's sign in (6)


def lower_half(num_layers: int) -> tuple[int, ...]:
    """Layers 1..num_layers//2, at least one: the candidates of Table 3 (v).

    The paper says "lower layers" without a number; half is ours.

    Example:
        >>> lower_half(8)
        (1, 2, 3, 4)
    """
    if num_layers < 1:
        raise ValueError(f"num_layers: expected at least 1, got {num_layers}")
    return tuple(range(1, max(1, num_layers // 2) + 1))


def candidate_layers(text: str, num_layers: int) -> tuple[int, ...]:
    """The layers that a configuration means: "lower", "all", or numbers such as "1,2,4".

    Raises:
        ValueError: anything else, a number twice, or one outside 1..num_layers.

    Example:
        >>> candidate_layers("lower", 8), candidate_layers("all", 3), candidate_layers("1,3", 3)
        ((1, 2, 3, 4), (1, 2, 3), (1, 3))
    """
    named = {"lower": lower_half(num_layers), "all": tuple(range(1, num_layers + 1))}
    if text in named:
        return named[text]
    numbers = [part.strip() for part in str(text).split(",")]
    layers = tuple(int(number) for number in numbers if number.isdecimal())
    if (
        len(layers) < len(numbers)
        or len(set(layers)) < len(layers)
        or not set(layers) <= set(named["all"])
    ):
        raise ValueError(
            f"candidates: expected 'lower', 'all' or different layer numbers from 1 to "
            f"{num_layers} such as '1,2', got {text!r}"
        )
    return layers


@dataclass
class _Layer:
    """What is remembered of one candidate."""

    reward: float = 0.0  # R_l; 0 until two losses are known
    count: int = 0  # n_l, choices made, not counting those that were dropped
    previous_loss: float | None = None  # L_CE^prev(l)


class LayerSchedule:
    """Chooses the layers to align at each optimizer step, and learns from the loss that followed.

    ``choose`` and ``observe`` need not alternate: any number of choices may be pending, and losses
    may come in any order; each goes to the layer of its own choice. n_l and t grow with the choice
    (so that pending choices explore different layers), R_l with the loss. The draws depend on the
    seed and on how many were made, nothing else: equal on all ranks, and the same after a resume.

    Args:
        strategy: one of ``STRATEGIES``.
        candidates: the layers "random" and "ucb" choose from, numbered from 1; :func:`lower_half`
            for Table 3 (v), all for (iv).
        layers: the fixed layers of "single" (exactly one) and "multi" (at least one).
        reward_decay: γ in [0, 1). exploration: β >= 0. temperature: τ > 0.
        temperature_decay: d in (0, 1], a choice. temperature_floor: τ_min >= 0.
        prefer: "larger" rewards (eq. 6) or "smaller" ones.
        seed: of the draws.

    Raises:
        ValueError: all that is wrong with the arguments.

    Example:
        >>> schedule = LayerSchedule("ucb", candidates=lower_half(4))
        >>> choice, layers = schedule.choose()
        >>> schedule.observe(choice, task_loss=2.5)
    """

    def __init__(
        self,
        strategy: str = "ucb",
        candidates: Sequence[int] = (),
        *,
        layers: Sequence[int] = (),
        reward_decay: float = REWARD_DECAY,
        exploration: float = EXPLORATION,
        temperature: float = TEMPERATURE,
        temperature_decay: float = 1.0,
        temperature_floor: float = 0.0,
        prefer: str = "larger",
        seed: int = 0,
    ):
        self.strategy = strategy
        self.candidates = tuple(candidates)
        self.layers = tuple(layers)
        self.reward_decay = reward_decay
        self.exploration = exploration
        self.temperature = temperature
        self.temperature_decay = temperature_decay
        self.temperature_floor = temperature_floor
        self.prefer = prefer
        self.seed = seed
        self._check()
        self._state = {layer: _Layer() for layer in self.candidates}
        self._pending: dict[int, tuple[int, ...]] = {}  # choice id → its layers
        self._choices = 0  # t, choices made, not counting those that were dropped
        self._draws = 0  # choices ever made: the next choice id, and the state of the generator

    # ------------------------------------------------------------ the two calls of a step

    def choose(self) -> tuple[int, tuple[int, ...]]:
        """The layers of the next optimizer step, and the id under which to report its loss."""
        chosen = self.layers if self._is_fixed else (self._draw(),)
        choice_id = self._draws
        self._draws += 1
        self._choices += 1
        for layer in self._scheduled(chosen):
            self._state[layer].count += 1
        self._pending[choice_id] = chosen
        return choice_id, chosen

    def observe(self, choice_id: int, task_loss: float) -> None:
        """The mean loss of the step of this choice: cross-entropy in eq. 5.

        A loss that is not finite drops the choice, as if it had never been made: the optimizer has
        skipped that step.

        Raises:
            ValueError: no choice of this id is pending (never made, or reported before).
        """
        if choice_id not in self._pending:
            raise ValueError(
                f"choice_id: expected a pending one of {sorted(self._pending)}, got {choice_id}; "
                "report each choice once"
            )
        chosen = self._scheduled(self._pending.pop(choice_id))
        task_loss = float(task_loss)
        if not math.isfinite(task_loss):
            self._choices -= 1
            for layer in chosen:
                self._state[layer].count -= 1
            return
        for layer in chosen:
            state = self._state[layer]
            if state.previous_loss is not None:
                reward = state.previous_loss - task_loss
                state.reward = (
                    self.reward_decay * state.reward + (1 - self.reward_decay) * reward  # (5)
                )
            state.previous_loss = task_loss

    # ------------------------------------------------------------ eq. 6 and 7

    def utilities(self) -> dict[int, float]:
        """U_l of the choice to come (eq. 6); infinite for a layer never tried."""
        step, sign = self._choices + 1, PREFERENCES[self.prefer]
        return {
            layer: sign * state.reward + self.exploration * math.sqrt(math.log(step) / state.count)
            if state.count
            else math.inf
            for layer, state in self._state.items()
        }

    def probabilities(self) -> dict[int, float]:
        """p_l of the choice to come (eq. 7), over the candidates."""
        if self.strategy == "ucb":
            return _softmax(self.utilities(), self.current_temperature)
        if self.strategy == "random":
            return dict.fromkeys(self.candidates, 1 / len(self.candidates))
        return {layer: float(layer in self.layers) for layer in self.candidates}

    @property
    def current_temperature(self) -> float:
        """τ of the choice to come: max(τ_min, τ d^t), t the choices made."""
        return max(self.temperature_floor, self.temperature * self.temperature_decay**self._choices)

    def statistics(self) -> dict[str, Any]:
        """For logs and plots: t, and for each candidate reward, count, utility and probability."""
        utilities, probabilities = self.utilities(), self.probabilities()
        return {
            "step": self._choices,
            "layers": {
                layer: {
                    "reward": state.reward,
                    "count": state.count,
                    "ucb": utilities[layer],
                    "probability": probabilities[layer],
                }
                for layer, state in self._state.items()
            },
        }

    # ------------------------------------------------------------ saving

    def state_dict(self) -> dict[str, Any]:
        """All that has moved since the start, pending choices too; JSON takes it as it is."""
        return {
            "identity": self._identity(),
            "choices": self._choices,
            "draws": self._draws,
            "layers": [
                [layer, state.reward, state.count, state.previous_loss]
                for layer, state in self._state.items()
            ],
            "pending": [[choice, list(layers)] for choice, layers in self._pending.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` was taken.

        Raises:
            ValueError: the state is of another strategy, other candidates, layers or seed.
        """
        expected, found = self._identity(), dict(state["identity"])
        differing = [key for key in expected if expected[key] != found.get(key)]
        if differing:
            raise ValueError(
                "the saved layer schedule is another one: "
                + "; ".join(f"{k}: expected {expected[k]}, got {found.get(k)}" for k in differing)
                + "; resume with the saved configuration, or start without the saved schedule"
            )
        self._choices, self._draws = int(state["choices"]), int(state["draws"])
        self._state = {layer: _Layer(*rest) for layer, *rest in state["layers"]}
        self._pending = {int(choice): tuple(layers) for choice, layers in state["pending"]}

    # ------------------------------------------------------------ inside

    @property
    def _is_fixed(self) -> bool:
        return self.strategy in ("single", "multi")

    def _identity(self) -> dict[str, Any]:
        return {
            "strategy": self.strategy,
            "candidates": list(self.candidates),
            "layers": list(self.layers),
            "seed": self.seed,
        }

    def _draw(self) -> int:
        probabilities = self.probabilities()
        draw = random.Random(f"{self.seed}:{self._draws}")
        return draw.choices(list(probabilities), weights=list(probabilities.values()))[0]

    def _scheduled(self, layers: Sequence[int]) -> list[int]:
        """Those of the layers that statistics are kept of: fixed ones need be no candidates."""
        return [layer for layer in layers if layer in self._state]

    def _check(self) -> None:
        problems = []
        if self.strategy not in STRATEGIES:
            problems.append(
                f"strategy: expected one of {', '.join(STRATEGIES)}, got {self.strategy!r}"
            )
        for name, numbers in (("candidates", self.candidates), ("layers", self.layers)):
            whole = all(type(number) is int and number >= 1 for number in numbers)
            if not whole or len(set(numbers)) != len(numbers):
                problems.append(
                    f"{name}: expected distinct layers numbered from 1, got {list(numbers)}"
                )
        if self.strategy in ("random", "ucb"):
            if not self.candidates:
                problems.append(
                    f"candidates: expected at least one for {self.strategy!r}, got none"
                )
            if self.layers:
                problems.append(
                    f"layers: expected none for {self.strategy!r}, got {list(self.layers)}; "
                    "it chooses from candidates"
                )
        if self.strategy == "single" and len(self.layers) != 1:
            problems.append(f"layers: expected exactly one for 'single', got {list(self.layers)}")
        if self.strategy == "multi" and not self.layers:
            problems.append("layers: expected at least one for 'multi', got none")
        if not 0 <= self.reward_decay < 1:
            problems.append(f"reward_decay: expected γ in [0, 1), got {self.reward_decay!r}")
        if not 0 <= self.exploration < math.inf:
            problems.append(f"exploration: expected β >= 0, got {self.exploration!r}")
        if not 0 < self.temperature < math.inf:
            problems.append(f"temperature: expected τ > 0, got {self.temperature!r}")
        if not 0 < self.temperature_decay <= 1:
            problems.append(
                f"temperature_decay: expected d in (0, 1], got {self.temperature_decay!r}"
            )
        if not 0 <= self.temperature_floor < math.inf:
            problems.append(f"temperature_floor: expected τ_min >= 0, got {self.temperature_floor}")
        if self.temperature_decay < 1 and not self.temperature_floor:
            problems.append("temperature_floor: expected more than 0 where temperature_decay < 1")
        if self.prefer not in PREFERENCES:
            problems.append(f"prefer: expected 'larger' or 'smaller', got {self.prefer!r}")
        if problems:
            raise ValueError("; ".join(problems))


def _softmax(utilities: Mapping[int, float], temperature: float) -> dict[int, float]:
    """exp(U/τ), normalised; safe for any U and τ. Infinite utilities share all of it evenly."""
    largest = max(utilities.values())
    weights = {
        layer: float(utility == largest)
        if math.isinf(largest)
        else math.exp((utility - largest) / temperature)
        for layer, utility in utilities.items()
    }
    total = sum(weights.values())
    return {layer: weight / total for layer, weight in weights.items()}
