"""Writing rubrics as a task of its own: what a rubric generator is trained on (RCSD, stage I)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lightning_sd._serialize import build
from lightning_sd.contexts.rubrics.rubric import Rubric, parse_rubric
from lightning_sd.contexts.rubrics.wording import DESIGN, design_text
from lightning_sd.tasks.base import Split, Task
from lightning_sd.types import Message, Question, Verdict

KEPT = "question"
"""Where a design question keeps the text of the question that it is about, in ``extra``."""


class RubricWritingTask(Task):
    """The questions of another task, each asked for its rubric instead of its answer.

    The reward of a text that is a rubric is its agreement with the ground truth in
    ``extra["rubric"]``: F1 of the criteria, equal in description and weight. Without a ground truth
    it is 1. ``correct`` says that the text is a rubric in good form that agrees wholly; a refusal
    has its reason as feedback.

    Args:
        task: Whose questions; they need ``reference``.
        design: Wording of the prompt, with ``{question}`` and ``{reference}``.
    """

    def __init__(self, task: Task, design: str = DESIGN) -> None:
        self.task: Task = build(task)
        self.design = design

    def questions(self, split: Split) -> Sequence[Question]:
        """The questions of one split; see :class:`Task`."""
        return [self.question(question) for question in self.task.questions(split)]

    def question(self, question: Question) -> Question:
        """The design question of a question."""
        text = design_text(question, self.design)
        truth = question.extra.get("rubric")
        return replace(
            question,
            id=f"rubric/{question.id}",
            text=text,
            messages=(Message(role="user", content=text),),
            reference=Rubric.of(truth).render() if truth is not None else None,
            answer=None,
            attempt=None,
            extra={**question.extra, KEPT: question.text},
        )

    def verify(self, question: Question, completion: str) -> Verdict:
        """See the class."""
        parsed = parse_rubric(completion)
        if parsed.rubric is None:
            return Verdict(reward=0.0, correct=False, feedback=parsed.refused)
        truth = question.extra.get("rubric")
        reward = 1.0 if truth is None else agreement(parsed.rubric, Rubric.of(truth))
        answer = parsed.rubric.render()
        return Verdict(reward=reward, correct=reward == 1.0, answer=answer)


def agreement(rubric: Rubric, truth: Rubric) -> float:
    """F1 of the criteria that two rubrics share, equal in description and weight."""
    ours, theirs = (
        {(c.description.casefold(), c.weight) for c in one.criteria} for one in (rubric, truth)
    )
    return 2 * len(ours & theirs) / (len(ours) + len(theirs))
