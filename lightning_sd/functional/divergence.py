"""Compute divergences between student and teacher over the vocabulary, with explicit gradients.

Notation: S is the student's distribution, T the teacher's.

The gradient with respect to the student's logits is computed together with the value. This halves
the number of live tensors, and the gradient is exactly zero where student and teacher agree; with
autograd through ``log_softmax`` it would be zero up to rounding only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_sd.functional.logits import LOG_FLOOR, add_tail, softmax_and_lse, widen

Kind = Literal["forward_kl", "reverse_kl", "js"]
Support = Literal["student", "teacher"]


@dataclass(frozen=True)
class DivergenceSpec:
    """A choice of divergence and of the tokens that it compares.

    Raises:
        ValueError: A setting is out of range.
    """

    kind: Kind = "forward_kl"
    beta: float = 0.5
    """The teacher's weight in the mixture M; used by ``js`` only."""
    top_k: int | None = None
    """Number of tokens to compare; None compares the whole vocabulary."""
    support: Support = "student"
    """The model that chooses the k most likely tokens."""
    tail: bool = True
    """Whether all other tokens form one more category; if not, both distributions are
    renormalized over the k tokens."""
    element_clip: float | None = None
    """Upper bound of each vocabulary entry's term before the sum over the vocabulary."""
    ratio_low: float | None = None
    """Lower bound of T / S for each category, the tail included (RESD, eq. 1). The bounded teacher
    is not renormalized, and no gradient flows through the bounds."""
    ratio_high: float | None = None
    """Upper bound of T / S."""

    def __post_init__(self) -> None:
        if self.kind not in ("forward_kl", "reverse_kl", "js"):
            raise ValueError(f"kind={self.kind!r}: choose forward_kl, reverse_kl or js.")
        if self.kind == "js" and not 0 < self.beta < 1:
            raise ValueError(
                f"beta={self.beta}: Jensen-Shannon needs 0 < beta < 1. At 0 and 1 it is zero, not "
                "a KL divergence: use kind forward_kl or reverse_kl instead."
            )
        if self.top_k is not None and self.top_k < (1 if self.tail else 2):
            raise ValueError(
                f"top_k={self.top_k} with tail={self.tail}: must be at least 1 with a tail and at "
                "least 2 without one."
            )
        if self.support not in ("student", "teacher"):
            raise ValueError(f"support={self.support!r}: choose student or teacher.")
        if self.element_clip is not None and not self.element_clip > 0:
            raise ValueError(f"element_clip={self.element_clip}: must be above 0, or null.")
        low, high = self.ratio_low, self.ratio_high
        if (low is not None and not 0 < low <= 1) or (high is not None and not high >= 1):
            raise ValueError(
                f"ratio_low={low}, ratio_high={high}: ratio_low must be above 0 and at most 1, "
                "ratio_high at least 1, or null, so that equal probabilities stay equal."
            )

    @property
    def clips_ratio(self) -> bool:
        """Whether the ratio of teacher to student is bounded."""
        return self.ratio_low is not None or self.ratio_high is not None


class DivergenceResult(NamedTuple):
    """Results per token, each ``[...]`` (the logits' shape without the vocabulary)."""

    value: Tensor
    """The divergence in nats; differentiable with respect to the student's logits."""
    student_logprobs: Tensor
    """The student's log-probability of the sampled token (full vocabulary), without gradient."""
    teacher_logprobs: Tensor
    """The teacher's log-probability of the sampled token, without gradient."""
    entropy: Tensor
    """The student's entropy over the full vocabulary, in nats, without gradient."""


