"""Contrast a teacher that sees a right hint with teachers that see wrong hints (RLCSD).

A hint changes a teacher's style as well as its knowledge. A wrong hint in the same words changes
the style in the same way, so the difference between the two teachers is knowledge.

Notation: c is the right hint, w a wrong one, K the largest number of wrong hints per token, A an
advantage.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def log_mean_prob(logprobs: Tensor) -> Tensor:
    """Compute the log of the mean probability (not the mean of the log-probabilities).

    Args:
        logprobs: ``[..., K]``, NaN where a value is missing.

    Returns:
        ``[...]``; NaN where all K values are missing.

    Example:
        >>> log_mean_prob(torch.tensor([[0.1, 0.5, torch.nan]]).log()).exp()
        tensor([0.3000])
    """
    valid = ~logprobs.isnan()
    number = valid.sum(-1).to(logprobs.dtype)
    total = logprobs.masked_fill(~valid, -torch.inf).logsumexp(-1)
    return torch.where(number > 0, total - number.log(), torch.nan)


def contrastive_evidence(right: Tensor, wrong: Tensor) -> Tensor:
    """Compute the evidence of the right hint over the wrong ones: log p_c - log mean_k p_w^k.

    Args:
        right: ``[...]``, log p_c of the sampled token.
        wrong: ``[..., K]``, log p_w of the sampled token, NaN where a hint is missing.

    Returns:
        ``[...]``, in nats; NaN where there is no wrong hint.
    """
    return right - log_mean_prob(wrong)


def contrastive_residual(
    evidence: Tensor, *, tau: float, lam: float, beta: float, clip: float
) -> Tensor:
    """Compute the evidence's addition to an advantage: ``beta * lam * tanh(evidence / tau)``.

    Args:
        evidence: ``[...]``, in nats; NaN counts as no evidence.
        tau: Scale of the evidence, in nats.
        lam: Factor of the result.
        beta: Second factor of the result.
        clip: Upper bound of the result's absolute value.

    Returns:
        ``[...]``; 0 where there is no evidence.
    """
    return (beta * lam * torch.tanh(evidence / tau)).clamp(-clip, clip).nan_to_num(nan=0.0)


def clamp_to_sign(advantages: Tensor, residual: Tensor) -> Tensor:
    """Add a residual to advantages without changing the sign of any: the verifier decides the sign.

    Args:
        advantages: ``[...]``.
        residual: ``[...]``.

    Returns:
        ``[...]``; 0 where the advantage is 0.

    Example:
        >>> clamp_to_sign(torch.tensor([0.3, -0.3, 0.0]), torch.tensor([-0.5, 0.1, 0.5]))
        tensor([ 0.0000, -0.2000,  0.0000])
    """
    moved = advantages + residual
    kept = torch.where(advantages > 0, moved.clamp(min=0), moved.clamp(max=0))
    return torch.where(advantages == 0, 0.0, kept)


def evidence_weight(advantages: Tensor, evidence: Tensor, *, lam: float, clip: float) -> Tensor:
    """Compute RLSD's factor of an advantage: ``(1 - lam) + lam * clip(exp(sign(A) evidence))``.

    Args:
        advantages: ``[...]``.
        evidence: ``[...]``, in nats: log p_T - log p_S, or a contrast; NaN counts as 0.
        lam: Share of the advantage that is modulated, 0 to 1.
        clip: The exponential is bounded to [1 - clip, 1 + clip].

    Returns:
        ``[...]``; not negative if ``clip`` is at most 1.

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
    """Weight tokens by the teacher's certainty: ``exp(-beta H)``, scaled to mean 1 over the chosen.

    Source: SRPO, arXiv 2604.02288, section 3.2.

    Args:
        entropy: ``[tokens]``, H, the teacher's entropy in nats.
        chosen: ``[tokens]``, bool: the tokens that get a weight.
        beta: Strength; 0 gives weights of 1.
        total: Sums a tensor over ranks; called once.

    Returns:
        ``[tokens]``; 0 for tokens that are not chosen.
    """
    raw = (-beta * entropy).exp() * chosen
    sums = total(torch.stack([chosen.sum().double(), raw.sum(dtype=torch.float64)]))
    mean = sums[1] / sums[0].clamp(min=1)
    return raw.div(mean.clamp(min=torch.finfo(torch.float32).tiny).to(raw.dtype))


def contrastive_target(right: Tensor, wrong: Tensor, *, alpha: float, floor: float) -> Tensor:
    """Compute a target that amplifies the right hint: q ~ p_c^(1 + alpha) / p_w^alpha.

    Args:
        right: ``[..., vocab]``, log p_c.
        wrong: ``[..., vocab]``, log p_w.
        alpha: Strength; 0 gives p_c.
        floor: Lower bound of log p_w; it keeps tokens that are improbable under both hints from
            being amplified.

    Returns:
        ``[..., vocab]``, log q.
    """
    return ((1 + alpha) * right - alpha * wrong.clamp(min=floor)).log_softmax(-1)


def contrastive_gate(right: Tensor, wrong: Tensor, *, tau: float) -> Tensor:
    """Compute how much the hints disagree at a token: KL / (KL + tau) with KL = KL(p_c || p_w).

    Args:
        right: ``[..., vocab]``, log p_c.
        wrong: ``[..., vocab]``, log p_w.
        tau: The divergence, in nats, at which the gate is 0.5.

    Returns:
        ``[...]``, from 0 (the hints agree) to 1.
    """
    kl: Tensor = (right.exp() * (right - wrong)).sum(-1).clamp(min=0)
    return kl.div(kl + tau)
