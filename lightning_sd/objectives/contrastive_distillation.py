"""OPSD towards the difference between a right hint and wrong ones (RLCSD's plug-in on OPSD)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_sd.functional.contrastive import contrastive_gate, contrastive_target
from lightning_sd.objectives.base import TokenInputs, TokenLoss
from lightning_sd.objectives.distillation import Distillation
from lightning_sd.objectives.inputs import ObjectiveInputs, StepState
from lightning_sd.objectives.spec import InputSpec
from lightning_sd.scoring import LogitsSource, MixedScores, Scores


@dataclass(frozen=True)
class ContrastiveDistillation(Distillation):
    """A divergence from ``q ~ p_c^(1 + alpha) / p_w^alpha``, weighted by the hints' disagreement.

    p_c is the teacher under the right hint, p_w the mean of its distributions under the wrong ones
    (context ``ContrastiveHints``). Each token's loss is multiplied by KL / (KL + gate_tau), where
    KL = KL(p_c || p_w) is the hints' disagreement. Where the hints agree, nothing is learned.

    With ``top_k`` the target is formed over the whole vocabulary and compared on its top k, while
    the authors' code forms it on p_c's top k and a tail.
    """

    alpha: float = 0.5
    """Strength of the contrast; 0: plain distillation from p_c (with its gate)."""
    floor: float = -30.0
    """Lower bound of log p_w."""
    gate_tau: float | None = 1.0
    """Disagreement, in nats, at which the gate is half open; None: no gate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha < 0:
            raise ValueError(f"alpha={self.alpha}: must not be negative.")
        if self.gate_tau is not None and not self.gate_tau > 0:
            raise ValueError(f"gate_tau={self.gate_tau}: must be above 0, or none for no gate.")

    @property
    def inputs(self) -> InputSpec:
        """The teacher's logits under the right hint and under the wrong ones."""
        return super().inputs.add("contrast_logprobs")

    def make_token_inputs(self, inputs: ObjectiveInputs, state: StepState) -> TokenInputs:
        """Leave out tokens without any wrong hint."""
        tokens = super().make_token_inputs(inputs, state)
        wrong = inputs.contrast_logprobs
        return tokens if wrong is None else replace(tokens, kept=~wrong.isnan().all(-1))

    def build_target(
        self, teacher: LogitsSource, contrasts: Sequence[LogitsSource]
    ) -> LogitsSource:
        """Return log q plus the log of the gate.

        Adding a number to logits does not change their distribution, so the target carries the
        token's weight as the log of its total mass.

        Raises:
            ValueError: No contrasting views.
        """
        if not contrasts:
            raise ValueError(
                f"objective {type(self).__name__} compares a right hint with wrong ones, and "
                "teacher_context gave no wrong ones: choose ContrastiveHints, or another whose "
                "views have contrasts."
            )
        # Rows that were not scored hold zeros, which no model's last layer gives.
        scored = torch.stack([_hidden(scores).any(-1) for scores in contrasts], -1)
        present = Scores(scored.to(_hidden(teacher).dtype), None)
        return MixedScores((teacher, *contrasts, present), self._mix)

    def _mix(self, logits: Sequence[Tensor]) -> Tensor:
        first, *others, present = logits
        right = first.log_softmax(-1)
        wrong = torch.full_like(right, -torch.inf)
        for column, other in zip((present != 0).unbind(-1), others, strict=True):
            found = other.log_softmax(-1).masked_fill(~column.unsqueeze(-1), -torch.inf)
            wrong = torch.logaddexp(wrong, found)
        number = (present != 0).sum(-1, keepdim=True).to(right.dtype)
        wrong = torch.where(number > 0, wrong - number.log(), right)
        target = contrastive_target(right, wrong, alpha=self.alpha, floor=self.floor)
        if self.gate_tau is None:
            return target
        gate = contrastive_gate(right, wrong, tau=self.gate_tau)
        return target + gate.clamp(min=torch.finfo(gate.dtype).tiny).log().unsqueeze(-1)

    def token_loss(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: TokenInputs
    ) -> TokenLoss:
        """Return the gated divergence at each token; see :class:`Objective`."""
        assert teacher_logits is not None
        gate = self._gate(teacher_logits)
        result = super().token_loss(student_logits, teacher_logits, tokens)
        return replace(result, loss=result.loss * gate)

    def loss_and_grad_(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: TokenInputs
    ) -> tuple[TokenLoss, Tensor]:
        """Return the gradient that the divergence forms anyway; see :class:`Objective`."""
        assert teacher_logits is not None
        gate = self._gate(teacher_logits)  # before the logits are overwritten
        result, factor = super().loss_and_grad_(student_logits, teacher_logits, tokens)
        return replace(result, loss=result.loss * gate), factor * gate

    def _gate(self, target: Tensor) -> Tensor:
        return target.new_ones(len(target)) if self.gate_tau is None else target.logsumexp(-1).exp()


def _hidden(scores: LogitsSource) -> Tensor:
    while isinstance(scores, MixedScores):
        scores = scores.parts[0]
    return scores.hidden
