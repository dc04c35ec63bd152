"""SRPO: right rollouts are rewarded, wrong ones corrected."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from lightning_sd.functional.contrastive import entropy_weights
from lightning_sd.objectives.base import Tokens
from lightning_sd.objectives.distillation import Distillation
from lightning_sd.objectives.inputs import Signals
from lightning_sd.objectives.mixture import Mixture
from lightning_sd.objectives.policy_gradient import PolicyGradient


@dataclass(frozen=True)
class RoutedPolicy(Mixture):
    """SRPO (arXiv 2604.02288): each rollout goes to a policy gradient or to a distillation.

    Those that did well go to the first of ``terms``, those that did not and have a teacher's view
    to the second, those that did not and have none back to the first. Distilled tokens are
    weighted by exp(-``entropy_beta`` H), H the teacher's entropy, with mean 1 over all of them
    (those of all ranks, but of one micro-batch). One average over all tokens.

    ``terms`` default to GRPO and to SDPO's divergence: Jensen-Shannon over the student's 100 most
    likely tokens and a tail.

    Raises:
        ValueError: As :class:`Mixture`'s; or the terms are not a policy gradient and an objective
            that needs a teacher.
    """

    entropy_beta: float = 1.0
    """How much less an unsure teacher weighs; 0: all tokens weigh the same."""
    route: Literal["advantage", "correct"] = "advantage"
    """What counts as doing well: an advantage above 0 (RLCSD's code), or the verifier's word (the
    paper). They differ where all answers to a question are right: the first distils those too."""

    def __post_init__(self) -> None:
        if not self.terms and not self.coefficients:
            terms = (PolicyGradient(), Distillation(kind="js", top_k=100))
            object.__setattr__(self, "terms", terms)
            object.__setattr__(self, "coefficients", (1.0, 1.0))
        super().__post_init__()
        if [term.needs_teacher for term in self.terms] != [False, True]:
            raise ValueError(
                f"terms={[type(term).__name__ for term in self.terms]}: give a PolicyGradient "
                "without KL and then an objective that needs a teacher, such as Distillation."
            )
        if self.entropy_beta < 0:
            raise ValueError(f"entropy_beta={self.entropy_beta}: must not be negative.")
        if self.route not in ("advantage", "correct"):
            raise ValueError(f"route={self.route!r}: choose advantage or correct.")

    @property
    def reads(self) -> frozenset[str]:
        """The teacher's entropy, and what the terms and weights read."""
        return super().reads | {"teacher"}

    def distilled(self, signals: Signals, advantages: Tensor) -> Tensor:
        """Which tokens go to the distillation.

        Args:
            signals: Of the micro-batch.
            advantages: ``[N]``.

        Returns:
            ``[N]``, bool.
        """
        well = advantages > 0 if self.route == "advantage" else signals.of_rows(signals.correct)
        return ~well & signals.of_rows(signals.seen)

    def prepare(self, signals: Signals) -> Tokens:
        """The terms' tokens with the weights on them, each routed to one of the terms."""
        tokens = super().prepare(signals)
        assert tokens.advantages is not None
        assert tokens.shares is not None
        chosen = self.distilled(signals, tokens.advantages[:, 0])
        entropy = signals.teacher_entropy
        if entropy is None:  # nobody was seen, or there is no token
            entropy = torch.zeros_like(tokens.advantages[:, 0])
        counted = chosen if tokens.kept is None else chosen & tokens.kept
        weights = entropy_weights(entropy, counted, beta=self.entropy_beta, total=signals.total)
        routes = torch.stack([(~chosen).to(weights.dtype), weights], -1)
        return replace(tokens, shares=tokens.shares * routes)
