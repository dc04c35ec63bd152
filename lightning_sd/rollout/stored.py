"""Turn stored attempts into rollouts, for offline training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_sd.models.control_tokens import encode_text
from lightning_sd.models.stop_ids import find_end_of_turn
from lightning_sd.types import Question, Rollout


def encode_stored_attempts(questions: Sequence[Question], tokenizer: Any) -> list[Rollout]:
    """Tokenize the stored attempt of each question.

    The chat template's end of turn is appended, unless ``extra["finished"]`` is false because the
    attempt was cut off.

    Args:
        questions: Questions with an ``attempt``.
        tokenizer: The student's tokenizer.

    Returns:
        One rollout per question, in order.

    Raises:
        ValueError: A question has no attempt.
    """
    rollouts, end_of_turn = [], find_end_of_turn(tokenizer)
    for group, question in enumerate(questions):
        attempt = get_attempt(question)
        ids = encode_text(tokenizer, attempt)
        finished = bool(question.extra.get("finished", True))
        end = (end_of_turn,) if finished else ()
        rollouts.append(Rollout(question, (*ids, *end), attempt, group=group, finished=finished))
    return rollouts


def get_attempt(question: Question) -> str:
    """Return a question's stored attempt.

    Raises:
        ValueError: It has none.
    """
    if question.attempt is None:
        raise ValueError(
            f"attempts='stored', but question {question.id!r} has no attempt: map a column to "
            "`attempt` (DatasetTask), write some with `critique`, or use attempts='sampled'."
        )
    return question.attempt
