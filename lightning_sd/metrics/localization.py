"""Compare the teacher's advantages with the first wrong step of a rollout.

The advantage of a token is A_t = log p_T(y_t) - log p_S(y_t), in nats. It is negative where the
teacher, which sees the context, gives the token a lower probability than the student. A useful
signal puts its negative mass on the error and leaves the correct prefix alone (arXiv 2606.11173,
section 5, shows it for one rollout). Each measure comes with its expected value under a random
order of the advantages, because errors late in a rollout give low shares and early ones high
shares, whatever the teacher says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from lightning_sd.text.steps import Span

_PERMUTATIONS = 64


@dataclass(frozen=True)
class Localization:
    """Where the advantages of one rollout with a wrong step fall.

    A field is None where the rollout does not define it.
    """

    negative_mass: float | None
    """Share of sum max(-A_t, 0) at or after the first wrong step; None if no A_t is negative."""
    absolute_mass: float | None
    """Share of sum abs(A_t) at or after the first wrong step; None if every A_t is 0."""
    mass_chance: float
    """Share of tokens at or after the first wrong step: the expected value of both shares under a
    random order of the advantages."""
    prefix_sign: float | None
    """Share of tokens with A_t >= 0 before the first wrong step; None without such tokens."""
    prefix_sign_chance: float | None
    """The same share over all tokens; None where ``prefix_sign`` is None."""
    prefix_mean: float | None
    """Mean A_t before the first wrong step, in nats."""
    prefix_mean_chance: float | None
    """Mean A_t of all tokens, in nats."""
    step_auroc: float | None
    """Area under the ROC curve of minus the mean A_t of a step as a detector of wrong steps; None
    if all steps are wrong or all are correct."""
    step_auroc_chance: float | None
    """The mean of ``step_auroc`` over 64 random orders of the advantages. It is not exactly one
    half, because steps differ in length."""
    token_auroc: float | None
    """Area under the ROC curve of -A_t as a detector of tokens of wrong steps."""
    token_auroc_chance: float | None
    """Exactly one half where ``token_auroc`` is defined."""


def localize(
    advantages: Sequence[float], steps: Sequence[Span], wrong: Sequence[int]
) -> Localization | None:
    """Compare the advantages of one rollout with its wrong steps.

    Args:
        advantages: Advantage A_t of each token, in nats.
        steps: Tokens of each step as (first, last + 1), from :func:`.spans.find_step_tokens`.
        wrong: Numbers of the wrong steps, counted from 1, in any order.

    Returns:
        The measures; None if no step is wrong or there is no token.

    Raises:
        ValueError: ``wrong`` holds a number that no step has, or a step ends beyond the tokens.

    Example:
        The teacher rejects one token of step 2, the wrong step, and no other token:

        >>> position = localize([0.0, 0.0, -3.0, 0.0], [(0, 2), (2, 4)], [2])
        >>> position.negative_mass, position.mass_chance, position.step_auroc
        (1.0, 0.5, 1.0)
    """
    if not wrong or not advantages:
        return None
    if not all(1 <= number <= len(steps) for number in wrong):
        raise ValueError(f"wrong={list(wrong)}: give step numbers from 1 to {len(steps)}.")
    if not all(0 <= start <= end <= len(advantages) for start, end in steps):
        raise ValueError(f"steps={list(steps)}: steps must end within {len(advantages)} tokens.")
    values = torch.tensor(advantages, dtype=torch.float64)
    first = steps[min(wrong) - 1][0]
    prefix = values[:first]
    within = [values[start:end] for start, end in steps]
    labels = [number in wrong for number in range(1, len(steps) + 1)]
    owner = torch.tensor([labels[i] for i, part in enumerate(within) for _ in part])
    token_auroc = _auroc(-torch.cat(within), owner)
    step_auroc = _step_auroc(values, steps, labels)
    shuffled = None if step_auroc is None else _shuffled_step_auroc(values, steps, labels)
    return Localization(
        negative_mass=_share_from((-values).clamp(min=0), first),
        absolute_mass=_share_from(values.abs(), first),
        mass_chance=(len(values) - first) / len(values),
        prefix_sign=_mean(prefix >= 0) if first else None,
        prefix_sign_chance=_mean(values >= 0) if first else None,
        prefix_mean=_mean(prefix) if first else None,
        prefix_mean_chance=_mean(values) if first else None,
        step_auroc=step_auroc,
        step_auroc_chance=shuffled,
        token_auroc=token_auroc,
        token_auroc_chance=None if token_auroc is None else 0.5,
    )


def _share_from(mass: Tensor, first: int) -> float | None:
    total = mass.sum()
    return float(mass[first:].sum() / total) if total > 0 else None


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


def _step_auroc(values: Tensor, steps: Sequence[Span], labels: Sequence[bool]) -> float | None:
    """Detect wrong steps by their mean; a step without tokens has no mean and is left out."""
    kept = [i for i, (start, end) in enumerate(steps) if end > start]
    if not kept:
        return None
    means = torch.stack([values[slice(*steps[i])].mean() for i in kept])
    return _auroc(-means, torch.tensor([labels[i] for i in kept]))


def _shuffled_step_auroc(values: Tensor, steps: Sequence[Span], labels: Sequence[bool]) -> float:
    """Average the AUROC of the steps over random orders, all orders at once."""
    generator = torch.Generator().manual_seed(0)
    orders = torch.rand(_PERMUTATIONS, len(values), generator=generator).argsort(dim=1)
    shuffled = values[orders]
    kinds: dict[bool, list[Tensor]] = {True: [], False: []}
    for (start, end), label in zip(steps, labels, strict=True):
        if end > start:
            kinds[label].append(shuffled[:, start:end].mean(dim=1))
    wrong, right = (torch.stack(kinds[label], dim=1) for label in (True, False))
    lower = right.unsqueeze(2) - wrong.unsqueeze(1)  # [orders, right steps, wrong steps]
    return float((lower.sign() / 2 + 0.5).mean())


def _auroc(scores: Tensor, labels: Tensor) -> float | None:
    """Compute the area under the ROC curve, ties counting one half; None if all labels agree."""
    if len(labels) == 0 or bool(labels.all()) or not bool(labels.any()):
        return None
    # torchmetrics takes scores outside 0 to 1 for logits and would saturate large ones.
    ranks = torch.unique(scores, return_inverse=True)[1].double()
    return float(binary_auroc(ranks / ranks.max().clamp(min=1), labels.long(), validate_args=False))
