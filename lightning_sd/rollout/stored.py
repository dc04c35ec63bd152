"""Turn stored attempts into rollouts, for offline training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_sd.types import Question, Rollout


def encode_stored_attempts(questions: Sequence[Question], tokenizer: Any) -> list[Rollout]:
    """Tokenize the stored attempt of each question.

    The end-of-turn token is appended, unless ``extra["finished"]`` is false because the attempt was
    cut off.

    Args:
        questions: Questions with an ``attempt``.
        tokenizer: The student's tokenizer.

    Returns:
        One rollout per question, in order.

    Raises:
        ValueError: A question has no attempt.
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
