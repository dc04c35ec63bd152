"""The interface of an objective: what one completion token costs.

Which tokens count, how they are averaged over the global batch, and how the vocabulary is chunked
is the same for all objectives and done in :mod:`lightning_sd.objectives.reduce`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

from lightning_sd.objectives.inputs import ObjectiveInputs, StepState
from lightning_sd.objectives.spec import InputSpec
from lightning_sd.objectives.token_weights import TokenWeight
from lightning_sd.scoring import LogitsSource

Reduction = Literal["token", "sequence", "constant"]


@dataclass(frozen=True)
class TokenInputs:
    """What the loss reads of each completion token beside the logits; each ``[tokens]``."""

    ids: Tensor
    """The sampled token."""
    old_logprobs: Tensor | None = None
    """Denominator of PPO's ratio: the log-probability under the old policy. None: the current
    policy, so that the ratio is 1."""
    advantages: Tensor | None = None
    """Advantage of a policy gradient."""
    scale: Tensor | None = None
    """Factor of the token's loss; it does not change the count of the average. None: 1."""
    kept: Tensor | None = None
    """Bool. Tokens that are not kept neither cost nor count; None: all are kept."""
    shares: Tensor | None = None
    """``[tokens, terms]``: the share of each term of a mixture."""
    behavior_logprobs: Tensor | None = None
    """Denominator of the importance weight: the log-probability under the policy that drew the
    token; NaN: unknown. None: no weights."""

    def select(self, chunk: slice) -> TokenInputs:
        """Return the same for some of the tokens."""
        values = (getattr(self, field.name) for field in fields(self))
        return TokenInputs(*(None if value is None else value[chunk] for value in values))  # type: ignore[arg-type]


@dataclass(frozen=True)
class TokenLoss:
    """The loss of each token and what was learned on the way; each ``[tokens]``.

    Only ``loss`` may carry a gradient.
    """

    loss: Tensor
    student_logprobs: Tensor
    """Of the sampled token."""
    entropy: Tensor
    """Of the student, in nats."""
    teacher_logprobs: Tensor | None = None
    """Of the sampled token; None without a teacher."""

    def to_columns(self) -> Tensor:
        """Stack the values, without gradient: ``[tokens, 3 or 4]``."""
        values = [self.loss, self.student_logprobs, self.entropy, self.teacher_logprobs]
        return torch.stack([value.detach() for value in values if value is not None], -1)

    @classmethod
    def from_columns(cls, columns: Tensor) -> TokenLoss:
        """Take the values from what :meth:`to_columns` stacked."""
        return cls(*columns.unbind(-1))


