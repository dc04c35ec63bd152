"""How many tokens each phase of a micro-batch computes, and the FLOPs of their products."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_sd.diagnostics.plan.size import ModelSize
from lightning_sd.models.cache import CALL_COST
from lightning_sd.modules.safe_scorer import fill
from lightning_sd.scoring.sharing import find_cheapest_sharing


@dataclass(frozen=True)
class Workload:
    """One micro-batch of one device; all prompts and answers have equal lengths."""

    questions: int
    samples: int
    """Rollouts per question."""
    prompt: int
    """Tokens of the student's prompt."""
    teacher_prompt: int
    """Tokens of the teacher's prompt, which begins like the student's."""
    answer: int
    """Tokens of an answer."""
    policies: int = 1
    """Policies that the teacher mixes; 0 without a teacher."""
    checkpointing: bool = False
    """Whether the backward pass computes activations again; prompts are then not shared."""
    max_tokens: int | None = None
    """Most tokens of rows that are scored together (``max_score_tokens``); None: all rows."""

    @property
    def rows(self) -> int:
        """Rollouts."""
        return self.questions * self.samples

    @property
    def answers(self) -> int:
        """Tokens of all answers."""
        return self.rows * self.answer


@dataclass(frozen=True)
class Passes:
    """What the forward passes over rows that are scored together compute."""

    tokens: int
    """Tokens that pass the body, with padding."""
    pairs: int
    """Pairs of tokens that attention kernels multiply, masked ones included."""
    cached: int
    """Tokens whose keys and values are held at the end."""


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of matrix products, by phase of a micro-batch."""

    rollout: float
    teacher: float
    student: float
    """Forward and backward."""

    @property
    def total(self) -> float:
        """All phases."""
        return self.rollout + self.teacher + self.student


def lay_out(work: Workload, *, teacher: bool) -> list[Passes]:
    """Lay out the rows as the scorer does, in parts that keep the token budget.

    Args:
        work: The micro-batch.
        teacher: With the teacher's prompts, one per rollout; else with the student's.

    Returns:
        One entry per part; a single one without a budget.
    """
    length = (work.teacher_prompt if teacher else work.prompt) + work.answer
    parts = fill([length] * work.rows, work.max_tokens)
    return [_lay_out_rows(work, rows, teacher=teacher) for rows in parts]


def _lay_out_rows(work: Workload, rows: range, *, teacher: bool) -> Passes:
    """Lay out rows that are scored together; shared prefixes are encoded once where it pays."""
    prompts = [
        [question] * work.prompt
        + ([-1 - row] * (work.teacher_prompt - work.prompt) if teacher else [])
        for row in rows
        for question in [row // work.samples]
    ]
    answers = [[0] * work.answer] * len(rows)
    shared = find_cheapest_sharing(prompts, answers, call_cost=CALL_COST)
    if shared is None or work.checkpointing:
        length = len(prompts[0]) + work.answer
        return Passes(len(rows) * length, len(rows) * length**2, 0)
    prefix, tail = len(shared.prefixes[0]), len(shared.tails[0]) - 1
    number = len(shared.prefixes)
    pairs = number * prefix**2 + len(rows) * tail * (prefix + tail)
    return Passes(number * prefix + len(rows) * tail, pairs, len(rows) * (prefix + tail))


def count_flops(size: ModelSize, work: Workload) -> Flops:
    """Count the FLOPs of the matrix products of one micro-batch.

    A product with a weight costs 2 per token and weight, and as much again for each gradient that
    is computed: that of its input, and that of the weight if it is trained. Attention costs 4 per
    pair of tokens, and 10 in the backward pass, which computes the scores again. Gradient
    checkpointing and a split into parts cost another forward pass each.

    Args:
        size: The model.
        work: The micro-batch.
    """
    parts = lay_out(work, teacher=False)
    forward = sum(_forward(size, passes) for passes in parts)
    backward = sum(
        2 * (size.body + size.trained_body) * passes.tokens + 10 * size.attention * passes.pairs
        for passes in parts
    )
    head = 2 * size.head * (3 if size.trains_head else 2) * work.answers
    again = (work.checkpointing + (len(parts) > 1)) * forward
    teacher = sum(_forward(size, passes) for passes in lay_out(work, teacher=True))
    return Flops(
        _count_rollout(size, work),
        work.policies * (teacher + 2 * size.head * work.answers),
        forward + again + backward + head,
    )


def _forward(size: ModelSize, passes: Passes) -> float:
    return 2 * size.body * passes.tokens + 4 * size.attention * passes.pairs


def _count_rollout(size: ModelSize, work: Workload) -> float:
    """Count the prefill of each question, and all decoding steps."""
    steps = work.answer - 1  # the last token is not fed
    prefill = Passes(work.questions * work.prompt, work.questions * work.prompt**2, 0)
    context = steps * work.prompt + steps * (steps + 1) // 2
    decode = Passes(work.rows * steps, work.rows * context, 0)
    heads = work.questions + work.rows * steps
    return _forward(size, prefill) + _forward(size, decode) + 2 * size.head * heads