def divergence(
    student_logits: Tensor, teacher_logits: Tensor, ids: Tensor, spec: DivergenceSpec
) -> DivergenceResult:
    """Compute the divergence between student and teacher at each position.

    ``forward_kl`` is KL(T || S), ``reverse_kl`` is KL(S || T), ``js`` is
    ``beta KL(T || M) + (1 - beta) KL(S || M)`` with ``M = beta T + (1 - beta) S``
    (the generalized Jensen-Shannon divergence of GKD, arXiv 2306.13649).

    Args:
        student_logits: ``[..., vocab]``; computed in float32 or wider.
        teacher_logits: ``[..., vocab]``; receives no gradient.
        ids: ``[...]``, the sampled tokens; used for the returned log-probabilities only.
        spec: The divergence and its settings.

    Returns:
        Value, sampled-token log-probabilities and entropy, each ``[...]``.

    Raises:
        ValueError: The logits have different shapes (such as another vocabulary), or the ids do not
            match them.

    Example:
        >>> s = torch.tensor([[0.8, 0.2]]).log()
        >>> t = torch.tensor([[0.5, 0.5]]).log()
        >>> forward = divergence(s, t, torch.tensor([0]), DivergenceSpec("forward_kl"))
        >>> round(forward.value.item(), 4)
        0.2231
    """
    if student_logits.shape != teacher_logits.shape or ids.shape != student_logits.shape[:-1]:
        raise ValueError(
            f"student_logits {tuple(student_logits.shape)}, teacher_logits "
            f"{tuple(teacher_logits.shape)} and ids {tuple(ids.shape)} do not match: both logits "
            "must be [..., vocab] with the same vocabulary, ids [...]."
        )
    return DivergenceResult(*_Divergence.apply(student_logits, teacher_logits.detach(), ids, spec))


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, student_logits: Tensor, teacher_logits: Tensor, ids: Tensor, spec: DivergenceSpec
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        grad = widen(student_logits, copy=True)
        result = divergence_and_grad_(grad, widen(teacher_logits, copy=True), ids, spec)
        ctx.save_for_backward(grad)
        ctx.dtype = student_logits.dtype
        ctx.mark_non_differentiable(*result[1:])
        return result.value, result.student_logprobs, result.teacher_logprobs, result.entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        return (grad * grads[0].unsqueeze(-1)).to(ctx.dtype), None, None, None


def divergence_and_grad_(
    student: Tensor, teacher: Tensor, ids: Tensor, spec: DivergenceSpec
) -> DivergenceResult:
    """Compute :func:`divergence` in place; the student's logits are replaced by the gradient.

    Args:
        student: ``[..., vocab]``, float32 or wider; overwritten with d value / d logits.
        teacher: ``[..., vocab]``, float32 or wider; its content is undefined afterwards.
        ids: ``[...]``.
        spec: The divergence and its settings.

    Returns:
        The result of :func:`divergence`, without a graph.
    """
    # Autocast would compute the products below in half precision.
    with torch.autocast(student.device.type, enabled=False):
        result, grad = _compute(student, teacher, ids, spec)
        if not bool(torch.isfinite(result.value + result.entropy).all()):
            # Masked tokens have a logit of -inf: replace it by a very low finite one.
            for logits in (student, teacher):
                logits.clamp_(min=logits.amax(-1, keepdim=True) + LOG_FLOOR)
            result, grad = _compute(student, teacher, ids, spec)
        student.copy_(grad)
    return result


def _compute(
    student: Tensor, teacher: Tensor, ids: Tensor, spec: DivergenceSpec
) -> tuple[DivergenceResult, Tensor]:
    probs_s, lse_s = softmax_and_lse(student)
    probs_t, lse_t = softmax_and_lse(teacher)
    at = ids.unsqueeze(-1)
    entropy = lse_s.squeeze(-1) - torch.linalg.vecdot(probs_s, student)
    if spec.top_k is None or (spec.top_k >= student.shape[-1] and not spec.tail):
        gap = (teacher - student).sub_(lse_t - lse_s)
        value, grad = value_and_grad(gap, probs_s, probs_t, spec)
    else:
        value, grad = _on_top_k(student - lse_s, teacher - lse_t, probs_s, spec)
    student_lp, teacher_lp = student.gather(-1, at) - lse_s, teacher.gather(-1, at) - lse_t
    return DivergenceResult(value, student_lp.squeeze(-1), teacher_lp.squeeze(-1), entropy), grad


def value_and_grad(
    gap: Tensor, probs_s: Tensor, probs_t: Tensor, spec: DivergenceSpec
) -> tuple[Tensor, Tensor]:
    """Compute a divergence over categories, and its gradient with respect to the student's logits.

    All formulas use the difference of the log-probabilities. Where the two distributions agree it
    is exactly zero, and value and gradient are exactly zero as well.

    Args:
        gap: ``[..., categories]``, log T - log S; may be overwritten.
        probs_s: ``[..., categories]``, the student's probabilities; may be overwritten.
        probs_t: ``[..., categories]``, the teacher's probabilities.
        spec: Its ``kind``, ``beta`` and clips are used.

    Returns:
        Value ``[...]`` and gradient ``[..., categories]``.
    """
    mass: Tensor | None = None
    if spec.clips_ratio:
        gap, probs_t, mass = _clip_ratio(gap, probs_s, probs_t, spec)
    if spec.kind == "forward_kl":
        return _forward_kl(gap, probs_s, probs_t, spec.element_clip, mass)
    if spec.kind == "reverse_kl":
        return _reverse_kl(gap, probs_s, spec.element_clip)
    return _js(gap, probs_s, probs_t, spec.beta, spec.element_clip)


