"""A task that asks for rubrics, which trains a rubric generator (RCSD, stage I)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lightning_sd._serialize import build
from lightning_sd.contexts.rubrics.prompts import DESIGN, write_design_prompt
from lightning_sd.contexts.rubrics.rubric import Rubric, parse_rubric
from lightning_sd.tasks.base import Split, Task
from lightning_sd.types import Message, Question, Verdict

KEPT = "question"
"""Key in ``Question.extra`` of the original question's text."""


class RubricWritingTask(Task):
    """The questions of another task, each asking for its rubric instead of its answer.

    The reward of a valid rubric is its agreement with the ground truth in
    ``Question.extra["rubric"]``: the F1 score of criteria that are equal in description and weight.
    Without a ground truth the reward of a valid rubric is 1. The reward of a text that is not a
    valid rubric is 0, and ``Verdict.feedback`` holds the reason. ``correct`` means a reward of 1.

    Args:
        task: The task that supplies the questions. They need a ``reference``.
        design: Template of the prompt, with ``{question}`` and ``{reference}``.
    """

    def __init__(self, task: Task, design: str = DESIGN) -> None:
        self.task: Task = build(task)
        self.design = design

    def questions(self, split: Split) -> Sequence[Question]:
        """Return the questions of one split. See :meth:`.Task.questions`."""
        return [self.question(question) for question in self.task.questions(split)]

    def question(self, question: Question) -> Question:
        """Build the question that asks for the rubric of a question.

        Args:
            question: A question of the other task.

        Returns:
            The new question. Its ``reference`` is the ground-truth rubric, if there is one.
        """
        text = write_design_prompt(question, self.design)
        truth = question.extra.get("rubric")
        return replace(
            question,
            id=f"rubric/{question.id}",
            text=text,
            messages=(Message(role="user", content=text),),
            reference=Rubric.from_list(truth).render() if truth is not None else None,
            answer=None,
            attempt=None,
            extra={**question.extra, KEPT: question.text},
        )

    def verify(self, question: Question, completion: str) -> Verdict:
        """Score the completion as a rubric. See the class."""
        parsed = parse_rubric(completion)
        if parsed.rubric is None:
            return Verdict(reward=0.0, correct=False, feedback=parsed.refused)
        truth = question.extra.get("rubric")
        reward = 1.0 if truth is None else compute_agreement(parsed.rubric, Rubric.from_list(truth))
        answer = parsed.rubric.render()
        return Verdict(reward=reward, correct=reward == 1.0, answer=answer)


def compute_agreement(rubric: Rubric, truth: Rubric) -> float:
    """Compute the F1 score of the criteria that are equal in description and weight."""
    written, expected = (
        {(c.description.casefold(), c.weight) for c in each.criteria} for each in (rubric, truth)
    )
    return 2 * len(written & expected) / (len(written) + len(expected))
