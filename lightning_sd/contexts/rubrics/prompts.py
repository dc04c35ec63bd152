"""Default wording of prompts about rubrics; YAML may replace each of them."""

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

ANALYZE = """\
Reference answer and rubric are guidelines and may have faults. Say briefly what a good answer to \
the question must have. Do NOT solve it yet."""

ANSWER = """\
All of this is for you alone. Do not mention, quote or point to a rubric or a reference answer. \
Now answer the question in a natural way, so that the answer stands on its own."""


def write_design_prompt(question: Question, design: str = DESIGN) -> str:
    """Write the prompt that asks for the rubric of a question.

    Args:
        question: A question with a reference answer.
        design: Wording, with ``{question}`` and ``{reference}``.

    Raises:
        ValueError: The question has no reference answer.
    """
    if not question.reference:
        raise ValueError(
            f"Question {question.id!r} has no reference answer, which its rubric is written from; "
            "fill Question.reference or remove the row."
        )
    return design.format(question=question.text, reference=question.reference)
