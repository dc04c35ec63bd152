"""Contrasts between a teacher with a right hint and teachers with wrong ones, as tensor functions.

A hint changes a teacher's style as well as its knowledge. Under the same wording a wrong hint
changes the style in the same way, so what differs between the two is knowledge (RLCSD).

Legend: c the right hint, w a wrong one, K wrong hints of which a token may have fewer, A advantage.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def log_mean_prob(logprobs: Tensor) -> Tensor:
    """Log of the mean of probabilities: not the mean of their logs.

    Args:
        logprobs: ``[..., K]``, NaN where there is none.

    Returns:
        ``[...]``; NaN where there is none at all.

    Example:
        >>> log_mean_prob(torch.tensor([[0.1, 0.5, torch.nan]]).log()).exp()
        tensor([0.3000])
    """
    valid = ~logprobs.isnan()
    number = valid.sum(-1).to(logprobs.dtype)
    total = logprobs.masked_fill(~valid, -torch.inf).logsumexp(-1)
    return torch.where(number > 0, total - number.log(), torch.nan)


def contrastive_evidence(right: Tensor, wrong: Tensor) -> Tensor:
    """What the right hint says of a token beyond the wrong ones: log p_c - log mean_k p_w^k.

    Args:
        right: ``[...]``, log p_c of the sampled token.
        wrong: ``[..., K]``, log p_w of it, NaN where there is none.

    Returns:
        ``[...]``, in nats; NaN where there is no wrong hint.
    """
    return right - log_mean_prob(wrong)


def contrastive_residual(
    evidence: Tensor, *, tau: float, lam: float, beta: float, clip: float
) -> Tensor:
    """What the evidence adds to an advantage: ``beta * lam * tanh(evidence / tau)``, clipped.

    Args:
        evidence: ``[...]``, in nats; NaN counts as none.
        tau: Evidence at which the tanh bends.
        lam: Size, with ``beta``.
        beta: Another factor.
        clip: Bound of the result's absolute value.

    Returns:
        ``[...]``; 0 where there is no evidence.
    """
    return (beta * lam * torch.tanh(evidence / tau)).clamp(-clip, clip).nan_to_num(nan=0.0)


def sign_clamped(advantages: Tensor, residual: Tensor) -> Tensor:
    """Add a residual to advantages without turning any of them over: the verifier has the sign.

    Args:
        advantages: ``[...]``.
        residual: ``[...]``.

    Returns:
        ``[...]``; 0 where the advantage is 0.

    Example:
        >>> sign_clamped(torch.tensor([0.3, -0.3, 0.0]), torch.tensor([-0.5, 0.1, 0.5]))
        tensor([ 0.0000, -0.2000,  0.0000])
    """
    moved = advantages + residual
    kept = torch.where(advantages > 0, moved.clamp(min=0), moved.clamp(max=0))
    return torch.where(advantages == 0, 0.0, kept)


def evidence_weight(advantages: Tensor, evidence: Tensor, *, lam: float, clip: float) -> Tensor:
    """By what RLSD multiplies an advantage: ``(1 - lam) + lam * clip(exp(sign(A) evidence))``.

    Args:
        advantages: ``[...]``.
        evidence: ``[...]``, in nats: log p_T - log p_S, or a contrast; NaN counts as 0.
        lam: Share of the advantage that is modulated, 0 to 1.
        clip: The exponential is kept within 1 - clip and 1 + clip.

    Returns:
        ``[...]``, never negative for a clip of at most 1.

    Example:
        >>> A, e = torch.tensor([1.0, -1.0]), torch.tensor([0.1, 0.1])
        >>> evidence_weight(A, e, lam=1.0, clip=0.2)
        tensor([1.1052, 0.9048])
    """
    odds = (advantages.sign() * evidence).nan_to_num(nan=0.0).exp()
    return (1 - lam) + lam * odds.clamp(1 - clip, 1 + clip)


def entropy_weights(
    entropy: Tensor,
    chosen: Tensor,
    *,
    beta: float,
    total: Callable[[Tensor], Tensor] = lambda value: value,
) -> Tensor:
    """Trust a teacher less where it is unsure: ``exp(-beta H)``, of mean 1 over the chosen tokens.

    SRPO, arXiv 2604.02288, section 3.2.

    Args:
        entropy: ``[tokens]``, the teacher's, in nats.
        chosen: ``[tokens]``, bool.
        beta: How much less; 0: weights of 1.
        total: Sums a tensor over ranks; called once.

    Returns:
        ``[tokens]``; 0 where not chosen.
    """
    raw = (-beta * entropy).exp() * chosen
    sums = total(torch.stack([chosen.sum().double(), raw.sum(dtype=torch.float64)]))
    mean = sums[1] / sums[0].clamp(min=1)
    return raw.div(mean.clamp(min=torch.finfo(torch.float32).tiny).to(raw.dtype))


def contrastive_target(right: Tensor, wrong: Tensor, *, alpha: float, floor: float) -> Tensor:
    """A target that overstates the right hint: q ~ p_c^(1 + alpha) / p_w^alpha.

    Args:
        right: ``[..., vocab]``, log p_c.
        wrong: ``[..., vocab]``, log p_w.
        alpha: By how much; 0 gives p_c.
        floor: Lower bound of log p_w, so that a token both find impossible is not blown up.

    Returns:
        ``[..., vocab]``, log q.
    """
    return ((1 + alpha) * right - alpha * wrong.clamp(min=floor)).log_softmax(-1)


def contrastive_gate(right: Tensor, wrong: Tensor, *, tau: float) -> Tensor:
    """How much the hints disagree about a token: KL / (KL + tau) with KL = KL(p_c || p_w).

    Args:
        right: ``[..., vocab]``, log p_c.
        wrong: ``[..., vocab]``, log p_w.
        tau: The divergence, in nats, at which the gate is half open.

    Returns:
        ``[...]``, from 0 (a token of style) to 1.
    """
    kl: Tensor = (right.exp() * (right - wrong)).sum(-1).clamp(min=0)
    return kl.div(kl + tau)
