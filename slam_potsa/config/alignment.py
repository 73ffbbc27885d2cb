"""What POTSA adds: `language_bias` (eq. 1-2) and `alignment` (eq. 3-7)."""

from __future__ import annotations

from dataclasses import dataclass

from slam_potsa.config.option import NOT_IN_PAPER, option, section


@dataclass
class LanguageBiasConfig:
    """Eq. 1-2."""

    enabled: bool = option(True, "subtract the language bias from the encoder output")
    path: str | None = option(
        None, "language_bias.safetensors; null: estimated from the training manifest at the start"
    )
    center: str = option(
        "all",
        "'all': subtract b_l (the paper); 'language_only': b_l minus the mean of all b",
        choices=("all", "language_only"),
        source="POTSA eq. 1-2",
    )
    unseen_language: str = option(
        "mean",
        "bias of a language that was never estimated; the paper only says 'inherited from the "
        "training configuration'",
        choices=("mean", "zero", "error"),
        source=NOT_IN_PAPER,
    )


@dataclass
class ScheduleConfig:
    """Eq. 5-7 and the rivals of Table 3."""

    strategy: str = option(
        "ucb",
        "how the aligned layer is chosen",
        choices=("ucb", "random", "single", "multi"),
        source="POTSA 3.3, Table 3",
    )
    candidates: str = option(
        "lower",
        "layers to choose from: 'lower' half, 'all', or a list such as '1,2,4' (numbered from 1)",
        source="POTSA Table 3 (iv), (v); which layers are 'lower' is not said",
    )
    layers: list[int] = option(
        [], "fixed layers of 'single' and 'multi'; empty: the second candidate, all candidates"
    )
    reward_decay: float = option(
        0.9, "gamma of eq. 5, below 1", low=0, high=0.999999, source=NOT_IN_PAPER
    )
    exploration: float = option(0.1, "beta of eq. 6, in units of loss", low=0, source=NOT_IN_PAPER)
    temperature: float = option(
        0.01, "tau of eq. 7, in units of loss", low=1e-12, source=NOT_IN_PAPER
    )


@dataclass
class AlignmentConfig:
    """Eq. 3-4: L = L_CE + weight * mean over layers and pairs of the distance."""

    weight: float = option(
        10.0, "lambda of eq. 4; 0 turns alignment off", low=0, source="POTSA 4.1"
    )
    distance: str = option("ot", "registry name: ot, mse, cosine", source="POTSA Table 2")
    detach_anchor: bool = option(
        False, "no gradient through the anchor's branch", source="POTSA Table 1 (c)"
    )
    include_output: bool = option(
        False, "align the projector's output too (named in POTSA 3.2, not in eq. 4)"
    )
    epsilon: float = option(0.05, "entropic regularisation", low=1e-6, source=NOT_IN_PAPER)
    epsilon_scale: str = option(
        "mean", "epsilon in units of the mean cost, or absolute", choices=("mean", "absolute")
    )
    cost_scale: str = option(
        "dim",
        "divide the squared distance by D ('dim', our deviation), or 'none' (the paper's raw cost)",
        choices=("dim", "none"),
    )
    marginal_penalty: float | None = option(
        None, "rho of soft (KL) marginals; null: hard marginals", low=1e-9, source=NOT_IN_PAPER
    )
    max_iterations: int = option(200, "cap on Sinkhorn iterations", low=1, source=NOT_IN_PAPER)
    tolerance: float = option(1e-4, "stop below this marginal error", low=0, source=NOT_IN_PAPER)
    variant: str = option(
        "plain",
        "how distances become a loss: 'plain' (eq. 4); 'normalised' by the detached mean of "
        "mismatched rows; 'debiased': plain over the Sinkhorn divergence; 'contrastive': InfoNCE "
        "over the batch with distances as scores",
        choices=("plain", "normalised", "debiased", "contrastive"),
        source="POTSA eq. 4; the others are ours, see objective/variants.py",
    )
    contrast_temperature: float = option(
        0.1,
        "InfoNCE's temperature, in units of the mean distance of mismatched rows",
        low=1e-6,
        source=NOT_IN_PAPER,
    )
    diagnose_interval: int = option(
        10, "steps between measurements of matched and mismatched cost; 0: never", low=0
    )
    insight_interval: int = option(
        100,
        "steps between measurements of the gradients of cross-entropy and alignment at every "
        "layer, and records of the schedule; 0: never; off under DeepSpeed",
        low=0,
    )
    schedule: ScheduleConfig = section(ScheduleConfig)
