"""The wording of prompts about rubrics: data that YAML may replace."""

from lightning_sd.types import Question

DESIGN = """\
You design rubrics. For the question and reference answer below, write down what a good answer \
must have, so that someone who does not know the subject can judge any answer by it.

Question:
{question}

Reference answer:
{reference}

Give a JSON array of 3 to 25 objects, each with "title" (a few words), "description" (at most 40 \
words, checkable by itself) and "weight" (a whole number: 1 to 10 for what is wanted, the more the \
more it matters, -1 for a mistake to be avoided). At least one weight is -1. Output the array \
alone."""

DESIGN_WITH_RUBRIC = """\
{question}

This is the expert's rubric for it, your authoritative target:
{rubric}

Now output the JSON array only."""

CONDITIONED = """\
Question:
{question}

Reference answer:
{reference}

Rubric by which answers are judged:
{rubric}

{request}"""

ANALYSE = """\
Reference answer and rubric are guidelines and may have faults. Say briefly what a good answer to \
the question must have. Do NOT solve it yet."""

ANSWER = """\
All of this is for you alone. Do not mention, quote or point to a rubric or a reference answer. \
Now answer the question in a natural way, so that the answer stands on its own."""


def design_text(question: Question, design: str = DESIGN) -> str:
    """The prompt by which a question's rubric is asked for.

    Raises:
        ValueError: The question has no reference.
    """
    if not question.reference:
        raise ValueError(
            f"Question {question.id!r} has no reference answer, from which its rubric would be "
            "written; fill Question.reference or leave the row out."
        )
    return design.format(question=question.text, reference=question.reference)
