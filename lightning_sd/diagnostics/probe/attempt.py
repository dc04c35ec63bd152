"""What the probe keeps of each attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.diagnostics.probe.admission import Admission, AdmissionTest
from lightning_sd.metrics.localization import Localization, localize
from lightning_sd.metrics.wrong_steps import find_steps
from lightning_sd.modules.self_distill import SelfDistillModule
from lightning_sd.modules.teacher_answers import sample_teacher_answers
from lightning_sd.text.content import render_content
from lightning_sd.text.leaks import count_copied_runs, find_leaked_phrases
from lightning_sd.types import Rollout, StepOutput, TeacherView


@dataclass(frozen=True)
class Answer:
    """One judged completion of the student or the teacher."""

    correct: bool
    finished: bool
    tokens: int
    leaks: tuple[str, ...] = ()
    """Phrases in it that refer to a context."""
    copied: tuple[int, int] = (0, 0)
    """Number of token runs copied from what only the teacher was shown, and of all runs."""


@dataclass(frozen=True)
class Attempt:
    """The student's attempt at a question, and its teacher's answer to the same question."""

    question: str
    """Id of the question."""
    student: Answer
    teacher: Answer | None = None
    """The teacher's own answer from the context's prompt; None if the attempt has no teacher."""
    missing: str | None = None
    """Why the attempt has no teacher; None if it has one."""
    advantages: tuple[float, ...] | None = None
    """log p_T - log p_S of each token of the student's attempt, in nats."""
    localization: Localization | None = None
    """Where the advantages fall; None if no step is known to be wrong."""
    unrelated: bool | None = None
    """Whether the teacher is right under another question's context; None if not asked."""
    continued: bool | None = None
    """Whether the teacher is right from the attempt's steps before the first wrong one."""
    continued_alone: bool | None = None
    """Whether the student, without a context, is right from the same steps."""


class AttemptRecorder:
    """Turn a batch of predictions into attempts, and let the teacher answer each question.

    Args:
        context: The teacher context of the module.
        phrases: Phrases that refer to a context.
        task: Task of the questions, which may know wrong steps exactly; None if unknown.
        admission: Whether the answers of the admission test are sampled as well.
    """

    def __init__(
        self,
        context: TeacherContext,
        phrases: Sequence[str],
        task: Any = None,
        *,
        admission: bool = False,
    ) -> None:
        self.context, self.phrases, self.task = context, tuple(phrases), task
        self.admission = AdmissionTest(context, task) if admission else None
        self.student_tokens = 0
        self.teacher_tokens = 0
        self.critic_tokens = 0
        self.critic_seconds = 0.0

    def __call__(self, module: SelfDistillModule, output: StepOutput, index: int) -> list[Attempt]:
        """Record one batch.

        Args:
            module: The student and its teacher.
            output: Attempts, views and advantages of the batch.
            index: Index of the batch, which determines the random numbers of the teacher.
        """
        answers = sample_teacher_answers(module, output, index, "probe")
        counters = getattr(module.trainer, "datamodule").counters()  # noqa: B009 - not in its type
        self.critic_tokens += int(counters.get("critique_tokens", 0))
        self.critic_seconds += counters.get("critique_seconds", 0.0)
        self.student_tokens += sum(len(rollout.ids) for rollout in output.rollouts)
        self.teacher_tokens += sum(len(answer.ids) for answer in answers if answer)
        tested = [Admission()] * len(answers)
        if self.admission is not None:
            tested = self.admission(module, output, index)
        rows = zip(output.rollouts, output.views, output.advantages, answers, tested, strict=True)
        return [self._record(module, *row) for row in rows]

    def _record(
        self,
        module: SelfDistillModule,
        rollout: Rollout,
        view: TeacherView | None,
        advantages: tuple[float, ...] | None,
        answer: Rollout | None,
        tested: Admission,
    ) -> Attempt:
        localization = None
        if advantages is not None:
            steps = find_steps(rollout, module.tokenizer, self.task)
            localization = localize(advantages, steps.tokens, steps.wrong)
        return Attempt(
            question=rollout.question.id,
            student=self._describe(rollout, rollout, view, module),
            teacher=None if answer is None else self._describe(answer, rollout, view, module),
            missing=explain_missing_view(self.context, rollout) if view is None else None,
            advantages=advantages,
            localization=localization,
            unrelated=_is_correct(tested.unrelated),
            continued=_is_correct(tested.continued),
            continued_alone=_is_correct(tested.continued_alone),
        )

    def _describe(
        self, answer: Rollout, attempt: Rollout, view: TeacherView | None, module: SelfDistillModule
    ) -> Answer:
        assert answer.verdict is not None
        own = attempt.question.messages
        copied = (0, 0)
        if view is not None:
            shown = module.encode(view.messages, view.template_kwargs)
            copied = count_copied_runs(answer.ids, shown, module.encode(own))
        prompt = "\n".join(render_content(message["content"]) for message in own)
        return Answer(
            correct=answer.verdict.correct,
            finished=answer.finished,
            tokens=len(answer.ids),
            leaks=find_leaked_phrases(answer.text, self.phrases, prompt),
            copied=copied,
        )


def _is_correct(answer: Rollout | None) -> bool | None:
    return None if answer is None or answer.verdict is None else answer.verdict.correct


def explain_missing_view(context: TeacherContext, rollout: Rollout) -> str:
    """Say why a context gave no view of a rollout, in words that can be counted.

    Args:
        context: The teacher context.
        rollout: A rollout without a view.
    """
    critique = rollout.critique
    if context.fields(rollout) is not None:
        return "longer than max_prompt_tokens"
    refused = critique is not None and critique.refused is not None
    if "critique" in context.required_evidence and critique is not None and refused:
        return f"critique refused: {critique.refused}"
    return "nothing to show"
