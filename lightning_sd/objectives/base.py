"""What one completion token costs: the interface that every loss fills in.

Which tokens count, how they are averaged over the global batch and how the vocabulary is chunked is
the same for all and stands in :mod:`lightning_sd.objectives.reduce`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from lightning_sd.objectives.inputs import Signals
from lightning_sd.objectives.weights import TokenWeight
from lightning_sd.scoring import LogitsSource, Scores

Reduction = Literal["token", "sequence", "constant"]


@dataclass(frozen=True)
class Tokens:
    """What the loss reads of each completion token beside the logits; each ``[tokens]``."""

    ids: Tensor
    """The sampled token."""
    old_logprobs: Tensor | None = None
    """Under the policy that sampled it; None: the current policy sampled it."""
    advantages: Tensor | None = None
    """By what a policy gradient pushes it up."""
    scale: Tensor | None = None
    """By what its loss is multiplied, the average left as it is; None: 1."""
    kept: Tensor | None = None
    """Bool. Tokens that are not kept neither cost nor count; None: all are."""
    shares: Tensor | None = None
    """``[tokens, terms]``: the share of each term of a mixture."""

    def part(self, chunk: slice) -> Tokens:
        """The same for some of the tokens."""
        fields = (getattr(self, name) for name in self.__dataclass_fields__)
        return Tokens(*(None if value is None else value[chunk] for value in fields))  # type: ignore[arg-type]


@dataclass(frozen=True)
class TokenLoss:
    """Results for a chunk; each ``[tokens]``. Only ``loss`` carries a gradient."""

    loss: Tensor
    student_logprobs: Tensor
    """Of the sampled token."""
    teacher_logprobs: Tensor | None
    """Likewise; None without a teacher."""
    entropy: Tensor
    """The student's, in nats."""


@dataclass(frozen=True)
class Objective(ABC):
    """What one completion token costs."""

    reduction: Reduction = "token"
    """``token``: mean over all tokens of the global batch. ``sequence``: over each completion's
    tokens first, then over completions. ``constant``: the sum over a completion's tokens divided by
    ``constant_tokens``, then the mean over completions (Dr. GRPO)."""
    constant_tokens: int | None = None
    """Of the ``constant`` reduction: usually the sampler's ``max_new_tokens``."""
    temperature: float = 1.0
    """Logits of student and teacher are divided by it."""
    chunk_tokens: int | None = None
    """Tokens whose ``[tokens, vocab]`` logits are held at once; None: about 64 MiB of logits."""
    weights: Sequence[TokenWeight] = ()
    """Which tokens or rollouts count, and how much; see :mod:`lightning_sd.objectives.weights`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.weights))  # YAML gives lists
        if self.reduction not in ("token", "sequence", "constant"):
            raise ValueError(f"reduction={self.reduction!r}: choose token, sequence or constant.")
        if (self.constant_tokens is not None) != (self.reduction == "constant"):
            raise ValueError(
                f"constant_tokens={self.constant_tokens} with reduction={self.reduction!r}: the "
                "constant reduction needs it (give the sampler's max_new_tokens), no other does."
            )
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature}: must be above 0, finite.")
        for name in ("chunk_tokens", "constant_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")

    @property
    def needs_teacher(self) -> bool:
        """Whether rollouts without a teacher's view are left out."""
        return True

    @property
    def uses_teacher(self) -> bool:
        """Whether those that have a view are scored under it."""
        return self.needs_teacher

    @property
    def needs_old_logprobs(self) -> bool:
        """Whether it reads the log-probabilities under which the rollouts were sampled."""
        return False

    @property
    def reads(self) -> frozenset[str]:
        """Which of the optional :class:`~lightning_sd.objectives.inputs.Signals` it wants.

        Some of ``student`` and ``teacher`` (log-probabilities and entropy), ``contrasts``,
        ``forward_kl`` and ``reverse_kl``. Each costs one more product with the head, without a
        gradient.
        """
        return frozenset().union(*(weight.reads for weight in self.weights))

    def tokens(self, signals: Signals) -> Tokens:
        """What the loss is to read of each token; override it to shape advantages."""
        return Tokens(signals.ids, signals.old_logprobs)

    def prepare(self, signals: Signals) -> Tokens:
        """:meth:`tokens`, with the weights of this objective on them."""
        tokens = self.tokens(signals)
        kept, scale = tokens.kept, tokens.scale
        for weight in self.weights:
            value = weight(signals)
            if weight.masks:
                kept = value if kept is None else kept & value
            else:
                scale = value if scale is None else scale * value
        return replace(tokens, kept=kept, scale=scale)

    def target(
        self, teacher: LogitsSource, contrasts: Sequence[LogitsSource]
    ) -> LogitsSource | None:
        """What the student is compared with: the teacher, unless an objective makes more of it.

        None: the teacher has said all it has to say in the signals, the loss reads no more of it.

        Args:
            teacher: Under the first view.
            contrasts: Under the contrasting views, if ``reads`` names ``contrasts``; zeros for
                rollouts that have fewer.
        """
        return teacher

    def fused(self, student: Scores, teacher: LogitsSource) -> Tensor | None:
        """The sum over all tokens by a kernel that gives nothing else; None: there is none.

        Args:
            student: Scores with a graph.
            teacher: Of the same tokens.
        """
        return None

    @abstractmethod
    def token_loss(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tokens
    ) -> TokenLoss:
        """Cost of each token of a chunk.

        Args:
            student_logits: ``[tokens, vocab]``, already divided by the temperature.
            teacher_logits: The same under the teacher; None if no teacher is used.
            tokens: ``[tokens]`` each.
        """

    def loss_and_grad_(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tokens
    ) -> tuple[TokenLoss, Tensor]:
        """The same without a graph, the student's logits overwritten with the loss's gradient.

        Objectives that know their gradient override it; this is autograd.

        Args:
            student_logits: ``[tokens, vocab]``, float32 or wider, without a graph.
            teacher_logits: Likewise; may be overwritten.
            tokens: ``[tokens]`` each.

        Returns:
            What :meth:`token_loss` gives, and by what each token's gradient is still to be
            multiplied, ``[tokens]``.
        """
        with torch.enable_grad():
            leaf = student_logits.detach().clone().requires_grad_()
            result = self.token_loss(leaf, teacher_logits, tokens)
            (grad,) = torch.autograd.grad(result.loss.sum(), leaf)
        student_logits.copy_(grad)
        return replace(result, loss=result.loss.detach()), torch.ones_like(result.loss)


def check_above_zero(objective: Objective, *names: str) -> None:
    """Refuse settings that are given and not above 0.

    Raises:
        ValueError: Which one, and its value.
    """
    for name in names:
        value = getattr(objective, name)
        if value is not None and not value > 0:
            raise ValueError(f"{name}={value}: must be above 0, or none.")
