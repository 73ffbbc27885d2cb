"""What POTSA adds: `language_bias` (eq. 1-2) and `alignment` (eq. 3-7), a list of named terms."""

from __future__ import annotations

from dataclasses import dataclass

from slam_potsa.config.option import AUTHORS, NOT_IN_PAPER, option, section, sections_by_name


@dataclass
class LanguageBiasConfig:
    """Eq. 1-2."""

    enabled: bool = option(
        True, "weights", "subtract the language bias from the encoder output", row=True
    )
    path: str | None = option(
        None,
        "nothing",  # a place; the biases themselves travel with the weights
        "language_bias.safetensors; null: estimated from the training manifest at the start",
    )
    center: str = option(
        "all",
        "weights",
        "'all': subtract b_l (the paper); 'language_only': b_l minus the mean of all b",
        choices=("all", "language_only"),
        source="POTSA eq. 1-2",
        row=True,
    )
    unseen_language: str = option(
        "mean",
        "weights",
        "bias of a language that was never estimated; the paper only says 'inherited from the "
        "training configuration'",
        choices=("mean", "zero", "error"),
        source=NOT_IN_PAPER,
        row=True,
    )


@dataclass
class TermConfig:
    """One term of eq. 4: `weight` times the mean distance of two activations, as `alignment=ot`.

    A name of an activation is `encoder`, `compensated`, `qformer.{layer}`, `projector` or
    `llm.{layer}` (0 = embeddings); `{layer}` stands for each layer that is aligned.
    """

    distance: str = option(
        "",
        "weights",
        "ot, mse or cosine; a term without one is refused: choose it by alignment=NAME first",
        choices=("", "ot", "mse", "cosine"),
        source="POTSA Table 2",
        row=True,
    )
    weight: float = option(
        10.0, "weights", "lambda of eq. 4; 0: as if not chosen", low=0, source="POTSA 4.1", row=True
    )
    first: str = option("qformer.{layer}", "weights", "activation", source="POTSA 3.3", row=True)
    second: str = option("qformer.{layer}", "weights", "the one it is compared with", row=True)
    rows: str = option(
        "pairs",
        "weights",
        "'pairs': a row with its partner's; 'same': a row with itself (two activations)",
        choices=("pairs", "same"),
        row=True,
    )
    detach: str = option(
        "none",
        "weights",
        "'second': no gradient into the second side, the anchor's where pairing=anchor",
        choices=("none", "second"),
        source="POTSA Table 1 (c)",
        row=True,
    )
    layers: list[int] = option(
        [], "weights", "fixed layers; empty: those that alignment.schedule chooses", row=True
    )
    variant: str = option(
        "plain",
        "weights",
        "how distances become a loss: 'plain' (eq. 4); 'normalised' by the detached mean of "
        "mismatched rows; 'debiased': plain over the Sinkhorn divergence; 'contrastive': InfoNCE "
        "over the batch with distances as scores",
        choices=("plain", "normalised", "debiased", "contrastive"),
        source="POTSA eq. 4; the others are ours, see objective/variants.py",
        row=True,
    )
    contrast_temperature: float = option(
        0.1,
        "weights",
        "InfoNCE's temperature, in units of the mean distance of mismatched rows",
        low=1e-6,
        source=NOT_IN_PAPER,
        row=True,
    )
    tokens: str = option(
        "raw",
        "weights",
        "what is compared: tokens as they are, or 'unit': each divided by its L2 norm",
        choices=("raw", "unit"),
        source=f"POTSA eq. 3; unit: {AUTHORS}",
        row=True,
    )
    reduction: str = option(
        "mean",
        "weights",
        "over the pairs of a micro-step: their mean (eq. 4) or their sum",
        choices=("mean", "sum"),
        source=f"POTSA eq. 4; sum: {AUTHORS}",
        row=True,
    )
    # Those of objective.transport.TransportOptions.
    epsilon: float = option(
        0.05, "weights", "entropic regularisation", low=1e-6, source=NOT_IN_PAPER, row=True
    )
    epsilon_scale: str = option(
        "mean",
        "weights",
        "epsilon in units of the mean cost, or absolute",
        choices=("mean", "absolute"),
        row=True,
    )
    cost_scale: str = option(
        "dim",
        "weights",
        "the squared distance divided by D ('dim', our deviation), as it is ('none', the paper's), "
        "or halved ('half')",
        choices=("dim", "none", "half"),
        source=f"POTSA eq. 3: none; half: {AUTHORS}",
        row=True,
    )
    marginal_penalty: float | None = option(
        None,
        "weights",
        "rho of soft (KL) marginals; null: hard marginals",
        low=1e-9,
        source=NOT_IN_PAPER,
        row=True,
    )
    max_iterations: int = option(
        200, "weights", "cap on Sinkhorn iterations", low=1, source=NOT_IN_PAPER, row=True
    )
    tolerance: float = option(
        1e-4, "weights", "stop below this marginal error", low=0, source=NOT_IN_PAPER, row=True
    )


