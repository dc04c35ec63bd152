"""Warm-up rows: bare questions, and questions with a context that must be read.

Most contexts are counterfactual: their results are drawn at random, so they can only be read. A
critique has the order of the row's own steps, a reference has another one. The row's first steps
may be given; they may hold wrong results, which the row's answer repeats.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from torch.utils.data import Dataset

from benchmarks.alignment_map.real.sums import (
    NAMES,
    ORDERS,
    RESULTS,
    compute_results,
    draw_question,
    write_solution,
)
from benchmarks.alignment_map.rows import build_row
from lightning_sd.contexts.templates import REFERENCE, STEP_ALIGNED
from lightning_sd.types import Question

LARGE = {"large": 1.0}
SMALL = {"sum": 0.5, "product": 0.5}
COUNTERFACTUAL_SHARE = 0.75
"""Share of the contexts whose results are drawn at random."""
BEGUN_SHARE = 0.75
"""Share of the rows with a context whose first tokens are given."""
ERROR_SHARE = 0.3
"""Probability that a result in the given tokens is wrong."""
STEP_PIECES = 6
"""Tokens per step: two tags, the name, the sign and two digits."""


@dataclass(frozen=True)
class WarmUpRows(Dataset[Question]):
    """Rows generated from their index, identical in every process.

    A block holds bare questions or questions with a context, so that the rows of a micro-batch have
    similar lengths.
    """

    seed: int
    length: int
    block: int
    """Rows per micro-batch."""
    shares: Mapping[str, float]
    """Kinds of operations and their shares."""
    context_every: int
    """The last block of so many has contexts."""

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Question:
        rng = random.Random(f"warm-up/{self.seed}/{index}")
        text = draw_question("pretrain", self.shares, rng)
        if (index // self.block + 1) % self.context_every == 0:
            return write_with_context(text, rng)
        return write_alone(text, rng)


def write_alone(text: str, rng: random.Random) -> Question:
    """Write a bare question with a right solution in a random order as its target."""
    solution = write_solution(rng.choice(ORDERS), compute_results(text))
    return build_row("alone", text, text, solution, 0)


def write_with_context(text: str, rng: random.Random) -> Question:
    """Write a question with a context that the target reads."""
    is_critique = rng.random() < 0.5
    is_counterfactual = rng.random() < COUNTERFACTUAL_SHARE
    shown = compute_results(text)
    if is_counterfactual:
        shown = dict(zip(NAMES, rng.sample(RESULTS, len(NAMES)), strict=True))
    order = rng.choice(ORDERS)
    own = order if is_critique else rng.choice([other for other in ORDERS if other != order])
    context = write_solution(order, shown)
    if is_critique:
        prompt = STEP_ALIGNED.format(question=text, critique=context)
    else:
        prompt = REFERENCE.format(question=text, reference=context)
    cut = rng.randrange(1, STEP_PIECES * len(NAMES)) if rng.random() < BEGUN_SHARE else 0
    # Names that the given tokens state come first; the context's order goes on after them.
    stated = own[: (cut + STEP_PIECES - 2) // STEP_PIECES]
    order = stated + "".join(name for name in order if name not in stated)
    given = {
        name: rng.choice(RESULTS) if rng.random() < ERROR_SHARE else shown[name]
        for name in order[: cut // STEP_PIECES]
    }
    kind = "critique" if is_critique else "reference"
    return build_row(
        f"{kind} {'read' if is_counterfactual else 'true'}",
        text,
        prompt,
        write_solution(order, {**shown, **given}),
        cut,
    )
