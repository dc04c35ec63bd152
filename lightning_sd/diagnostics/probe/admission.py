"""Test whether a teacher reads its context, and goes on from the student's own prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.metrics.wrong_steps import find_first_wrong_token, find_steps
from lightning_sd.modules.self_distill import SelfDistillModule
from lightning_sd.modules.teacher_answers import sample_answers
from lightning_sd.types import Rollout, StepOutput

Answers = list[Rollout | None]


@dataclass(frozen=True)
class Admission:
    """Further answers to the question of one attempt; None where one was not asked for."""

    unrelated: Rollout | None = None
    """The teacher's, shown the context of another question."""
    continued: Rollout | None = None
    """The teacher's, from the attempt's steps before its first wrong one."""
    continued_alone: Rollout | None = None
    """The student's, without a context, from the same steps."""


class AdmissionTest:
    """Sample the answers of the admission test for batches of attempts.

    Args:
        context: The teacher context of the module.
        task: Task of the questions, which may know wrong steps exactly; None if unknown.
    """

    def __init__(self, context: TeacherContext, task: Any = None) -> None:
        self.context, self.task = context, task
        self._last: Rollout | None = None

    def __call__(
        self, module: SelfDistillModule, output: StepOutput, index: int
    ) -> list[Admission]:
        """Sample for one batch.

        Args:
            module: The student and its teacher.
            output: Attempts and views of the batch.
            index: Index of the batch, which determines the random numbers.

        Returns:
            One entry per attempt, in order.
        """
        unrelated = self._ask_unrelated(module, output, index)
        prefixes = [self._cut_prefix(module, rollout) for rollout in output.rollouts]
        continued = []
        for teacher in (True, False):
            prompts = [
                None
                if view is None or not prefix
                else module.encode(view.messages, view.template_kwargs)
                if teacher
                else module.encode(rollout.question.messages)
                for rollout, view, prefix in zip(
                    output.rollouts, output.views, prefixes, strict=True
                )
            ]
            stage = "probe_continued" if teacher else "probe_continued_alone"
            answers = sample_answers(
                *(module, output.rollouts, prompts, index, stage),
                prefixes=prefixes,
                teacher=teacher,
            )
            continued.append(answers)
        return [Admission(*answers) for answers in zip(unrelated, *continued, strict=True)]

    def _ask_unrelated(self, module: SelfDistillModule, output: StepOutput, index: int) -> Answers:
        viewed = [
            rollout
            for rollout, view in zip(output.rollouts, output.views, strict=True)
            if view is not None
        ]
        # A batch may hold one question only; then the batch before gives the context.
        sources = [*viewed, *([self._last] if self._last else [])]
        prompts: list[Sequence[int] | None] = []
        for rollout, view in zip(output.rollouts, output.views, strict=True):
            others = [s for s in sources if s.question.id != rollout.question.id]
            prompt = None
            if view is not None and others:
                prompt = self._encode_unrelated(module, rollout, others[len(prompts) % len(others)])
            prompts.append(prompt)
        if viewed:
            self._last = viewed[-1]
        return sample_answers(module, output.rollouts, prompts, index, "probe_unrelated")

    def _encode_unrelated(
        self, module: SelfDistillModule, rollout: Rollout, other: Rollout
    ) -> list[int] | None:
        """Encode the question under what the context shows for another question's attempt."""
        own = rollout.question
        question = replace(other.question, text=own.text, messages=own.messages)
        # A context may derive its fields from the question's text, so the other's must be read.
        fields = self.context.fields(other)
        view = self.context.write_view(replace(other, question=question, group=0), fields)
        return None if view is None else list(module.encode(view.messages, view.template_kwargs))

    def _cut_prefix(self, module: SelfDistillModule, rollout: Rollout) -> tuple[int, ...]:
        """Return the tokens before the first wrong step; none if no right step precedes it."""
        assert rollout.verdict is not None
        steps = find_steps(rollout, module.tokenizer, self.task)
        first = find_first_wrong_token(steps.tokens, steps.wrong)
        if rollout.verdict.correct or first is None or min(steps.wrong) == 1:
            return ()
        return rollout.ids[:first]
