"""Where the teacher's signal falls, measured against the first wrong step of a rollout.

The advantage of a token is A_t = log p_T(y_t) - log p_S(y_t): negative where the teacher, which
sees the context, would rather not have written it. A signal that helps puts its negative mass where
the mistake is and leaves the correct prefix alone (section 5 of arXiv 2606.11173 shows it for one
rollout). Each figure comes beside what chance alone would give, because late errors make low shares
and early ones high shares, whatever the teacher says.
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
class Localisation:
    """Figures of one rollout that has a wrong step; None: not defined for it."""

    negative_mass: float | None
    """Share of sum max(-A_t, 0) that lies at or after the first wrong step; None: A is never
    negative."""
    absolute_mass: float | None
    """The same share of sum abs(A_t); None: A is 0 everywhere."""
    mass_chance: float
    """Share of tokens at or after the first wrong step: what either share is on average if the
    rollout's advantages are put in random order."""
    prefix_sign: float | None
    """Share of tokens before the first wrong step with A_t >= 0; None: there is none."""
    prefix_sign_chance: float | None
    """The same share of all tokens, None where ``prefix_sign`` is."""
    prefix_mean: float | None
    """Mean A_t before the first wrong step, in nats."""
    prefix_mean_chance: float | None
    """Mean A_t of all tokens."""
    step_auroc: float | None
    """How well minus the mean A_t of a step tells wrong steps from right ones; None: only one kind
    is there."""
    step_auroc_chance: float | None
    """The same with the rollout's advantages in random order, mean of 64 orders. It is not exactly
    one half, because steps differ in length."""
    token_auroc: float | None
    """How well -A_t of a token tells tokens of wrong steps from those of right ones."""
    token_auroc_chance: float | None
    """One half, exactly, where ``token_auroc`` is defined."""


def localise(
    advantages: Sequence[float], steps: Sequence[Span], wrong: Sequence[int]
) -> Localisation | None:
    """Compare the advantages of one rollout with its wrong steps.

    Args:
        advantages: A_t of each token, in nats.
        steps: Tokens of each step (first, behind the last), as :func:`.spans.step_tokens` gives.
        wrong: Numbers of the wrong steps, counted from 1, in any order.

    Returns:
        The figures; None if no step is wrong or there is no token.

    Raises:
        ValueError: A number that no step has, or a step beyond the tokens.

    Example:
        The teacher dislikes one token of step 2, which is the wrong one, and nothing else:

        >>> found = localise([0.0, 0.0, -3.0, 0.0], [(0, 2), (2, 4)], [2])
        >>> found.negative_mass, found.mass_chance, found.step_auroc
        (1.0, 0.5, 1.0)
    """
    if not wrong or not advantages:
        return None
    if not all(1 <= number <= len(steps) for number in wrong):
        raise ValueError(f"wrong={list(wrong)}: steps are counted from 1 to {len(steps)}.")
    if not all(0 <= start <= end <= len(advantages) for start, end in steps):
        raise ValueError(f"steps={list(steps)}: beyond the {len(advantages)} tokens.")
    values = torch.tensor(advantages, dtype=torch.float64)
    first = steps[min(wrong) - 1][0]
    prefix = values[:first]
    within = [values[start:end] for start, end in steps]
    labels = [number in wrong for number in range(1, len(steps) + 1)]
    owner = torch.tensor([labels[i] for i, part in enumerate(within) for _ in part])
    token_auroc = _auroc(-torch.cat(within), owner)
    step_auroc = _step_auroc(values, steps, labels)
    return Localisation(
        negative_mass=_share((-values).clamp(min=0), first),
        absolute_mass=_share(values.abs(), first),
        mass_chance=(len(values) - first) / len(values),
        prefix_sign=_mean(prefix >= 0) if first else None,
        prefix_sign_chance=_mean(values >= 0) if first else None,
        prefix_mean=_mean(prefix) if first else None,
        prefix_mean_chance=_mean(values) if first else None,
        step_auroc=step_auroc,
        step_auroc_chance=None if step_auroc is None else _by_chance(values, steps, labels),
        token_auroc=token_auroc,
        token_auroc_chance=None if token_auroc is None else 0.5,
    )


def _share(mass: Tensor, first: int) -> float | None:
    total = mass.sum()
    return float(mass[first:].sum() / total) if total > 0 else None


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


def _step_auroc(values: Tensor, steps: Sequence[Span], labels: Sequence[bool]) -> float | None:
    """Steps without a token of their own have no mean and are left out."""
    kept = [i for i, (start, end) in enumerate(steps) if end > start]
    if not kept:
        return None
    means = torch.stack([values[slice(*steps[i])].mean() for i in kept])
    return _auroc(-means, torch.tensor([labels[i] for i in kept]))


def _by_chance(values: Tensor, steps: Sequence[Span], labels: Sequence[bool]) -> float:
    """Mean AUROC of the steps over random orders, all of them at once, by comparing pairs."""
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
    """Area under the ROC curve, ties counting one half; None: only one kind of label is there.

    torchmetrics takes scores beyond 0 to 1 for logits and would press large ones together, so it
    gets their ranks.
    """
    if len(labels) == 0 or bool(labels.all()) or not bool(labels.any()):
        return None
    ranks = torch.unique(scores, return_inverse=True)[1].double()
    return float(binary_auroc(ranks / ranks.max().clamp(min=1), labels.long(), validate_args=False))
