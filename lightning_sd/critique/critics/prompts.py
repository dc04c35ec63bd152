"""The prompt of critics that are language models: a scribe that copies faithfully and repairs.

The wording is this package's own; YAML may replace it. The prompt is part of a critic's identity,
so after any change of the wording the critic is asked again.
"""

from __future__ import annotations

from lightning_sd.critique.base import CritiqueRequest
from lightning_sd.text.content import render_question

FAITHFUL_SCRIBE = """\
A student has worked on a problem. You are the scribe who writes the student's solution out again, \
repaired. You are not the teacher: keep the student's approach, words, notation and size of steps \
wherever they are right, and make no remarks about the work.

Problem:
{question}

{reference}The student's attempt:
{attempt}

{verdict}

Write the whole solution by these rules.
- A step that is right is copied letter for letter, with its number.
- A. If everything is right, copy the whole attempt.
- B. If the answer is right but a step that it needs is missing, copy everything and put in the \
missing step.
- C. If the attempt breaks off, copy what is right, shortened where it rambles, and bring it to \
its end.
- D. If a step is wrong, copy the steps before it, leave the wrong step out, write the right step \
in its place as this student would have written it, and go on from there to the answer.
- Never show a wrong step, never say that something was wrong, and do not mention these rules or \
any reference solution.
- Use exactly this form, with nothing before, between or after it:
<step_1>first step</step_1><step_2>second step</step_2><answer>final answer</answer>"""
"""Default prompt of the critics that are language models; cases A to D of arXiv 2606.11173."""

RETRY_NOTE = "\n\nYour last answer could not be used ({reason}). Keep to the form."
"""Appended to the prompt when a critic is asked a second time."""

MAX_PROMPT_CHARS = 1_000_000
"""Longer prompts are refused before they are tokenized or sent."""

FIELDS = ("question", "reference", "attempt", "verdict")
"""Fields that a prompt may hold; ``question`` and ``attempt`` are required."""


def check_prompt(prompt: str) -> None:
    """Refuse a prompt template that cannot work.

    Raises:
        ValueError: The template lacks ``{question}`` or ``{attempt}``, or names an unknown field.
    """
    try:
        filled = prompt.format(**{field: f"\0{field}\0" for field in FIELDS})
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ValueError(
            f"prompt: {error!r}. Allowed fields are {', '.join(f'{{{f}}}' for f in FIELDS)}; write "
            "any other brace twice."
        ) from error
    for field in ("question", "attempt"):
        if f"\0{field}\0" not in filled:
            raise ValueError(
                f"prompt: the field {{{field}}} is missing, so the critic would not see it. Add it."
            )


def write_prompt(prompt: str, request: CritiqueRequest, *, include_reference: bool) -> str:
    """Fill the prompt template for one request.

    Args:
        prompt: Template with the fields ``{question}``, ``{reference}``, ``{attempt}`` and
            ``{verdict}``.
        request: The request to the critic.
        include_reference: True shows the critic the reference solution, or the bare answer if the
            question has no worked solution.
    """
    text = prompt.format(
        question=render_question(request.question),
        reference=_write_reference(request) if include_reference else "",
        attempt=request.attempt,
        verdict=_write_verdict(request),
    )
    reason = request.previous_refusal
    return text if reason is None else text + RETRY_NOTE.format(reason=reason)


def _write_reference(request: CritiqueRequest) -> str:
    question = request.question
    if question.reference is not None:
        return f"A reference solution, for your eyes only:\n{question.reference}\n\n"
    if question.answer is not None:
        return f"The right answer, for your eyes only: {question.answer}\n\n"
    return ""


def _write_verdict(request: CritiqueRequest) -> str:
    if request.verdict.correct:
        return "The student's final answer is right."
    if not request.finished:
        return "The attempt was cut off before its end."
    return "The student's final answer is wrong or missing."
