"""Divergences between student and teacher over the vocabulary, with their gradients written out.

Legend: S student, T teacher, ``..V`` the vocabulary (or the categories that stand for it).

The gradient with respect to the student's logits is formed together with the value. That halves
the tensors alive at once, and where student and teacher agree it is exactly zero, which autograd
through ``log_softmax`` only reaches up to rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Kind = Literal["forward_kl", "reverse_kl", "js"]
Support = Literal["student", "teacher"]

LOG_FLOOR = -1e4
"""Logit below the largest one that is given to a token that is masked out (logit -inf)."""
TAIL_LOG_CEILING = -1e-7
"""Upper bound of the log of the top-k mass, so that the tail's log-probability stays finite."""


@dataclass(frozen=True)
class DivergenceSpec:
    """Which divergence, over which part of the vocabulary.

    Raises:
        ValueError: A setting out of range.
    """

    kind: Kind = "forward_kl"
    beta: float = 0.5
    """Weight of the teacher in the mixture; only Jensen-Shannon reads it."""
    top_k: int | None = None
    """Compare on k tokens instead of the whole vocabulary."""
    support: Support = "student"
    """Whose k most likely tokens."""
    tail: bool = True
    """Put all other tokens into one more category; False: renormalise on the k tokens."""
    element_clip: float | None = None
    """Upper bound for each (token, vocabulary) element before the sum over the vocabulary."""
    ratio_low: float | None = None
    """Lower bound of the teacher's probability over the student's, category by category, tail
    included (RESD, eq. 1). The bounded teacher is not normalised again, and the student in its
    bounds has no gradient."""
    ratio_high: float | None = None
    """Upper bound of the same."""

    def __post_init__(self) -> None:
        if self.kind not in ("forward_kl", "reverse_kl", "js"):
            raise ValueError(f"kind={self.kind!r}: choose forward_kl, reverse_kl or js.")
        if self.kind == "js" and not 0 < self.beta < 1:
            raise ValueError(
                f"beta={self.beta}: Jensen-Shannon needs 0 < beta < 1. It is no path between the "
                "two KLs (it vanishes at both ends): ask for forward_kl or reverse_kl by name."
            )
        if self.top_k is not None and self.top_k < (1 if self.tail else 2):
            raise ValueError(
                f"top_k={self.top_k} with tail={self.tail}: at least 1 with a tail, 2 without one."
            )
        if self.support not in ("student", "teacher"):
            raise ValueError(f"support={self.support!r}: choose student or teacher.")
        if self.element_clip is not None and not self.element_clip > 0:
            raise ValueError(f"element_clip={self.element_clip}: must be above 0, or none.")
        low, high = self.ratio_low, self.ratio_high
        if (low is not None and not 0 < low <= 1) or (high is not None and not high >= 1):
            raise ValueError(
                f"ratio_low={low}, ratio_high={high}: must be above 0 and at most 1, and at least "
                "1 (or none), so that equal probabilities stay equal."
            )

    @property
    def clips_ratio(self) -> bool:
        """Whether the teacher is bounded by the student."""
        return self.ratio_low is not None or self.ratio_high is not None


class DivergenceResult(NamedTuple):
    """Per-token results, each of shape ``[...]`` (the logits' shape without the vocabulary)."""

    value: Tensor
    """The divergence in nats; differentiable with respect to the student's logits."""
    student_logprobs: Tensor
    """Student's log-probability of the sampled token (full vocabulary), no gradient."""
    teacher_logprobs: Tensor
    """The teacher's, likewise."""
    entropy: Tensor
    """The student's entropy in nats over the full vocabulary, no gradient."""


def divergence(
    student_logits: Tensor, teacher_logits: Tensor, ids: Tensor, spec: DivergenceSpec
) -> DivergenceResult:
    """Divergence of the student from the teacher at each position.

    ``forward_kl`` is KL(T || S), ``reverse_kl`` is KL(S || T), ``js`` is
    ``beta KL(T || M) + (1 - beta) KL(S || M)`` with ``M = beta T + (1 - beta) S``
    (the generalised Jensen-Shannon divergence of GKD, arXiv 2306.13649).

    Args:
        student_logits: ``[..., vocab]``; computed on in float32 or wider.
        teacher_logits: ``[..., vocab]``; gets no gradient.
        ids: ``[...]``, the sampled tokens, only for the log-probabilities returned.
        spec: Which divergence.

    Returns:
        Value, sampled-token log-probabilities and entropy, each ``[...]``.

    Raises:
        ValueError: Logits of different shapes (another vocabulary), or ids that do not fit them.

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
            f"{tuple(teacher_logits.shape)} and ids {tuple(ids.shape)} do not fit: logits must be "
            "[..., vocab] of one vocabulary, ids [...]."
        )
    return DivergenceResult(*_Divergence.apply(student_logits, teacher_logits.detach(), ids, spec))


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, student_logits: Tensor, teacher_logits: Tensor, ids: Tensor, spec: DivergenceSpec
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        grad = widened(student_logits, copy=True)
        result = divergence_and_grad_(grad, widened(teacher_logits, copy=True), ids, spec)
        ctx.save_for_backward(grad)
        ctx.dtype = student_logits.dtype
        ctx.mark_non_differentiable(*result[1:])
        return result.value, result.student_logprobs, result.teacher_logprobs, result.entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        return (grad * grads[0].unsqueeze(-1)).to(ctx.dtype), None, None, None


def widened(logits: Tensor, *, copy: bool = False) -> Tensor:
    """Logits in float32 or wider: everything below is summed in that."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32), copy=copy)


