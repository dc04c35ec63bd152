"""Objectives that read student and teacher at the sampled tokens alone."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_sd.functional.logits import LOG_FLOOR, softmax_and_lse
from lightning_sd.functional.logprobs import sampled_logprobs, token_logprobs
from lightning_sd.objectives.base import Objective, TokenLoss, Tokens


@dataclass(frozen=True)
class AtSampled(Objective):
    """A cost of each token's log-probability.

    Its gradient with respect to the logits is that of the log-probability, onehot - softmax, times
    one number a token: no graph over the vocabulary is needed.
    """

    @abstractmethod
    def of_logprobs(
        self, logprobs: Tensor, teacher_logprobs: Tensor | None, tokens: Tokens
    ) -> Tensor:
        """Cost of each token.

        Args:
            logprobs: ``[tokens]``, the student's, with gradient.
            teacher_logprobs: ``[tokens]``; None if no teacher is used.
            tokens: ``[tokens]`` each.

        Returns:
            ``[tokens]``.
        """

    def token_loss(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tokens
    ) -> TokenLoss:
        """:meth:`of_logprobs` with a graph; see :class:`Objective`."""
        logprobs, entropy = sampled_logprobs(student_logits, tokens.ids)
        teacher = None if teacher_logits is None else token_logprobs(teacher_logits, tokens.ids)
        loss = self.of_logprobs(logprobs, teacher, tokens)
        return TokenLoss(loss, logprobs.detach(), teacher, entropy)

    def loss_and_grad_(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tokens
    ) -> tuple[TokenLoss, Tensor]:
        """The same with the gradient written out; see :class:`Objective`."""
        column = tokens.ids.unsqueeze(-1)
        # Masked tokens (logit -inf) would be 0 * inf in the entropy.
        logits = student_logits.clamp_(min=student_logits.amax(-1, keepdim=True) + LOG_FLOOR)
        probs, normaliser = softmax_and_lse(logits)
        logprobs = (logits.gather(-1, column) - normaliser).squeeze(-1)
        with torch.autocast(logits.device.type, enabled=False):
            entropy = normaliser.squeeze(-1) - torch.linalg.vecdot(probs, logits)
        teacher = None if teacher_logits is None else _logprobs_(teacher_logits, column)
        with torch.enable_grad():
            leaf = logprobs.detach().requires_grad_()
            loss = self.of_logprobs(leaf, teacher, tokens)
            (slope,) = torch.autograd.grad(loss.sum(), leaf)
        torch.neg(probs, out=student_logits)
        student_logits.scatter_add_(-1, column, torch.ones_like(logprobs).unsqueeze(-1))
        return TokenLoss(loss.detach(), logprobs, teacher, entropy), slope


def _logprobs_(logits: Tensor, column: Tensor) -> Tensor:
    """Log-probabilities of ids ``[tokens, 1]``; overwrites the logits."""
    chosen, most = logits.gather(-1, column), logits.amax(-1, keepdim=True)
    normaliser = logits.sub_(most).exp_().sum(-1, keepdim=True).log_().add_(most)
    return (chosen - normaliser).squeeze(-1)
