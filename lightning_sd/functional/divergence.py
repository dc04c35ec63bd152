"""Compute divergences between student and teacher over the vocabulary, with explicit gradients.

Notation: S is the student's distribution, T the teacher's.

The gradient with respect to the student's logits is computed together with the value. This halves
the number of live tensors, and the gradient is exactly zero where student and teacher agree; with
autograd through ``log_softmax`` it would be zero up to rounding only.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_sd.functional.divergence_spec import DivergenceSpec
from lightning_sd.functional.logits import LOG_FLOOR, add_tail, softmax_and_lse, widen


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
        if not bool(torch.isfinite(student.amin() + teacher.amin()) if student.numel() else True):
            # Masked tokens have a logit of -inf: replace it by a very low finite one.
            for logits in (student, teacher):
                logits.clamp_(min=logits.amax(-1, keepdim=True) + LOG_FLOOR)
        return _compute_(student, teacher, ids, spec)


def _compute_(
    student: Tensor, teacher: Tensor, ids: Tensor, spec: DivergenceSpec
) -> DivergenceResult:
    at = ids.unsqueeze(-1)
    chosen_s, chosen_t = student.gather(-1, at), teacher.gather(-1, at)
    probs_s, lse_s = softmax_and_lse(student)
    probs_t, lse_t = softmax_and_lse(teacher)
    entropy = lse_s.squeeze(-1) - torch.linalg.vecdot(probs_s, student)
    if spec.top_k is None or (spec.top_k >= student.shape[-1] and not spec.tail):
        gap = teacher.sub_(student).sub_(lse_t - lse_s)
        value, grad = value_and_grad(gap, probs_s, probs_t, spec, out=student)
        if grad is not student:
            student.copy_(grad)
    else:
        value = _on_top_k_(student, lse_s, teacher, lse_t, probs_s, spec)
    logprobs = ((chosen_s - lse_s).squeeze(-1), (chosen_t - lse_t).squeeze(-1))
    return DivergenceResult(value, *logprobs, entropy)


def value_and_grad(
    gap: Tensor,
    probs_s: Tensor,
    probs_t: Tensor,
    spec: DivergenceSpec,
    *,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute a divergence over categories, and its gradient with respect to the student's logits.

    All formulas use the difference of the log-probabilities. Where the two distributions agree it
    is exactly zero, and value and gradient are exactly zero as well.

    Args:
        gap: ``[..., categories]``, log T - log S; may be overwritten.
        probs_s: ``[..., categories]``, the student's probabilities; may be overwritten.
        probs_t: ``[..., categories]``, the teacher's probabilities.
        spec: Its ``kind``, ``beta`` and clips are used.
        out: Memory for the gradient, which is used where nothing is clipped.

    Returns:
        Value ``[...]`` and gradient ``[..., categories]``.
    """
    mass: Tensor | None = None
    if spec.clips_ratio:
        gap, probs_t, mass = _clip_ratio(gap, probs_s, probs_t, spec)
    if spec.kind == "forward_kl":
        return _forward_kl(gap, probs_s, probs_t, spec.element_clip, mass, out)
    if spec.kind == "reverse_kl":
        return _reverse_kl(gap, probs_s, spec.element_clip, out)
    return _js(gap, probs_s, probs_t, spec.beta, spec.element_clip, out)


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
    gap: Tensor,
    probs_s: Tensor,
    probs_t: Tensor,
    clip: float | None,
    mass: Tensor | None,
    out: Tensor | None,
) -> tuple[Tensor, Tensor]:
    if clip is None:
        value = torch.linalg.vecdot(probs_t, gap)
        return value, torch.sub(probs_s if mass is None else probs_s.mul_(mass), probs_t, out=out)
    element = gap.mul_(probs_t)
    kept = element <= clip
    lost = torch.where(kept, 0.0, probs_t).sum(-1, keepdim=True)
    total = 1 if mass is None else mass
    return element.clamp(max=clip).sum(-1), probs_s * (total - lost) - probs_t * kept


def _reverse_kl(
    gap: Tensor, probs_s: Tensor, clip: float | None, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    if clip is None:
        minus = torch.linalg.vecdot(probs_s, gap)
        return -minus, torch.sub(minus.unsqueeze(-1), gap, out=out).mul_(probs_s)
    element = gap.mul_(probs_s).neg_()
    kept = element <= clip
    element_kept = element * kept
    lost = torch.where(kept, 0.0, probs_s).sum(-1, keepdim=True)
    grad = element_kept - probs_s * element_kept.sum(-1, keepdim=True)
    return element.clamp(max=clip).sum(-1), grad + probs_s * lost - probs_s * ~kept


def _js(
    gap: Tensor,
    probs_s: Tensor,
    probs_t: Tensor,
    beta: float,
    clip: float | None,
    out: Tensor | None,
) -> tuple[Tensor, Tensor]:
    # log(M/S) = log1p(beta (T/S - 1)). Above the bound, S is smaller than T's rounding error.
    precision = torch.finfo(gap.dtype)
    # (T - S) / S takes a tenth of the time of expm1(gap), and is exactly 0 as well where T = S.
    excess = torch.sub(probs_t, probs_s, out=out).div_(probs_s.clamp(min=precision.tiny))
    log_m_s = excess.clamp_(max=1 / precision.eps - 1).mul_(beta).log1p_()
    gap.clamp_(max=-math.log(precision.eps))
    log_t_m = gap.sub_(log_m_s)
    if clip is None:
        of_student = (1 - beta) * torch.linalg.vecdot(probs_s, log_m_s)
        value = beta * torch.linalg.vecdot(probs_t, log_t_m) - of_student
        grad = torch.sub(of_student.unsqueeze(-1), log_m_s, alpha=1 - beta, out=out)
        return value, grad.mul_(probs_s)
    student = log_m_s.neg_().mul_(probs_s)
    element = beta * probs_t * log_t_m + (1 - beta) * student
    student = student * (element <= clip)
    grad = (1 - beta) * (student - probs_s * student.sum(-1, keepdim=True))
    return element.clamp(max=clip).sum(-1), grad


def _on_top_k_(
    student: Tensor,
    lse_s: Tensor,
    teacher: Tensor,
    lse_t: Tensor,
    probs: Tensor,
    spec: DivergenceSpec,
) -> Tensor:
    """Return the value on the top k; overwrite the student's logits with the gradient."""
    k = min(spec.top_k or student.shape[-1], student.shape[-1])
    top = (student if spec.support == "student" else teacher).topk(k, -1).indices
    top_s, top_t = student.gather(-1, top) - lse_s, teacher.gather(-1, top) - lse_t
    if not spec.tail:
        top_s, top_t = top_s.log_softmax(-1), top_t.log_softmax(-1)
        value, grad_top = value_and_grad(top_t - top_s, top_s.exp(), top_t.exp(), spec)
        student.zero_().scatter_(-1, top, grad_top)
        return value
    cat_s, cat_t = add_tail(top_s), add_tail(top_t)
    value, grad_cat = value_and_grad(cat_t - cat_s, cat_s.exp(), cat_t.exp(), spec)
    # Each token outside the top k gets the tail's gradient times its share of the tail. The tail is
    # summed here because add_tail may have floored it; in float32 it is known to about 1e-7 only.
    rest = probs.scatter_(-1, top, 0.0)
    share = rest.sum(-1, keepdim=True).clamp(min=torch.finfo(probs.dtype).tiny)
    torch.mul(rest, grad_cat[..., -1:] / share, out=student)
    student.scatter_(-1, top, grad_cat[..., :-1])
    return value