def _clip_ratio(
    gap: Tensor, probs_s: Tensor, probs_t: Tensor, spec: DivergenceSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """Bound T / S; return the new gap, the new T, and the sum of T ``[..., 1]``, no longer 1."""
    low = None if spec.ratio_low is None else math.log(spec.ratio_low)
    high = None if spec.ratio_high is None else math.log(spec.ratio_high)
    bounded = gap.clamp(low, high)
    clipped = torch.where(bounded == gap, probs_t, probs_s * bounded.exp())
    # Written as 1 plus the changes, so that it is exactly 1 where nothing is clipped.
    return bounded, clipped, 1 + (clipped - probs_t).sum(-1, keepdim=True)


def _forward_kl(
    gap: Tensor, probs_s: Tensor, probs_t: Tensor, clip: float | None, mass: Tensor | None
) -> tuple[Tensor, Tensor]:
    if clip is None:
        value = torch.linalg.vecdot(probs_t, gap)
        return value, (probs_s if mass is None else probs_s.mul_(mass)).sub_(probs_t)
    element = gap.mul_(probs_t)
    kept = element <= clip
    lost = torch.where(kept, 0.0, probs_t).sum(-1, keepdim=True)
    total = 1 if mass is None else mass
    return element.clamp(max=clip).sum(-1), probs_s * (total - lost) - probs_t * kept


def _reverse_kl(gap: Tensor, probs_s: Tensor, clip: float | None) -> tuple[Tensor, Tensor]:
    if clip is None:
        minus = torch.linalg.vecdot(probs_s, gap)
        return -minus, gap.sub_(minus.unsqueeze(-1)).mul_(probs_s).neg_()
    element = gap.mul_(probs_s).neg_()
    kept = element <= clip
    element_kept = element * kept
    lost = torch.where(kept, 0.0, probs_s).sum(-1, keepdim=True)
    grad = element_kept - probs_s * element_kept.sum(-1, keepdim=True)
    return element.clamp(max=clip).sum(-1), grad + probs_s * lost - probs_s * ~kept


def _js(
    gap: Tensor, probs_s: Tensor, probs_t: Tensor, beta: float, clip: float | None
) -> tuple[Tensor, Tensor]:
    # log(S/M) = -log1p(beta (T/S - 1)). Above the bound, S is smaller than T's rounding error.
    bound = -math.log(torch.finfo(gap.dtype).eps)
    log_s_m = gap.clamp_(max=bound).expm1().mul_(beta).log1p_().neg_()
    log_t_m = gap.add_(log_s_m)
    if clip is None:
        of_student = torch.linalg.vecdot(probs_s, log_s_m)
        value = beta * torch.linalg.vecdot(probs_t, log_t_m) + (1 - beta) * of_student
        grad = log_s_m.sub_(of_student.unsqueeze(-1)).mul_(probs_s).mul_(1 - beta)
        return value, grad
    student = log_s_m.mul_(probs_s)
    element = beta * probs_t * log_t_m + (1 - beta) * student
    student = student * (element <= clip)
    grad = (1 - beta) * (student - probs_s * student.sum(-1, keepdim=True))
    return element.clamp(max=clip).sum(-1), grad


def _on_top_k(
    logs: Tensor, logt: Tensor, probs: Tensor, spec: DivergenceSpec
) -> tuple[Tensor, Tensor]:
    k = min(spec.top_k or logs.shape[-1], logs.shape[-1])
    top = (logs if spec.support == "student" else logt).topk(k, -1).indices
    top_s, top_t = logs.gather(-1, top), logt.gather(-1, top)
    if not spec.tail:
        top_s, top_t = top_s.log_softmax(-1), top_t.log_softmax(-1)
        value, grad_top = value_and_grad(top_t - top_s, top_s.exp(), top_t.exp(), spec)
        return value, torch.zeros_like(probs).scatter_(-1, top, grad_top)
    cat_s, cat_t = add_tail(top_s), add_tail(top_t)
    value, grad_cat = value_and_grad(cat_t - cat_s, cat_s.exp(), cat_t.exp(), spec)
    # Each token outside the top k gets the tail's gradient times its share of the tail. The tail is
    # summed here because add_tail may have floored it; in float32 it is known to about 1e-7 only.
    rest = probs.scatter(-1, top, 0.0)
    share = rest.sum(-1, keepdim=True).clamp(min=torch.finfo(probs.dtype).tiny)
    grad = rest.mul_(grad_cat[..., -1:] / share)
    return value, grad.scatter_(-1, top, grad_cat[..., :-1])
