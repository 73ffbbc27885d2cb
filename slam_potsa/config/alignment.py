"""What POTSA adds: `language_bias` (eq. 1-2) and `alignment` (eq. 3-7), a list of named terms."""

from __future__ import annotations

from dataclasses import dataclass, replace

from slam_potsa.config.option import (
    AI_STA,
    AUTHORS,
    NOT_IN_PAPER,
    OURS,
    OptionsOfARow,
    option,
    section,
    sections_by_name,
)

# Before the name of an activation: of another model; at the speech, or of the transcript, alone.
TEACHER, SPEECH, TEXT = "teacher.", "speech.", "text."
ANSWER = "answer"  # the LLM's scores at the places of the answer


@dataclass
class LanguageBiasConfig(OptionsOfARow):
    """Eq. 1-2."""

    enabled: bool = option(True, "subtract the language bias from the encoder output")
    path: str | None = option(
        None,
        "language_bias.safetensors; null: estimated from the training manifest at the start",
        affects="nothing",
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
    trained: bool = option(
        False,
        "the table trains with the projector, from the means on, or from the trained table of "
        "ckpt_path; all languages of the training manifest must have a row",
        source=AUTHORS,
    )
    lr: float | None = option(
        None,
        "peak rate of a trained table; null: train_config.lr; native host only",
        low=0,
        source=OURS,
    )


@dataclass
class TermConfig(OptionsOfARow):
    """One term of eq. 4: `weight` times the mean distance of two activations, as `alignment=ot`.

    A name of an activation is `encoder`, `compensated`, `qformer.{layer}`, `projector` or
    `llm.{layer}` (0 = embeddings); `{layer}` stands for each layer that is aligned. With `teacher.`
    before it, it is that of `alignment.teacher` on the same speech, up to `projector`. Of AI-STA:
    `speech.llm.{layer}` is at the positions of the speech alone, `text.llm.{layer}` what the LLM
    makes of the transcript in place of the speech, without gradient; `ctc` what a classification
    layer of its own makes of the projector's output, to be compared with `text.ids`, the tokens.
    `answer` is the LLM's scores of each next token of a row's answer, and `teacher.answer` those
    that it gives, before the same tokens, to what the teacher makes of the partner's speech.
    """

    distance: str = option(
        "",
        "ot, mse, cosine, dot (of mean tokens), ctc or kl (of answers); a term without one is "
        "refused: choose it by alignment=NAME first",
        choices=("", "ot", "mse", "cosine", "dot", "ctc", "kl"),
        source=f"POTSA Table 2; {AI_STA} Table 4; kl is ours",
    )
    weight: float | None = option(
        10.0,
        "lambda of eq. 4; 0: as if not chosen; null: AI-STA's 1 - alpha, which is "
        "1 - cross_entropy_weight over the number of such terms",
        low=0,
        source="POTSA 4.1",
    )
    warmup_steps: int = option(
        0,
        "optimizer steps over which the weight grows evenly; 0: whole at once",
        low=0,
        source=OURS,
    )
    first: str = option("qformer.{layer}", "activation", source="POTSA 3.3")
    second: str = option("qformer.{layer}", "the one it is compared with")
    rows: str = option(
        "pairs",
        "'pairs': a row with its partner's; 'same': a row with itself (two activations)",
        choices=("pairs", "same"),
    )
    detach: str = option(
        "none",
        "'second': no gradient into the second side: the anchor's where pairing=anchor, the "
        "translated recording's where pairing=joining",
        choices=("none", "second"),
        source="POTSA Table 1 (c)",
    )
    layers: list[int] = option(
        [],
        "fixed layers; empty: those that alignment.schedule chooses",
        source="POTSA Table 3 (i), (ii)",
    )
    variant: str = option(
        "plain",
        "how distances become a loss: 'plain' (eq. 4); 'debiased': plain over the Sinkhorn "
        "divergence; 'contrastive': InfoNCE over the batch with distances as scores; 'n_pair': the "
        "like, of mean tokens",
        choices=("plain", "debiased", "contrastive", "n_pair"),
        source=f"POTSA eq. 4; n_pair: {AI_STA} 6.3; the others are ours: objective/variants.py",
    )
    contrast_temperature: float = option(
        0.1,
        "InfoNCE's temperature, in units of the mean distance of mismatched rows",
        low=1e-6,
        source=NOT_IN_PAPER,
    )
    tokens: str = option(
        "raw",
        "what is compared: tokens as they are; 'unit': each divided by its L2 norm; 'embedding': "
        "all divided by the root mean square of the LLM's embeddings, so that a weight at the "
        "projector's output means the same with another LLM",
        choices=("raw", "unit", "embedding"),
        source=f"POTSA eq. 3; unit: {AUTHORS}; embedding is ours",
    )
    reduction: str = option(
        "mean",
        "over the pairs of a micro-step: their mean (eq. 4) or their sum",
        choices=("mean", "sum"),
        source=f"POTSA eq. 4; sum: {AUTHORS}",
    )
    # Those of objective.transport.TransportOptions.
    epsilon: float = option(0.05, "entropic regularisation", low=1e-6, source=NOT_IN_PAPER)
    epsilon_scale: str = option(
        "mean", "epsilon in units of the mean cost, or absolute", choices=("mean", "absolute")
    )
    cost_scale: str = option(
        "dim",
        "the squared distance divided by D ('dim', our deviation), as it is ('none', the paper's), "
        "or halved ('half')",
        choices=("dim", "none", "half"),
        source=f"POTSA eq. 3: none; half: {AUTHORS}",
    )
    marginal_penalty: float | None = option(
        None, "rho of soft (KL) marginals; null: hard marginals", low=1e-9, source=NOT_IN_PAPER
    )
    max_iterations: int = option(200, "cap on Sinkhorn iterations", low=1, source=NOT_IN_PAPER)
    tolerance: float = option(1e-4, "stop below this marginal error", low=0, source=NOT_IN_PAPER)
    solver: str = option(
        "torch",
        "'triton': one launch on a GPU, for up to 128 tokens a side; not timed there yet",
        choices=("torch", "triton"),
    )


@dataclass
class ScheduleConfig(OptionsOfARow):
    """Eq. 5-7, and the rival of Table 3 that draws evenly; fixed layers are a term's `layers`."""

    strategy: str = option(
        "ucb",
        "how the aligned layer is chosen",
        choices=("ucb", "random"),
        source="POTSA 3.3, Table 3 (iii) to (v)",
    )
    candidates: str = option(
        "lower",
        "layers to choose from: 'lower' half, 'all', or a list such as '1,2,4' (numbered from 1; "
        "those of the LLM, where it is these that the scheduled term compares, from 0)",
        source="POTSA Table 3 (iv), (v); which layers are 'lower' is not said",
    )
    reward_decay: float = option(0.9, "gamma of eq. 5", low=0, high=0.999999, source=NOT_IN_PAPER)
    exploration: float = option(0.1, "beta of eq. 6, in units of loss", low=0, source=NOT_IN_PAPER)
    temperature: float = option(
        0.01, "tau of eq. 7, in units of loss", low=1e-12, source=NOT_IN_PAPER
    )
    temperature_decay: float = option(
        1.0, "tau is multiplied by it at each choice; 1: constant", low=1e-6, high=1, source=AUTHORS
    )
    temperature_floor: float = option(0.0, "where the decay of tau ends", low=0, source=AUTHORS)
    reward: str = option(
        "cross_entropy",
        "the loss whose fall rewards a layer: cross-entropy (eq. 5), or the alignment at the layer",
        choices=("cross_entropy", "alignment"),
        source=f"POTSA eq. 5; alignment: {AUTHORS}",
    )
    every: str = option(
        "optimizer_step",
        "when layers are chosen: at each optimizer step, whose loss is the mean over its "
        "micro-steps, or at each 'micro_step', each with its own; all ranks choose the same",
        choices=("optimizer_step", "micro_step"),
        source=f"ours; micro_step: {AUTHORS}",
    )
    prefer: str = option(
        "larger",
        "layers of 'larger' rewards (eq. 6), or of 'smaller' ones: the reward's sign turned",
        choices=("larger", "smaller"),
        source=f"POTSA eq. 6; smaller: {AUTHORS}",
    )


@dataclass
class AlignmentConfig(OptionsOfARow):
    """Eq. 3-4: L = w L_CE + the sum over terms of weight * mean over layers and pairs."""

    terms: dict[str, TermConfig] = sections_by_name(TermConfig, ot=TermConfig(distance="ot"))
    cross_entropy_weight: float = option(
        1.0, "w above, AI-STA's alpha (0.99)", low=0, source=f"POTSA eq. 4; {AI_STA} eq. 6"
    )
    teacher: str | None = option(
        None,
        "model.pt of a finished training, whose projector stays as it is and gives the activations "
        "teacher.*; 'ckpt_path': the one that this training starts from; 'ema': the average of the "
        "projector that trains",
        source=OURS,
    )
    teacher_decay: float = option(
        0.999,
        "of teacher=ema, an optimizer step: the average is over some 1 / (1 - decay) steps",
        low=0,
        high=0.999999,
        source=OURS,
    )
    diagnose_interval: int = option(
        10,
        "steps between measures of matched and mismatched cost, and records of the schedule; "
        "0: never",
        affects="nothing",
        low=0,
    )
    schedule: ScheduleConfig = section(ScheduleConfig)

    @property
    def active(self) -> dict[str, TermConfig]:
        """The terms that have a weight, by name; without any, training is plain cross-entropy."""
        lacking = [term for term in self.terms.values() if term.weight is None]
        rest = (1 - self.cross_entropy_weight) / max(1, len(lacking))
        weighed = {
            name: replace(term, weight=rest) if term.weight is None else term
            for name, term in self.terms.items()
        }
        return {name: term for name, term in weighed.items() if term.weight > 0}

    @property
    def sides(self) -> list[str]:
        """The names of all activations that are compared."""
        return [side for term in self.active.values() for side in (term.first, term.second)]

    @property
    def averages(self) -> bool:
        """Whether the teacher is an average of the projector that trains."""
        return self.teacher == "ema"

    def teacher_path(self, ckpt_path: str | None) -> str | None:
        """The teacher's checkpoint in a training that starts from `ckpt_path`, if it has one."""
        if self.averages:
            return None
        return ckpt_path if self.teacher == "ckpt_path" else self.teacher
