"""What the probe keeps of each attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.metrics.localization import Localisation, localise
from lightning_sd.metrics.wrong_steps import find_steps
from lightning_sd.modules.self_distill import SelfDistillModule
from lightning_sd.text.content import render_content
from lightning_sd.text.leaks import count_copied_runs, find_leaked_phrases
from lightning_sd.types import Rollout, StepOutput, TeacherView


@dataclass(frozen=True)
class Answer:
    """One judged completion, the student's or the teacher's."""

    correct: bool
    finished: bool
    tokens: int
    leaks: tuple[str, ...] = ()
    """Phrases that speak of a context."""
    copied: tuple[int, int] = (0, 0)
    """Runs of tokens taken from what the teacher was shown, and all runs."""


@dataclass(frozen=True)
class Attempt:
    """The student's attempt, and what its teacher made of the same question."""

    question: str
    """Its id."""
    student: Answer
    teacher: Answer | None = None
    """The teacher's own answer from the context's prompt; None: this attempt has no teacher."""
    missing: str | None = None
    """Why it has none."""
    advantages: tuple[float, ...] | None = None
    """log p_T - log p_S of each token of the student's attempt, in nats."""
    localisation: Localisation | None = None
    """Where they fall; None: no step is known to be wrong."""


def attempts_of(
    output: StepOutput,
    answers: Sequence[Rollout | None],
    module: SelfDistillModule,
    context: TeacherContext,
    phrases: Sequence[str],
    task: Any = None,
) -> list[Attempt]:
    """Judge a batch.

    Args:
        output: The student's attempts, what their teachers see, and the advantages.
        answers: The teachers' own answers, judged; None where there is no teacher.
        module: Has the tokenizer.
        context: Wrote the views.
        phrases: That tell of a context.
        task: If it can check steps, it says which are wrong; else the critique does.
    """
    return [
        Attempt(
            question=rollout.question.id,
            student=_answer(rollout, rollout, view, module, phrases),
            teacher=None if answer is None else _answer(answer, rollout, view, module, phrases),
            missing=missing_teacher(context, rollout) if view is None else None,
            advantages=advantages,
            localisation=None
            if advantages is None
            else _localise(rollout, advantages, module.tokenizer, task),
        )
        for rollout, view, advantages, answer in zip(
            output.rollouts, output.views, output.advantages, answers, strict=True
        )
    ]


def missing_teacher(context: TeacherContext, rollout: Rollout) -> str:
    """Why a context gave no view of a rollout, in words that can be counted."""
    critique = rollout.critique
    if context.fields(rollout) is not None:
        return "longer than max_prompt_tokens"
    if (
        "critique" in context.required_evidence
        and critique is not None
        and critique.refused is not None
    ):
        return f"critique refused: {critique.refused}"
    return "nothing to show"


def _localise(
    rollout: Rollout, advantages: tuple[float, ...], tokenizer: Any, task: Any
) -> Localisation | None:
    steps = find_steps(rollout, tokenizer, task)
    return localise(advantages, steps.tokens, steps.wrong)


def _answer(
    answer: Rollout,
    attempt: Rollout,
    view: TeacherView | None,
    module: SelfDistillModule,
    phrases: Sequence[str],
) -> Answer:
    assert answer.verdict is not None
    own = attempt.question.messages
    copied = (0, 0)
    if view is not None:
        copied = count_copied_runs(answer.ids, module.encode(view.messages), module.encode(own))
    prompt = "\n".join(render_content(message["content"]) for message in own)
    return Answer(
        correct=answer.verdict.correct,
        finished=answer.finished,
        tokens=len(answer.ids),
        leaks=find_leaked_phrases(answer.text, phrases, prompt),
        copied=copied,
    )
