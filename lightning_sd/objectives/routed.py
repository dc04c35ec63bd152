"""SRPO: successful rollouts get a policy gradient, failed ones a distillation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from lightning_sd.functional.contrastive import entropy_weights
from lightning_sd.objectives.base import TokenInputs
from lightning_sd.objectives.distillation import Distillation
from lightning_sd.objectives.inputs import ObjectiveInputs, StepState
from lightning_sd.objectives.mixture import Mixture
from lightning_sd.objectives.policy_gradient import PolicyGradient
from lightning_sd.objectives.spec import InputSpec


@dataclass(frozen=True)
class RoutedPolicy(Mixture):
    """SRPO (arXiv 2604.02288): each rollout goes to a policy gradient or to a distillation.

    Successful rollouts go to the first of ``terms``. Failed rollouts go to the second if they have
    a teacher view, else to the first. Distilled tokens are weighted by exp(-``entropy_beta`` H),
    where H is the teacher's entropy; these weights have mean 1 over the distilled tokens of the
    micro-batch on all ranks. One average is taken over all tokens.

    ``terms`` default to GRPO and to SDPO's divergence: Jensen-Shannon over the student's 100 most
    likely tokens and a tail.

    Raises:
        ValueError: As :class:`Mixture`'s; or the terms are not a policy gradient and an objective
            that needs a teacher.
    """

    entropy_beta: float = 1.0
    """How much less an uncertain teacher counts; 0: all tokens have equal weight."""
    route: Literal["advantage", "correct"] = "advantage"
    """What counts as success: an advantage above 0 (RLCSD's code), or the verifier's verdict (the
    paper). They differ where all answers to a question are right: the first distills those too."""

    def __post_init__(self) -> None:
        if not self.terms and not self.coefficients:
            terms = (PolicyGradient(), Distillation(kind="js", top_k=100))
            object.__setattr__(self, "terms", terms)
            object.__setattr__(self, "coefficients", (1.0, 1.0))
        super().__post_init__()
        if [term.inputs.teacher for term in self.terms] != ["unused", "required"]:
            raise ValueError(
                f"terms={[type(term).__name__ for term in self.terms]}: give a PolicyGradient "
                "without KL and then an objective that needs a teacher, such as Distillation."
            )
        if self.entropy_beta < 0:
            raise ValueError(f"entropy_beta={self.entropy_beta}: must not be negative.")
        if self.route not in ("advantage", "correct"):
            raise ValueError(f"route={self.route!r}: choose advantage or correct.")

    @property
    def inputs(self) -> InputSpec:
        """The teacher's entropy, and what the terms and token weights read."""
        return super().inputs.add("teacher_entropy")

    def choose_distilled(self, inputs: ObjectiveInputs, advantages: Tensor) -> Tensor:
        """Choose the tokens that go to the distillation.

        Args:
            inputs: The micro-batch.
            advantages: ``[N]``.

        Returns:
            ``[N]``, bool.
        """
        well = (
            advantages > 0 if self.route == "advantage" else inputs.expand_to_tokens(inputs.correct)
        )
        return ~well & inputs.expand_to_tokens(inputs.has_view)

    def apply_token_weights(self, inputs: ObjectiveInputs, state: StepState) -> TokenInputs:
        """Apply the token weights, and route each token to one of the terms."""
        tokens = super().apply_token_weights(inputs, state)
        assert tokens.advantages is not None
        assert tokens.shares is not None
        chosen = self.choose_distilled(inputs, tokens.advantages[:, 0])
        entropy = inputs.teacher_entropy
        if entropy is None:  # no rollout has a view, or there is no token
            entropy = torch.zeros_like(tokens.advantages[:, 0])
        counted = chosen if tokens.kept is None else chosen & tokens.kept
        weights = entropy_weights(
            entropy, counted, beta=self.entropy_beta, total=state.sum_over_ranks
        )
        routes = torch.stack([(~chosen).to(weights.dtype), weights], -1)
        return replace(tokens, shares=tokens.shares * routes)
