"""Check and repair attempts at the arithmetic task, step by step."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_sd.lab.expressions import Operation, parse_operations
from lightning_sd.lab.step_notation import Notation, read_notation, read_step
from lightning_sd.text.steps import StepTrace, parse_steps, render_steps
from lightning_sd.types import Critique


def write_reference(text: str) -> str:
    """Write the worked solution in the fixed notation of references.

    Args:
        text: The expression.

    Returns:
        A step-tagged solution without a mistake.

    Example:
        >>> write_reference("7+5*3")
        '<step_1>get 2 from 7+5</step_1><step_2>get 6 from 2*3</step_2><answer>6</answer>'
    """
    work = parse_operations(text)
    steps = [f"get {op.result} from {op.left}{op.operator}{op.right}" for op in work]
    return render_steps(steps, str(work[-1].result))


def find_wrong_step(text: str, attempt: str) -> int | None:
    """Find the first wrong step of an attempt.

    A step is right if it starts from the true result of the previous step, applies the operation
    of the question, and states the right digit. A step beyond the last operation is wrong. Missing
    steps and a wrong answer are not steps.

    Args:
        text: The expression.
        attempt: A step-tagged solution.

    Returns:
        The index of the step, counted from 0, or None if all existing steps are right.

    Example:
        >>> find_wrong_step("7+5*3", "<step_1>7+5=2</step_1><step_2>2*3=7</step_2>")
        1
    """
    work = parse_operations(text)
    for index, body in enumerate(parse_steps(attempt).steps):
        if index >= len(work) or not _is_right(body, work[index]):
            return index
    return None


def read_final_answer(trace: StepTrace) -> str | None:
    """Read the answer of a parsed solution, without a full stop at its end."""
    return trace.answer.removesuffix(".").rstrip() if trace.answer else None


def repair_attempt(text: str, attempt: str) -> Critique:
    """Repair an attempt in its own notation.

    Right steps are copied verbatim. From the first wrong step on, each step is computed again and
    written in the notation that the attempt has at that step. A missing step is added in the
    notation of the last step that has one. The cases are those of :class:`Critique`. An attempt
    that is right but breaks the step format is case D.

    Args:
        text: The expression.
        attempt: A step-tagged solution.

    Returns:
        The critique, with the numbers of the copied, changed and added steps.

    Raises:
        ValueError: ``text`` is not an expression of this task.
    """
    work = parse_operations(text)
    answer = str(work[-1].result)
    trace = parse_steps(attempt)
    places = _match_operations(trace.steps, work) if read_final_answer(trace) == answer else None
    case = _choose_case(trace, work, places)
    written = dict(zip(places or range(len(work)), trace.steps, strict=False))
    steps = _repair_steps(written, work)
    numbers = {place: number for number, place in enumerate(written, start=1)}
    same = {place for place, body in written.items() if steps[place] == body}
    return Critique(
        text=attempt if case == "A" else render_steps(steps, answer),
        case=case,
        copied=tuple(numbers[place] for place in written if place in same),
        changed=tuple(numbers[place] for place in written if place not in same),
        added=tuple(i + 1 for i in range(len(work)) if i not in written),
    )


def _is_right(body: str, operation: Operation) -> bool:
    return read_step(body) == ("".join(map(str, operation)), str(operation.result))


def _match_operations(steps: Sequence[str], work: Sequence[Operation]) -> list[int] | None:
    """Return the index of the operation of each step; None if a step is wrong or out of order."""
    places: list[int] = []
    for body in steps:
        start = places[-1] + 1 if places else 0
        place = next((i for i in range(start, len(work)) if _is_right(body, work[i])), None)
        if place is None:
            return None
        places.append(place)
    return places


def _choose_case(trace: StepTrace, work: Sequence[Operation], places: Sequence[int] | None) -> str:
    if places is not None and len(places) < len(work):
        return "B"
    if places is not None and trace.well_formed:
        return "A"
    # A last step that was cut off is unfinished, which does not make it wrong.
    open_step = trace.cut_off and trace.answer_span is None
    closed = trace.steps[:-1] if open_step else trace.steps
    right = len(closed) <= len(work) and all(map(_is_right, closed, work))
    return "C" if right and (trace.cut_off or trace.answer is None) else "D"


def _repair_steps(written: dict[int, str], work: Sequence[Operation]) -> list[str]:
    notation = Notation()
    steps = []
    for place, operation in enumerate(work):
        body = written.get(place, "")
        notation = read_notation(body) or notation
        right = _is_right(body, operation)
        steps.append(body if right else notation.write(operation, operation.result))
    return steps
