"""The faithful scribe: what a language model is told that writes critiques.

The wording is ours; YAML may replace it. A cache entry remembers the whole text it was written
under, so a change, however small, asks anew.
"""

from __future__ import annotations

from lightning_sd.critique.base import CritiqueRequest

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
"""Default prompt of the critics that are language models; cases A-D of arXiv 2606.11173."""

RETRY = "\n\nYour last answer could not be used ({reason}). Keep to the form."
"""Added when a critic is asked again."""

FIELDS = ("question", "reference", "attempt", "verdict")


def check_prompt(prompt: str) -> None:
    """Refuse a prompt that cannot work.

    Raises:
        ValueError: It lacks ``{question}`` or ``{attempt}``, or names a field that does not exist.
    """
    try:
        filled = prompt.format(**{field: f"\0{field}\0" for field in FIELDS})
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"prompt: it may hold the fields {', '.join(f'{{{f}}}' for f in FIELDS)}; other braces "
            f"are written twice. Problem: {error!r}."
        ) from error
    for field in ("question", "attempt"):
        if f"\0{field}\0" not in filled:
            raise ValueError(f"prompt: it lacks {{{field}}}, so the critic would not see it.")


def write_prompt(prompt: str, request: CritiqueRequest, *, include_reference: bool) -> str:
    """Fill the prompt for one request.

    Args:
        prompt: With the fields ``{question}``, ``{reference}``, ``{attempt}``, ``{verdict}``.
        request: What is asked.
        include_reference: Whether the critic sees the reference solution, or the bare answer if
            there is no worked one.
    """
    text = prompt.format(
        question=request.question.text,
        reference=_reference(request) if include_reference else "",
        attempt=request.attempt,
        verdict=_verdict(request),
    )
    return text if request.refused is None else text + RETRY.format(reason=request.refused)


def _reference(request: CritiqueRequest) -> str:
    question = request.question
    if question.reference is not None:
        return f"A reference solution, for your eyes only:\n{question.reference}\n\n"
    if question.answer is not None:
        return f"The right answer, for your eyes only: {question.answer}\n\n"
    return ""


def _verdict(request: CritiqueRequest) -> str:
    if request.verdict.correct:
        return "The student's final answer is right."
    if not request.finished:
        return "The attempt was cut off before its end."
    return "The student's final answer is wrong or missing."
