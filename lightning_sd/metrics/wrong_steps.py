"""Which steps of a rollout are wrong, and who says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_sd.metrics.spans import Pieces, step_tokens, token_pieces
from lightning_sd.tasks.base import RepairTask
from lightning_sd.text.steps import Span, parse_steps
from lightning_sd.types import Critique, Rollout


@dataclass(frozen=True)
class Steps:
    """The steps of one rollout."""

    pieces: Pieces
    """Its tokens."""
    tokens: tuple[Span, ...]
    """Tokens of each step: the first, and the one behind the last."""
    wrong: tuple[int, ...]
    """Numbers of the wrong steps, from 1, ascending; empty: none, or nobody knows."""
    source: str | None
    """Who found them: ``task`` (its exact rules), ``critique``, or None: nobody knows."""


def find_steps(rollout: Rollout, tokenizer: Any, task: Any = None) -> Steps:
    """Take a rollout apart into tokens and steps, and tell which steps are wrong.

    The task's own rules are asked first, if it has some (:class:`.RepairTask`), since a critic may
    err; else the critique's step map is used, unless it was refused.

    Args:
        rollout: With its critique, if there is one.
        tokenizer: That of the model which wrote it.
        task: The task that the question comes from.
    """
    pieces = token_pieces(tokenizer, rollout.ids)
    trace = parse_steps(pieces.text)
    critique, source = rollout.critique, "critique"
    if isinstance(task, RepairTask):
        critique, source = task.repair(rollout.question, rollout.text), "task"
    known = critique is not None and critique.refused is None
    return Steps(
        pieces=pieces,
        tokens=step_tokens(pieces.spans, trace.spans),
        wrong=wrong_steps(critique, len(trace.steps), cut_off=trace.cut_off) if known else (),
        source=source if known else None,
    )


def wrong_steps(critique: Critique | None, steps: int, *, cut_off: bool) -> tuple[int, ...]:
    """Read the wrong steps from a critique's step map.

    Cases A and B are right. In case D each step that the critique does not hold unchanged is wrong:
    the first wrong one, and what was built on it. In case C likewise, except for the step in which
    the text breaks off, which is not finished.

    Args:
        critique: The repaired attempt; None: nothing is known.
        steps: Steps of the attempt.
        cut_off: Whether the attempt ends inside a step or inside the answer.

    Returns:
        Numbers from 1, ascending.

    Example:
        >>> wrong_steps(Critique("...", "D", copied=(1,), changed=(2,)), 3, cut_off=False)
        (2, 3)
    """
    if critique is None or critique.case not in ("C", "D"):
        return ()
    last = steps - 1 if critique.case == "C" and cut_off else steps
    return tuple(n for n in range(1, last + 1) if n not in critique.copied)


def first_wrong_token(steps: Sequence[Span], wrong: Sequence[int]) -> int | None:
    """The first token of the first wrong step; None: no step is wrong."""
    return steps[min(wrong) - 1][0] if wrong else None