@dataclass(frozen=True)
class Objective(ABC):
    """What one completion token costs.

    A subclass declares what it reads in :attr:`inputs` and defines :meth:`token_loss`. It may also
    shape advantages (:meth:`make_token_inputs`), compare the student with something else than the
    teacher (:meth:`build_target`), and write out its gradient (:meth:`loss_and_grad_`).
    """

    reduction: Reduction = "token"
    """``token``: mean over all tokens of the global batch. ``sequence``: mean over the tokens of
    each completion, then over completions. ``constant``: the sum over a completion's tokens divided
    by ``constant_tokens``, then the mean over completions (Dr. GRPO)."""
    constant_tokens: int | None = None
    """Divisor of the ``constant`` reduction, usually the sampler's ``max_new_tokens``."""
    temperature: float = 1.0
    """Logits of student and teacher are divided by this."""
    chunk_tokens: int | None = None
    """Tokens for which ``[tokens, vocab]`` logits are held at once; None: 64 MiB, at least 128."""
    token_weights: Sequence[TokenWeight] = ()
    """Masks and weights of tokens; see :mod:`lightning_sd.objectives.token_weights`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_weights", tuple(self.token_weights))  # YAML gives lists
        if self.reduction not in ("token", "sequence", "constant"):
            raise ValueError(f"reduction={self.reduction!r}: choose token, sequence or constant.")
        if (self.constant_tokens is not None) != (self.reduction == "constant"):
            raise ValueError(
                f"constant_tokens={self.constant_tokens} with reduction={self.reduction!r}: set it "
                "(to the sampler's max_new_tokens) for the constant reduction and for no other."
            )
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature}: must be above 0 and finite.")
        for name in ("chunk_tokens", "constant_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")

    @property
    def inputs(self) -> InputSpec:
        """What the objective reads; subclasses add to it by ``super().inputs.add(...)``."""
        return InputSpec().add(*(name for w in self.token_weights for name in w.statistics))

    def make_token_inputs(self, inputs: ObjectiveInputs, state: StepState) -> TokenInputs:
        """Return what the loss reads of each token; override it to shape advantages.

        Args:
            inputs: The micro-batch.
            state: Step number, tokenizer, and the sum over ranks.
        """
        return TokenInputs(
            inputs.ids, inputs.old_logprobs, behavior_logprobs=inputs.behavior_logprobs
        )

    def apply_token_weights(self, inputs: ObjectiveInputs, state: StepState) -> TokenInputs:
        """Return :meth:`make_token_inputs` with ``token_weights`` applied.

        Args:
            inputs: The micro-batch.
            state: Step number, tokenizer, and the sum over ranks.
        """
        tokens = self.make_token_inputs(inputs, state)
        kept, scale = tokens.kept, tokens.scale
        for weight in self.token_weights:
            value = weight(inputs, state)
            if weight.is_mask:
                kept = value if kept is None else kept & value
            else:
                scale = value if scale is None else scale * value
        return replace(tokens, kept=kept, scale=scale)

    def build_target(
        self, teacher: LogitsSource, contrasts: Sequence[LogitsSource]
    ) -> LogitsSource:
        """Return what the student is compared with: the teacher, unless overridden.

        Args:
            teacher: Scores under the first view.
            contrasts: Scores under the contrasting views, if :attr:`inputs` names
                ``contrast_logprobs``; zeros for rollouts that have fewer.
        """
        return teacher

    @abstractmethod
    def token_loss(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: TokenInputs
    ) -> TokenLoss:
        """Return the cost of each token of a chunk.

        Args:
            student_logits: ``[tokens, vocab]``, divided by the temperature, with a graph.
            teacher_logits: ``[tokens, vocab]``, divided by the temperature; None if the objective
                reads none or no rollout has a view.
            tokens: ``[tokens]`` each.
        """

    def loss_and_grad_(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: TokenInputs
    ) -> tuple[TokenLoss, Tensor]:
        """Return :meth:`token_loss` without a graph, and overwrite the logits with the gradient.

        The default uses autograd; objectives that know their gradient override it.

        Args:
            student_logits: ``[tokens, vocab]``, float32 or wider, without a graph; overwritten
                with the gradient of the loss with respect to them, up to the returned factor.
            teacher_logits: ``[tokens, vocab]``; may be overwritten.
            tokens: ``[tokens]`` each.

        Returns:
            The loss, and the factor by which each token's gradient must still be multiplied,
            ``[tokens]``.
        """
        with torch.enable_grad():
            leaf = student_logits.detach().clone().requires_grad_()
            result = self.token_loss(leaf, teacher_logits, tokens)
            (grad,) = torch.autograd.grad(result.loss.sum(), leaf)
        student_logits.copy_(grad)
        return replace(result, loss=result.loss.detach()), torch.ones_like(result.loss)


def check_positive(objective: Objective, *names: str) -> None:
    """Refuse settings that are given and not above 0.

    Raises:
        ValueError: A setting is 0 or negative; the message names it and its value.
    """
    for name in names:
        value = getattr(objective, name)
        if value is not None and not value > 0:
            raise ValueError(f"{name}={value}: must be above 0, or none.")
