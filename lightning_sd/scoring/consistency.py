"""Compare the log-probabilities that a sampler returned with those of the scorer."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_sd.scoring.mixed import LogitsSource
from lightning_sd.scoring.scorer import Scores
from lightning_sd.scoring.statistics import compute_token_statistics

FLOAT_GAP = 0.02
"""Largest gap of a single token in float32, in nats; rounding gives less than 0.001."""
HALF_GAP = 0.2
"""Largest mean gap in half precision, in nats; rounding gives about 0.02."""


def check_sampled_logprobs(
    scores: LogitsSource,
    completions: Sequence[Sequence[int]],
    logprobs: Sequence[Sequence[float] | None],
    temperature: float,
    *,
    coarse: bool = False,
) -> float | None:
    """Check that sampler and scorer agree on the policy that wrote the completions.

    They differ if one of them ignores padding, a cache or an adapter, if a sampler on a server has
    old weights, or if train mode adds noise. Training on such samples is silently off-policy.

    Args:
        scores: The student's scores of the completions, one row after another, computed with the
            weights that sampled them.
        completions: Token ids of each row.
        logprobs: The sampler's log-probabilities of each row; None where it returned none.
        temperature: The sampler's temperature; 0 counts as 1, as in greedy decoding.
        coarse: Whether the model computes in low precision although its logits are wide.

    Returns:
        The mean absolute gap in nats; None if no row has log-probabilities.

    Raises:
        RuntimeError: The gap is larger than the precision explains.
        ValueError: A row does not have one log-probability per token.
    """
    for ids_row, row in zip(completions, logprobs, strict=True):
        if row is not None and len(row) != len(ids_row):
            raise ValueError(
                f"The sampler returned {len(row)} log-probabilities for {len(ids_row)} tokens."
            )
    known = torch.tensor([row is not None for row in logprobs])
    lengths = torch.tensor([len(row) for row in completions])
    if not bool((known & (lengths > 0)).any()):
        return None
    device = _get_hidden(scores).device
    ids = torch.tensor([token for row in completions for token in row], device=device)
    scored = compute_token_statistics(scores, ids, temperature or 1.0)[0].float().cpu()
    chosen = known.repeat_interleave(lengths)
    sampled = torch.tensor([p for row in logprobs if row is not None for p in row])
    gaps = (scored[chosen] - sampled).abs()
    half = coarse or _get_hidden(scores).dtype in (torch.bfloat16, torch.float16)
    gap, limit = (gaps.mean(), HALF_GAP) if half else (gaps.max(), FLOAT_GAP)
    if not bool(gap <= limit):
        worst = int(gaps.nan_to_num(nan=torch.inf).argmax())
        raise RuntimeError(
            f"The sampler and the scorer disagree: for one token of the batch the sampler's "
            f"log-probability is {sampled[worst]:.4f} and the scorer's "
            f"{scored[chosen][worst]:.4f} nats. The samples do not come from the model that is "
            "trained: check the sampler's weights, temperature and cache, and noise in train mode."
        )
    return float(gaps.mean())


def _get_hidden(scores: LogitsSource) -> torch.Tensor:
    while not isinstance(scores, Scores):
        scores = scores.parts[0]
    return scores.hidden
