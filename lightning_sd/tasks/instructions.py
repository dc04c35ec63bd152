"""How models that were not trained on it are told the step-tagged form."""

from __future__ import annotations

from lightning_sd.types import Message

STEP_INSTRUCTION = """\
Solve the problem in numbered steps, one thought a step, and give the final answer alone at the \
end, in exactly this form, with nothing before, between or after it:
<step_1>first step</step_1><step_2>second step</step_2><answer>final answer</answer>"""
"""Default system message of tasks with free text; the critics speak the same form."""


def prompt(text: str, instruction: str | None) -> tuple[Message, ...]:
    """The student's prompt: the instruction as a system message, if any, and the question."""
    question = Message(role="user", content=text)
    return (Message(role="system", content=instruction), question) if instruction else (question,)
