"""What is wrong with an attempt at the lab task, in the environment's words."""

from __future__ import annotations

from lightning_sd.lab.expressions import Operation, operations
from lightning_sd.lab.scribe import final_answer, first_wrong_step, read_step
from lightning_sd.text.steps import parse_steps


def explain_attempt(text: str, attempt: str) -> str | None:
    """Say where an attempt first goes wrong.

    Args:
        text: The bare question.
        attempt: A solver's solution.

    Returns:
        One line, or None if the answer is right.

    Raises:
        ValueError: Not a question of this task.

    Example:
        >>> explain_attempt("7+5*3", "<step_1>7+5=2</step_1><step_2>2*3=7</step_2>")
        'step 2: 2*3 is 6, not 7'
    """
    work, trace = operations(text), parse_steps(attempt)
    answer = final_answer(trace)
    if answer == str(work[-1].result):
        return None
    wrong = first_wrong_step(text, attempt)
    if wrong is not None:
        expected = work[wrong] if wrong < len(work) else None
        return f"step {wrong + 1}: {_objection(trace.steps[wrong], expected, len(work))}"
    if len(trace.steps) < len(work):
        return f"step {len(trace.steps) + 1} of {len(work)} is missing"
    if answer is None:
        return "there is no answer"
    return f"the answer {answer} is not what the last step gives"


def _objection(body: str, expected: Operation | None, number: int) -> str:
    found = read_step(body)
    if found is None:
        return "it is no equation"
    if expected is None:
        return f"the expression has only {number} operations"
    operation, result = found
    said = "".join(map(str, expected))
    if operation != said:
        return f"the next operation is {said}, not {operation}"
    return f"{said} is {expected.result}, not {result}"
