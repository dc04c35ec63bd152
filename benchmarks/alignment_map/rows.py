"""Pre-training rows: bare questions, and questions with a context that must be read.

A solver that sees true contexts alone can learn that a heading means "be right" and read nothing.
Therefore most contexts are counterfactual: their results come from a random table of operations, so
they can only be read. A result that the context does not show follows the solver's own errors.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch.utils.data import Dataset

from benchmarks.alignment_map.derivations import (
    LENGTH,
    MODULUS,
    NOTATIONS,
    Compute,
    Step,
    compute_exactly,
    derive,
    derive_coarsely,
    draw_order,
    draw_question,
    write_solution,
)
from lightning_sd.contexts.templates import REFERENCE, STEP_ALIGNED
from lightning_sd.lab.expressions import Operation
from lightning_sd.lab.recipe.careless_solver import FactBelief
from lightning_sd.types import Question

STEP_PIECES = 9
"""Tokens per step: two tags, the name, a colon, three of the operation, notation and result."""

_PIECE = re.compile(r"</?[a-z_]+[0-9]?>| is |.")


@dataclass(frozen=True)
class Mix:
    """Shares of the rows with a context."""

    name: str
    """Selects the rows."""
    kinds: Mapping[str, float]
    """Kinds of context and their shares."""
    counterfactual_share: float
    """Share of the contexts whose results come from a random table."""
    true_prefix_share: float
    """Share of the prefixes in another order that agree with the context; the rest are attempts."""
    cut: Literal["error", "anywhere"] = "error"
    """Where an attempt in the context's order is cut: after its first wrong result, or after any
    token, so that its target may hold several steps that go on from the solver's own results."""
    continued_share: float = 0.5
    """Share of the rows in the context's order that start with an attempt."""
    has_bare: bool = True
    """Whether half of the blocks are bare questions."""
    foreign_kinds: Collection[str] = ("reference", "coarse")
    """Kinds of context whose rows may start in another order. A kind that is not listed can be read
    by position."""


ALL = Mix("derivation rows", {"critique": 0.4, "reference": 0.42, "coarse": 0.18}, 0.6, 0.5)
LOOKUP_LESSON = Mix("lookup", {"reference": 1.0}, 1.0, 1.0, has_bare=False)
"""Rows that can only be continued by looking operations up in the context."""
RECOVERY_LESSON = Mix(
    "recovery", {"critique": 0.4, "reference": 0.6}, 1.0, 0.5, "anywhere", 1.0, has_bare=False
)
"""Rows that are continued by looking operations up, and by the solver's own beliefs where its own
results have led to an operation that the context does not show."""
RECOVERY = replace(ALL, name="recovery rows", cut="anywhere")
_ANY_KIND = ("critique", "reference", "coarse")
EQUAL_LESSON = replace(RECOVERY_LESSON, name="equal", foreign_kinds=_ANY_KIND)
"""``RECOVERY_LESSON`` with critiques that are as often in another order as references, so that both
are read in the same way."""
EQUAL = replace(RECOVERY, name="equal rows", foreign_kinds=_ANY_KIND)
MIXES = {
    "all": ALL,
    "lookup_lesson": LOOKUP_LESSON,
    "recovery": RECOVERY,
    "recovery_lesson": RECOVERY_LESSON,
    "equal": EQUAL,
    "equal_lesson": EQUAL_LESSON,
}


@dataclass(frozen=True)
class DerivationRows(Dataset[Question]):
    """Rows generated from their index, identical in every process.

    Blocks of bare questions alternate with blocks of questions with a context, so that a
    micro-batch holds rows of similar length.
    """

    beliefs: Mapping[Operation, FactBelief]
    """How the simulated solver computes each operation."""
    foreign_share: float
    """Share q of the references whose row starts with a prefix in another order."""
    seed: int
    length: int
    block: int
    """Rows per micro-batch."""
    first: int = 0
    """Number of the first row. A branch goes on after the rows of its trunk."""
    mix: Mix = ALL
    """The rows with a context."""

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Question:
        rng = random.Random(f"{self.mix.name}/{self.seed}/{self.first + index}")
        text = draw_question("pretrain", rng)
        writer = RowWriter(text, self.beliefs, rng, self.mix)
        if self.mix.has_bare and index // self.block % 2 == 0:
            return writer.write_alone()
        return writer.write_with_context(self.foreign_share)


