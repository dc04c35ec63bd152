"""Describe the first error of an attempt at the arithmetic task."""

from __future__ import annotations

from lightning_sd.lab.expressions import Operation, parse_operations
from lightning_sd.lab.step_notation import read_step
from lightning_sd.lab.step_repair import find_wrong_step, read_final_answer
from lightning_sd.text.steps import parse_steps


def explain_attempt(text: str, attempt: str) -> str | None:
    """Describe the first error of an attempt.

    Args:
        text: The expression.
        attempt: A step-tagged solution.

    Returns:
        One line, or None if the answer is right.

    Raises:
        ValueError: ``text`` is not an expression of this task.

    Example:
        >>> explain_attempt("7+5*3", "<step_1>7+5=2</step_1><step_2>2*3=7</step_2>")
        'step 2: 2*3 is 6, not 7'
    """
    work, trace = parse_operations(text), parse_steps(attempt)
    answer = read_final_answer(trace)
    if answer == str(work[-1].result):
        return None
    wrong = find_wrong_step(text, attempt)
    if wrong is not None:
        expected = work[wrong] if wrong < len(work) else None
        return f"step {wrong + 1}: {_explain_step(trace.steps[wrong], expected, len(work))}"
    if len(trace.steps) < len(work):
        return f"step {len(trace.steps) + 1} of {len(work)} is missing"
    if answer is None:
        return "there is no answer"
    return f"the answer {answer} is not what the last step gives"


def _explain_step(body: str, expected: Operation | None, number: int) -> str:
    step = read_step(body)
    if step is None:
        return "it is no equation"
    if expected is None:
        return f"the expression has only {number} operations"
    operation, result = step
    wanted = "".join(map(str, expected))
    if operation != wanted:
        return f"the next operation is {wanted}, not {operation}"
    return f"{wanted} is {expected.result}, not {result}"
