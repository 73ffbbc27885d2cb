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

Table 3's (i) and (ii), one fixed layer and several, need no schedule: `AlignmentTerm.layers`.

Source: POTSA (Li et al.), section 3.3; UCB: Auer et al., 2002.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from slam_potsa.objective.checks import unexpected

STRATEGIES = {
    "random": "one candidate at a time, each as likely (Table 3, iii)",
    "ucb": "one candidate at a time by eq. 5–7 (Table 3, iv and v)",
}

# The paper gives none of the three. Ours follow from one figure: from one activation of a layer to
# its next, the mean cross-entropy of a step moves by about 1e-2, most of it the batches' noise.
REWARD_DECAY = 0.9  # γ: averages some ten activations, which leaves 2e-3 of that noise
EXPLORATION = 0.1  # β: at step 1,000 of 4 layers, one tried half as often as the rest gains 7e-3
TEMPERATURE = 0.01  # τ: a layer that is better by 1e-2 is e times as likely
PREFERENCES = {"larger": 1.0, "smaller": -1.0}  # the reward's sign in (6)


def candidate_layers(text: str, num_layers: int, first: int = 1) -> tuple[int, ...]:
    """The layers that a configuration means: "lower", "all", or numbers such as "1,2,4".

    They are numbered from `first`, 0 for an LLM. "lower" is first..num_layers//2, at least one: the
    candidates of Table 3 (v). The paper says "lower layers" without a number; half is ours.

    Raises:
        ValueError: anything else, a number twice, or one outside first..num_layers.

    Examples:
        >>> candidate_layers("lower", 8), candidate_layers("all", 3), candidate_layers("1,3", 3)
        ((1, 2, 3, 4), (1, 2, 3), (1, 3))
    """
    every = tuple(range(first, num_layers + 1))
    if text in ("lower", "all"):
        return every if text == "all" else every[: max(1, num_layers // 2 - first + 1)]
    by_name = {str(layer): layer for layer in every}
    names = [part.strip() for part in str(text).split(",")]
    if len(set(names)) < len(names) or not by_name.keys() >= set(names):
        raise ValueError(
            f"candidates: expected 'lower', 'all' or different layer numbers from {first} "
            f"to {num_layers} such as '1,2', got {text!r}"
        )
    return tuple(by_name[name] for name in names)


@dataclass
class _Layer:
    """What is remembered of one candidate."""

    reward: float = 0.0  # R_l; 0 until two losses are known
    count: int = 0  # n_l, choices made, not counting those that were dropped
    previous_loss: float | None = None  # L_CE^prev(l)


@dataclass(eq=False)
class LayerSchedule:
    """Chooses the layer to align at each optimizer step, and learns from the loss that followed.

    ``choose`` and ``observe`` need not alternate: any number of choices may be pending, and losses
    may come in any order; each goes to the layer of its own choice. n_l and t grow with the choice
    (so that pending choices explore different layers), R_l with the loss. The draws depend on the
    seed and on how many were made, nothing else: equal on all ranks, and the same after a resume.

    Raises:
        ValueError: all that is wrong with the arguments.

    Examples:
        >>> schedule = LayerSchedule("ucb", candidates=candidate_layers("lower", 4))
        >>> choice, layer = schedule.choose()
        >>> schedule.observe(choice, task_loss=2.5)
    """

    strategy: str = "ucb"  # one of STRATEGIES
    candidates: Sequence[int] = ()  # what it chooses from, at least one
    _: KW_ONLY
    reward_decay: float = REWARD_DECAY  # γ in [0, 1)
    exploration: float = EXPLORATION  # β >= 0
    temperature: float = TEMPERATURE  # τ > 0
    temperature_decay: float = 1.0  # d in (0, 1], a choice
    temperature_floor: float = 0.0  # τ_min >= 0
    prefer: str = "larger"  # rewards (eq. 6), or "smaller" ones
    seed: int = 0  # of the draws

    def __post_init__(self) -> None:
        self.candidates = tuple(self.candidates)
        if problems := unexpected(self, self._expected()):
            raise ValueError("; ".join(problems))
        self._state = {layer: _Layer() for layer in self.candidates}
        self._pending: dict[int, int] = {}  # choice id → its layer
        self._choices = 0  # t, choices made, not counting those that were dropped
        self._draws = 0  # choices ever made: the next choice id, and the state of the generator

    def _expected(self) -> dict[str, tuple[str, object]]:
        """What each argument must be, and whether it is."""
        numbers = self.candidates
        are_layers = all(type(number) is int and number >= 0 for number in numbers)
        floor, falls = self.temperature_floor, self.temperature_decay < 1
        return {
            "strategy": (f"one of {', '.join(STRATEGIES)}", self.strategy in STRATEGIES),
            "candidates": (
                "distinct layer numbers, at least one",
                are_layers and 0 < len(set(numbers)) == len(numbers),
            ),
            "reward_decay": ("γ in [0, 1)", 0 <= self.reward_decay < 1),
            "exploration": ("β >= 0", 0 <= self.exploration < math.inf),
            "temperature": ("τ > 0", 0 < self.temperature < math.inf),
            "temperature_decay": ("d in (0, 1]", 0 < self.temperature_decay <= 1),
            "temperature_floor": (
                "τ_min >= 0, above 0 where d < 1",
                floor > 0 or (floor == 0 and not falls),
            ),
            "prefer": ("'larger' or 'smaller'", self.prefer in PREFERENCES),
        }

    # ------------------------------------------------------------ the two calls of a step

    def choose(self) -> tuple[int, int]:
        """The id under which to report the loss of the next optimizer step, and its layer."""
        choice_id, layer = self._draws, self._draw()
        self._draws += 1
        self._choices += 1
        self._state[layer].count += 1
        self._pending[choice_id] = layer
        return choice_id, layer

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
        state, task_loss = self._state[self._pending.pop(choice_id)], float(task_loss)
        if not math.isfinite(task_loss):
            self._choices -= 1
            state.count -= 1
            return
        if state.previous_loss is not None:
            reward, decay = state.previous_loss - task_loss, self.reward_decay
            state.reward = decay * state.reward + (1 - decay) * reward  # (5)
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
        return dict.fromkeys(self.candidates, 1 / len(self.candidates))

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
            "pending": [[choice, layer] for choice, layer in self._pending.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` was taken.

        Raises:
            ValueError: the state is of another strategy, other candidates or seed, or none that
                could have been saved; nothing is changed then.
        """
        identity = state.get("identity") if isinstance(state, Mapping) else None
        expected, found = self._identity(), identity if isinstance(identity, Mapping) else {}
        differing = [key for key in expected if expected[key] != found.get(key)]
        if differing:
            raise ValueError(
                "the saved layer schedule is another one: "
                + "; ".join(f"{k}: expected {expected[k]}, got {found.get(k)}" for k in differing)
                + "; resume with the saved configuration, or start without the saved schedule"
            )
        try:
            layers = {layer: _Layer(*rest) for layer, *rest in state["layers"]}
            pending = {choice: layer for choice, layer in state["pending"]}
            choices, draws = state["choices"], state["draws"]
            sound = _is_count(choices) and _is_count(draws) and choices <= draws
            sound &= (
                tuple(layers) == tuple(self.candidates) == tuple(n for n, *_ in state["layers"])
            )
            sound &= all(_is_count(one.count) and one.count <= draws for one in layers.values())
            losses = [one.previous_loss for one in layers.values()]
            losses = [one.reward for one in layers.values()] + [n for n in losses if n is not None]
            sound &= all(type(n) in (int, float) and abs(n) < 1e300 for n in losses)
            sound &= len(pending) == len(state["pending"]) <= choices
            sound &= all(_is_count(choice) and choice < draws for choice in pending)
            waiting = Counter(pending.values())  # each of them may still be dropped from its count
            sound &= all(n in layers and layers[n].count >= waiting[n] for n in waiting)
        except (KeyError, TypeError, ValueError, OverflowError):
            sound = False
        if not sound:
            raise ValueError("the saved layer schedule is damaged; start without it")
        self._choices, self._draws, self._state, self._pending = choices, draws, layers, pending

    # ------------------------------------------------------------ inside

    def _identity(self) -> dict[str, Any]:
        return {
            "strategy": self.strategy,
            "candidates": list(self.candidates),
            "seed": self.seed,
        }

    def _draw(self) -> int:
        probabilities = self.probabilities()
        draw = random.Random(f"{self.seed}:{self._draws}")
        return draw.choices(list(probabilities), weights=list(probabilities.values()))[0]


def _is_count(number: object) -> bool:
    return type(number) is int and 0 <= number < 1 << 53


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
