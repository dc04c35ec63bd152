"""The system message that asks for the step-tagged format."""

from __future__ import annotations

from lightning_sd.types import Message

STEP_INSTRUCTION = """\
Solve the problem in numbered steps, one thought a step, and give the final answer alone at the \
end, in exactly this form, with nothing before, between or after it:
<step_1>first step</step_1><step_2>second step</step_2><answer>final answer</answer>"""
"""Default system message of tasks with free text. Critics write the same format."""


def build_prompt(text: str, instruction: str | None) -> tuple[Message, ...]:
    """Build the student's prompt.

    Args:
        text: The question.
        instruction: System message. None or an empty text adds no system message.

    Returns:
        The system message, if any, and the user's message.
    """
    question = Message(role="user", content=text)
    return (Message(role="system", content=instruction), question) if instruction else (question,)
