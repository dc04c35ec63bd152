"""Find the wrong steps of a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_sd.metrics.spans import Pieces, find_step_tokens, split_tokens
from lightning_sd.tasks.base import RepairTask
from lightning_sd.text.steps import Span, parse_steps
from lightning_sd.types import Critique, Rollout


@dataclass(frozen=True)
class Steps:
    """The steps of one rollout and which of them are wrong."""

    pieces: Pieces
    """The text of each token."""
    tokens: tuple[Span, ...]
    """Tokens of each step as (first, last + 1)."""
    wrong: tuple[int, ...]
    """Numbers of the wrong steps, counted from 1, ascending; empty if none is wrong or known."""
    source: str | None
    """Where ``wrong`` comes from: ``task`` (exact rules), ``critique``, or None (unknown)."""


def find_steps(rollout: Rollout, tokenizer: Any, task: Any = None) -> Steps:
    """Split a rollout into tokens and steps, and find its wrong steps.

    A task that can check steps (:class:`.RepairTask`) decides, because a critic may be wrong.
    Otherwise the step map of the critique decides, unless the critique was refused.

    Args:
        rollout: The rollout, with its critique if it has one.
        tokenizer: Tokenizer of the model that wrote the rollout.
        task: Task of the question; None if it is not known.
    """
    pieces = split_tokens(tokenizer, rollout.ids)
    trace = parse_steps(pieces.text)
    critique, source = rollout.critique, "critique"
    if isinstance(task, RepairTask):
        critique, source = task.repair(rollout.question, rollout.text), "task"
    known = critique is not None and critique.refused is None
    return Steps(
        pieces=pieces,
        tokens=find_step_tokens(pieces.spans, trace.spans),
        wrong=list_wrong_steps(critique, len(trace.steps), cut_off=trace.cut_off) if known else (),
        source=source if known else None,
    )


def list_wrong_steps(critique: Critique | None, steps: int, *, cut_off: bool) -> tuple[int, ...]:
    """List the wrong steps by a critique's step map.

    In cases A and B no step is wrong. In case D every step that the critique did not copy is wrong:
    the first wrong step and all steps that depend on it. Case C is the same, except that a last
    step that was cut off is not wrong.

    Args:
        critique: Critique of the attempt; None if there is none.
        steps: Number of steps of the attempt.
        cut_off: Whether the attempt ends inside a step or inside the answer.

    Returns:
        Step numbers, counted from 1, ascending.

    Example:
        >>> list_wrong_steps(Critique("...", "D", copied=(1,), changed=(2,)), 3, cut_off=False)
        (2, 3)
    """
    if critique is None or critique.case not in ("C", "D"):
        return ()
    last = steps - 1 if critique.case == "C" and cut_off else steps
    return tuple(n for n in range(1, last + 1) if n not in critique.copied)


def find_first_wrong_token(steps: Sequence[Span], wrong: Sequence[int]) -> int | None:
    """Return the index of the first token of the first wrong step, or None if none is wrong.

    Args:
        steps: Tokens of each step as (first, last + 1).
        wrong: Numbers of the wrong steps, counted from 1.
    """
    return steps[min(wrong) - 1][0] if wrong else None
