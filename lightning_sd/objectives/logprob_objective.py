"""Objectives that read student and teacher at the sampled tokens alone."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_sd.functional.logits import LOG_FLOOR, softmax_and_lse
from lightning_sd.functional.logprobs import sampled_logprobs, token_logprobs
from lightning_sd.objectives.base import Objective, TokenInputs, TokenLoss


@dataclass(frozen=True)
class LogprobObjective(Objective):
    """A cost of each sampled token's log-probability.

    Its gradient with respect to the logits is (onehot - softmax) times one number per token, so no
    graph over the vocabulary is needed. Subclasses define :meth:`logprob_loss`.
    """

    @abstractmethod
    def logprob_loss(
        self, logprobs: Tensor, teacher_logprobs: Tensor | None, tokens: TokenInputs
    ) -> Tensor:
        """Return the cost of each token, ``[tokens]``.

        Args:
            logprobs: ``[tokens]``, of the student, with gradient.
            teacher_logprobs: ``[tokens]``; None if no teacher is used.
            tokens: ``[tokens]`` each.
        """

    def token_loss(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: TokenInputs
    ) -> TokenLoss:
        """Return :meth:`logprob_loss` with a graph; see :class:`Objective`."""
        logprobs, entropy = sampled_logprobs(student_logits, tokens.ids)
        teacher = None if teacher_logits is None else token_logprobs(teacher_logits, tokens.ids)
        loss = self.logprob_loss(logprobs, teacher, tokens)
        return TokenLoss(loss, logprobs.detach(), entropy, teacher)

    def loss_and_grad_(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: TokenInputs
    ) -> tuple[TokenLoss, Tensor]:
        """Return the same with the gradient written out; see :class:`Objective`."""
        column, logits = tokens.ids.unsqueeze(-1), student_logits
        if logits.numel() and bool(logits.amin().isneginf()):
            # Masked tokens would be 0 * inf in the entropy.
            logits.clamp_(min=logits.amax(-1, keepdim=True) + LOG_FLOOR)
        probs, lse = softmax_and_lse(logits)
        logprobs = (logits.gather(-1, column) - lse).squeeze(-1)
        with torch.autocast(logits.device.type, enabled=False):
            entropy = lse.squeeze(-1) - torch.linalg.vecdot(probs, logits)
        teacher = None
        if teacher_logits is not None:
            normalizer = softmax_and_lse(teacher_logits)[1]
            teacher = (teacher_logits.gather(-1, column) - normalizer).squeeze(-1)
        with torch.enable_grad():
            leaf = logprobs.detach().requires_grad_()
            loss = self.logprob_loss(leaf, teacher, tokens)
            (slope,) = torch.autograd.grad(loss.sum(), leaf)
        torch.neg(probs, out=student_logits)
        student_logits.scatter_add_(-1, column, torch.ones_like(logprobs).unsqueeze(-1))
        return TokenLoss(loss.detach(), logprobs, entropy, teacher), slope