@dataclass
class ScheduleConfig:
    """Eq. 5-7 and the rivals of Table 3."""

    strategy: str = option(
        "ucb",
        "weights",
        "how the aligned layer is chosen",
        choices=("ucb", "random", "single", "multi"),
        source="POTSA 3.3, Table 3",
        row=True,
    )
    candidates: str = option(
        "lower",
        "weights",
        "layers to choose from: 'lower' half, 'all', or a list such as '1,2,4' (numbered from 1)",
        source="POTSA Table 3 (iv), (v); which layers are 'lower' is not said",
        row=True,
    )
    layers: list[int] = option(
        [],
        "weights",
        "fixed layers of 'single' and 'multi'; empty: the second candidate, all candidates",
        row=True,
    )
    reward_decay: float = option(
        0.9,
        "weights",
        "gamma of eq. 5, below 1",
        low=0,
        high=0.999999,
        source=NOT_IN_PAPER,
        row=True,
    )
    exploration: float = option(
        0.1, "weights", "beta of eq. 6, in units of loss", low=0, source=NOT_IN_PAPER, row=True
    )
    temperature: float = option(
        0.01, "weights", "tau of eq. 7, in units of loss", low=1e-12, source=NOT_IN_PAPER, row=True
    )
    temperature_decay: float = option(
        1.0,
        "weights",
        "tau is multiplied by it at every choice; 1: constant",
        low=1e-6,
        high=1,
        source=AUTHORS,
        row=True,
    )
    temperature_floor: float = option(
        0.0, "weights", "where the decay of tau ends", low=0, source=AUTHORS, row=True
    )
    reward: str = option(
        "cross_entropy",
        "weights",
        "the loss whose fall rewards a layer: cross-entropy (eq. 5), or the alignment at the layer",
        choices=("cross_entropy", "alignment"),
        source=f"POTSA eq. 5; alignment: {AUTHORS}",
        row=True,
    )
    prefer: str = option(
        "larger",
        "weights",
        "layers of 'larger' rewards (eq. 6), or of 'smaller' ones: the reward's sign turned",
        choices=("larger", "smaller"),
        source=f"POTSA eq. 6; smaller: {AUTHORS}",
        row=True,
    )


@dataclass
class AlignmentConfig:
    """Eq. 3-4: L = w L_CE + the sum over terms of weight * mean over layers and pairs."""

    terms: dict[str, TermConfig] = sections_by_name(TermConfig, ot=TermConfig(distance="ot"))
    cross_entropy_weight: float = option(
        1.0, "weights", "w above; 1 in POTSA, 0.99 in AI-STA", low=0, source="POTSA eq. 4", row=True
    )
    diagnose_interval: int = option(
        10, "nothing", "steps between measurements of matched and mismatched cost; 0: never", low=0
    )
    insight_interval: int = option(
        100,
        "nothing",
        "steps between measurements of the gradients of cross-entropy and alignment at every "
        "layer, and records of the schedule; 0: never; off under DeepSpeed",
        low=0,
    )
    schedule: ScheduleConfig = section(ScheduleConfig)

    @property
    def active(self) -> dict[str, TermConfig]:
        """The terms that have a weight, by name; without any, training is plain cross-entropy."""
        return {name: term for name, term in self.terms.items() if term.weight > 0}