class RowWriter:
    """Write one row.

    Args:
        text: The question.
        beliefs: How the simulated solver computes each operation.
        rng: Draws everything else.
        mix: Shares of the rows with a context.
    """

    def __init__(
        self,
        text: str,
        beliefs: Mapping[Operation, FactBelief],
        rng: random.Random,
        mix: Mix = ALL,
    ) -> None:
        self.text, self.beliefs, self.rng, self.mix = text, beliefs, rng, mix

    def write_alone(self) -> Question:
        """Write the bare question with the solver's attempt as target."""
        order, notations = self._draw_form()
        attempt = derive(self.text, order, notations, self.compute_by_belief)
        return build_row("alone", self.text, self.text, write_solution(attempt), 0)

    def write_with_context(self, foreign_share: float) -> Question:
        """Write the question with a context that the target reads.

        Args:
            foreign_share: Probability that the row starts in another order, for kinds that may.
        """
        (kind,) = self.rng.choices(list(self.mix.kinds), list(self.mix.kinds.values()))
        compute = self._draw_table()
        order, notations = self._draw_form()
        if kind == "coarse":
            shown = derive_coarsely(self.text, dict.fromkeys(order), notations[0], compute)
        else:
            shown = derive(self.text, order, notations, compute)
        context = write_solution(shown)
        if kind == "critique":
            prompt = STEP_ALIGNED.format(question=self.text, critique=context)
        else:
            prompt = REFERENCE.format(question=self.text, reference=context)
        if kind in self.mix.foreign_kinds and self.rng.random() < foreign_share:
            target, cut = self._start_in_another_order(shown, compute)
            return build_row(f"{kind} foreign", self.text, prompt, target, cut)
        if kind != "coarse" and self.rng.random() < self.mix.continued_share:
            target, cut = self._start_with_attempt(shown)
            return build_row(f"{kind} continued", self.text, prompt, target, cut)
        return build_row(kind, self.text, prompt, context, 0)

    def compute_by_belief(self, operation: Operation) -> int:
        """Compute one operation as the simulated solver does, with its errors."""
        belief = self.beliefs[operation]
        wrong = self.rng.random() < belief.error_rate
        return belief.wrong_result if wrong else operation.result

    def _draw_form(self) -> tuple[str, list[str]]:
        return draw_order(self.rng), self.rng.choices(NOTATIONS, k=LENGTH)

    def _draw_table(self) -> Compute:
        """Return true arithmetic, or a random table of results."""
        if self.rng.random() >= self.mix.counterfactual_share:
            return compute_exactly
        key = self.rng.getrandbits(64)
        return lambda operation: random.Random(f"{key}/{operation}").randrange(MODULUS)

    def _start_with_attempt(self, shown: Sequence[Step]) -> tuple[str, int]:
        """Start with an attempt in the context's order, cut as the mix says."""
        order, notations = [step.name for step in shown], [step.notation for step in shown]
        attempt = derive(self.text, order, notations, self.compute_by_belief)
        if self.mix.cut == "anywhere":
            return self._cut_anywhere(shown, attempt)
        differs = (at for at in range(LENGTH) if attempt[at].result != shown[at].result)
        wrong = next(differs, None)
        if wrong is None:
            return write_solution(shown), 0
        begun = [step.result for step in attempt[: wrong + 1]]
        target = self._go_on(shown, "".join(order), notations, begun)
        return target, STEP_PIECES * (wrong + 1) - 1

    def _start_in_another_order(self, shown: Sequence[Step], compute: Compute) -> tuple[str, int]:
        """Start in an order of its own, cut after any token from the first on."""
        order, notations = self._draw_form()
        agrees = self.rng.random() < self.mix.true_prefix_share
        source = compute if agrees else self.compute_by_belief
        return self._cut_anywhere(shown, derive(self.text, order, notations, source))

    def _cut_anywhere(self, shown: Sequence[Step], started: Sequence[Step]) -> tuple[str, int]:
        """Cut a derivation after any token from the first on, and go on from its results."""
        cut = self.rng.randrange(1, len(split_pieces(write_solution(started))))
        begun = [step.result for step in started[: cut // STEP_PIECES]]
        order = "".join(step.name for step in started)
        return self._go_on(shown, order, [step.notation for step in started], begun), cut

    def _go_on(
        self, shown: Sequence[Step], order: str, notations: Sequence[str], begun: Sequence[int]
    ) -> str:
        """Complete a derivation by what the context shows, else by the solver's own beliefs.

        A coarse step shows no result of its first operation. Its result is taken as that of the
        expression's second operation, from whatever value the derivation has reached.
        """
        known = {(step.left, step.rest): step.result for step in shown}
        finals = {step.name: step.result for step in shown if len(step.rest) > 2}

        def compute(operation: Operation) -> int:
            left, operator, right = operation
            result = known.get((left, f"{operator}{right}"))
            return self.compute_by_belief(operation) if result is None else result

        steps = derive(self.text, order, notations, compute, begun)
        results = [step.result for step in steps]
        for at in range(len(begun), LENGTH):
            if order[at] in order[:at]:
                results[at] = finals.get(order[at], results[at])
        return write_solution(derive(self.text, order, notations, begun=results))


def build_row(kind: str, text: str, prompt: str, target: str, cut: int) -> Question:
    """Build a row whose target's first ``cut`` tokens are given."""
    pieces = split_pieces(target)
    return Question(
        id=f"{kind}/{text}",
        text=text,
        messages=({"role": "user", "content": prompt},),
        reference="".join(pieces[cut:]),
        extra={"begun": "".join(pieces[:cut])},
    )


def split_pieces(solution: str) -> list[str]:
    """Split a solution into the texts of its tokens."""
    return _PIECE.findall(solution)