def divergence_and_grad_(
    student: Tensor, teacher: Tensor, ids: Tensor, spec: DivergenceSpec
) -> DivergenceResult:
    """The work behind :func:`divergence`, in place: the student's logits become their gradient.

    Args:
        student: ``[..., vocab]``, float32 or wider; overwritten with d value / d logits.
        teacher: ``[..., vocab]``, likewise; its content is undefined afterwards.
        ids: ``[...]``.
        spec: Which divergence.

    Returns:
        As :func:`divergence`, without a graph.
    """
    # Autocast would sum the products below in half precision.
    with torch.autocast(student.device.type, enabled=False):
        result, grad = _compute(student, teacher, ids, spec)
        if not bool(torch.isfinite(result.value + result.entropy).all()):
            # Tokens that are masked out (logit -inf): give them a finite, hopeless logit instead.
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


def softmax_and_lse(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over the last axis, and the log of its normaliser ``[..., 1]``: one exp pass."""
    probs = torch.softmax(logits, -1)
    # The likeliest token's probability is exp(its logit - lse); two amax beat a max with indices.
    return probs, logits.amax(-1, keepdim=True) - probs.amax(-1, keepdim=True).log_()


def value_and_grad(
    gap: Tensor, probs_s: Tensor, probs_t: Tensor, spec: DivergenceSpec
) -> tuple[Tensor, Tensor]:
    """Divergence over given categories, and its gradient with respect to the student's logits.

    Everything is written in the gap of the log-probabilities, which is exactly zero where the two
    agree, and then so are value and gradient.

    Args:
        gap: ``[..., categories]``, log T - log S; may be overwritten.
        probs_s: ``[..., categories]``, the student's probabilities; may be overwritten.
        probs_t: The teacher's.
        spec: Kind, beta and clips are read.

    Returns:
        Value ``[...]`` and gradient ``[..., categories]``.
    """
    mass: Tensor | None = None
    if spec.clips_ratio:
        gap, probs_t, mass = _ratio_clipped(gap, probs_s, probs_t, spec)
    if spec.kind == "forward_kl":
        return _forward_kl(gap, probs_s, probs_t, spec.element_clip, mass)
    if spec.kind == "reverse_kl":
        return _reverse_kl(gap, probs_s, spec.element_clip)
    return _js(gap, probs_s, probs_t, spec.beta, spec.element_clip)


def _ratio_clipped(
    gap: Tensor, probs_s: Tensor, probs_t: Tensor, spec: DivergenceSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """Bound T / S: the new gap, the new T, and the sum of T, ``[..., 1]``, no longer 1."""
    low = None if spec.ratio_low is None else math.log(spec.ratio_low)
    high = None if spec.ratio_high is None else math.log(spec.ratio_high)
    bounded = gap.clamp(low, high)
    clipped = torch.where(bounded == gap, probs_t, probs_s * bounded.exp())
    # As a sum of changes, so that it is exactly 1 where nothing is clipped.
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
    # log(S/M) = -log1p(beta (T/S - 1)). Above the bound S is below T's rounding.
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
    assert spec.top_k is not None
    k = min(spec.top_k, logs.shape[-1])
    top = (logs if spec.support == "student" else logt).topk(k, -1).indices
    top_s, top_t = logs.gather(-1, top), logt.gather(-1, top)
    if not spec.tail:
        top_s, top_t = top_s.log_softmax(-1), top_t.log_softmax(-1)
        value, grad_top = value_and_grad(top_t - top_s, top_s.exp(), top_t.exp(), spec)
        return value, torch.zeros_like(probs).scatter_(-1, top, grad_top)
    cat_s, cat_t = add_tail(top_s), add_tail(top_t)
    value, grad_cat = value_and_grad(cat_t - cat_s, cat_s.exp(), cat_t.exp(), spec)
    # The tail's gradient falls on its members by their share of it, summed afresh: the tail's own
    # probability may be floored, and in float32 it is only known to about 1e-7.
    rest = probs.scatter(-1, top, 0.0)
    share = rest.sum(-1, keepdim=True).clamp(min=torch.finfo(probs.dtype).tiny)
    grad = rest.mul_(grad_cat[..., -1:] / share)
    return value, grad.scatter_(-1, top, grad_cat[..., :-1])


def add_tail(top_logprobs: Tensor) -> Tensor:
    """Append the log-probability of everything outside the top k (SDPO, eq. 11).

    Args:
        top_logprobs: ``[..., k]``, log-probabilities under the full vocabulary.

    Returns:
        ``[..., k + 1]``; the tail is finite even when the k tokens hold all the mass.

    Example:
        >>> add_tail(torch.tensor([[0.7, 0.2]]).log()).exp().round(decimals=4)
        tensor([[0.7000, 0.2000, 0.1000]])
    """
    mass = torch.logsumexp(top_logprobs, -1, keepdim=True).clamp(max=TAIL_LOG_CEILING)
    return torch.cat([top_logprobs, torch.log(-torch.expm1(mass))], -1)
