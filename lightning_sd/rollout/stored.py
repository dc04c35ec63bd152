"""Rollouts that were written down earlier: offline training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_sd.types import Question, Rollout


def stored_attempts(questions: Sequence[Question], tokenizer: Any) -> list[Rollout]:
    """One rollout a question, from the attempt that stands with it.

    Stored text has to be tokenised, unlike sampled ids. The end-of-turn token is added, unless
    ``extra["finished"]`` says that the attempt was cut off.

    Args:
        questions: Each with ``attempt``.
        tokenizer: The student's.

    Returns:
        One rollout a question, in order.

    Raises:
        ValueError: A question without an attempt.
    """
    rollouts = []
    for group, question in enumerate(questions):
        if question.attempt is None:
            raise ValueError(
                f"attempts='stored', but question {question.id!r} has no attempt: map a column to "
                "`attempt` (DatasetTask), write some with `critique`, or use attempts='sampled'."
            )
        ids = tokenizer.encode(question.attempt, add_special_tokens=False)
        finished = bool(question.extra.get("finished", True))
        end = (tokenizer.eos_token_id,) if finished else ()
        rollouts.append(
            Rollout(question, (*ids, *end), question.attempt, group=group, finished=finished)
        )
    return rollouts
