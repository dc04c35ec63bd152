"""Teacher contexts of the map: references in other orders and of another granularity."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import ClassVar

from benchmarks.alignment_map.derivations import (
    FIXED_ORDER,
    LENGTH,
    NOTATIONS,
    derive,
    derive_coarsely,
    draw_order,
    spoil_solution,
    write_solution,
)
from benchmarks.alignment_map.task import read_order
from lightning_sd.contexts import ReferenceSolution, StepAlignedCritique
from lightning_sd.contexts.templates import REFERENCE
from lightning_sd.types import Rollout


class OrderedReference(ReferenceSolution):
    """A reference whose order a subclass chooses; its notations are drawn per question."""

    coarse: ClassVar[bool] = False
    """Whether a step holds both operations of an expression."""

    def choose_order(self, rollout: Rollout, rng: random.Random) -> str:
        """Return the expression of each step. The default draws one order per question."""
        return draw_order(rng)

    def fields(self, rollout: Rollout) -> Mapping[str, str]:
        """Return the reference in the chosen order."""
        text = rollout.question.text
        rng = random.Random(f"reference/{text}")
        order = self.choose_order(rollout, rng)
        notations = rng.choices(NOTATIONS, k=LENGTH)
        if self.coarse:
            # An expression takes the place of its first step.
            steps = derive_coarsely(text, dict.fromkeys(order), notations[0])
        else:
            steps = derive(text, order, notations)
        return {"reference": write_solution(steps)}


class SameOrder(OrderedReference):
    """A reference in the attempt's own order, in other notations: the control."""

    def choose_order(self, rollout: Rollout, rng: random.Random) -> str:
        """Return the attempt's order."""
        return read_order(rollout.question.text, rollout.text)


class RandomOrder(OrderedReference):
    """A reference in an order drawn per question, the same for all attempts at it."""


class FixedOrder(OrderedReference):
    """A reference in one order for all questions."""

    def choose_order(self, rollout: Rollout, rng: random.Random) -> str:
        """Return the fixed order."""
        return FIXED_ORDER


class CoarseSameOrder(SameOrder):
    """A reference of two operations per step, in the attempt's order."""

    coarse = True


class CoarseRandomOrder(RandomOrder):
    """A reference of two operations per step, in an order drawn per question."""

    coarse = True


class RewrittenCritique(StepAlignedCritique):
    """A critic that rewrites the solution in the reference's derivation.

    The text is that of :class:`RandomOrder` under the heading of a critique.
    """

    def fields(self, rollout: Rollout) -> Mapping[str, str]:
        """Return the reference as the critique."""
        return {"critique": RandomOrder().fields(rollout)["reference"]}


class CritiqueAsReference(StepAlignedCritique):
    """The critique under the heading of a reference."""

    template = REFERENCE.replace("{reference}", "{critique}")


class WrongCritique(StepAlignedCritique):
    """A critic that is wrong in 30% of its critiques: one result is replaced and carried on."""

    wrong_share: ClassVar[float] = 0.3

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """Return the critique, which a hash of the attempt makes right or wrong."""
        found = super().fields(rollout)
        if found is None:
            return None
        text = rollout.question.text
        rng = random.Random(f"wrong critique/{text}/{rollout.text}")
        if rng.random() >= self.wrong_share:
            return found
        return {"critique": spoil_solution(text, found["critique"], rng)}
