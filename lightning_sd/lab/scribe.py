"""How the lab task's steps are written, checked and repaired."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_sd.lab.expressions import Operation, operations
from lightning_sd.text.steps import StepTrace, parse_steps, render_steps
from lightning_sd.types import Critique

# A model's own words may stand before the equation, as long as they hold no digit or operator.
_STEP = re.compile(
    r"(?P<lead>(?:[A-Za-z][A-Za-z ,:]{0,40})?)(?P<left>[0-9]{1,6})(?P<gap1>\s?)(?P<operator>[-+*])"
    r"(?P<gap2>\s?)(?P<right>[0-9]{1,6})(?P<equals>\s?=\s?|\sis\s)(?P<result>-?[0-9]{1,6})(?P<end>\.?)"
)


@dataclass(frozen=True)
class Notation:
    """How a solver writes one step: the text around the numbers."""

    lead: str = ""
    gap1: str = ""
    gap2: str = ""
    equals: str = "="
    end: str = ""

    def write(self, operation: Operation, result: int) -> str:
        """Write one step.

        Example:
            >>> Notation(lead="so ", equals=" is ").write(Operation(7, "+", 5), 2)
            'so 7+5 is 2'
        """
        left, operator, right = operation
        return (
            f"{self.lead}{left}{self.gap1}{operator}{self.gap2}{right}"
            f"{self.equals}{result}{self.end}"
        )


NOTATIONS = tuple(
    Notation(lead=lead, equals=equals)
    for lead in ("", "so ", "then ", "now ")
    for equals in ("=", " is ")
)
"""What the embedded solver writes; the checker takes more."""


def reference_solution(text: str) -> str:
    """The worked solution in the reference's own notation.

    Example:
        >>> reference_solution("7+5*3")
        '<step_1>get 2 from 7+5</step_1><step_2>get 6 from 2*3</step_2><answer>6</answer>'
    """
    work = operations(text)
    steps = [f"get {op.result} from {op.left}{op.operator}{op.right}" for op in work]
    return render_steps(steps, str(work[-1].result))


def first_wrong_step(text: str, attempt: str) -> int | None:
    """Find where an attempt first goes wrong.

    A step is right if it starts from the true result of the step before, does what the question
    says, and gives the right digit. A step more than the question has is wrong; missing steps and
    a wrong answer are not steps.

    Args:
        text: The bare question.
        attempt: A solver's solution.

    Returns:
        The index of the step, counted from 0, or None: all steps that are there are right.

    Example:
        >>> first_wrong_step("7+5*3", "<step_1>7+5=2</step_1><step_2>2*3=7</step_2>")
        1
    """
    work = operations(text)
    for index, body in enumerate(parse_steps(attempt).steps):
        if index >= len(work) or not _right(body, work[index]):
            return index
    return None


def final_answer(trace: StepTrace) -> str | None:
    """The answer that a solution gives, without a full stop behind it."""
    return trace.answer.removesuffix(".").rstrip() if trace.answer else None


def repair_attempt(text: str, attempt: str) -> Critique:
    """Repair an attempt in its own words, as a faithful scribe would.

    Right steps are copied verbatim. From the first wrong one on, steps are worked out again,
    each in the notation that the attempt has at that place; missing ones are added in the
    notation of the last step that has one. The cases are those of :class:`Critique`; an
    attempt that is right but breaks the form counts as D.

    Args:
        text: The bare question.
        attempt: A solver's solution.

    Returns:
        The critique, with the map of its steps.

    Raises:
        ValueError: Not a question of this task.
    """
    work = operations(text)
    answer = str(work[-1].result)
    trace = parse_steps(attempt)
    places = _places(trace.steps, work) if final_answer(trace) == answer else None
    case = _case(trace, work, places)
    written = dict(zip(places or range(len(work)), trace.steps, strict=False))
    steps = _repaired(written, work)
    numbers = {place: number for number, place in enumerate(written, start=1)}
    same = {place for place, body in written.items() if steps[place] == body}
    return Critique(
        text=attempt if case == "A" else render_steps(steps, answer),
        case=case,
        copied=tuple(numbers[place] for place in written if place in same),
        changed=tuple(numbers[place] for place in written if place not in same),
        added=tuple(i + 1 for i in range(len(work)) if i not in written),
    )


def read_step(body: str) -> tuple[str, str] | None:
    """Read one step's equation.

    Returns:
        The operation without spaces, and the result that it claims; None: it is no equation.

    Example:
        >>> read_step("so 7 + 5 is 2.")
        ('7+5', '2')
    """
    match = _STEP.fullmatch(body)
    if match is None:
        return None
    return match["left"] + match["operator"] + match["right"], match["result"]


def _right(body: str, operation: Operation) -> bool:
    return read_step(body) == ("".join(map(str, operation)), str(operation.result))


def _places(steps: Sequence[str], work: Sequence[Operation]) -> list[int] | None:
    """Which operation each step does, if they are all right and some may only be left out."""
    places: list[int] = []
    for body in steps:
        start = places[-1] + 1 if places else 0
        place = next((i for i in range(start, len(work)) if _right(body, work[i])), None)
        if place is None:
            return None
        places.append(place)
    return places


def _case(trace: StepTrace, work: Sequence[Operation], places: Sequence[int] | None) -> str:
    if places is not None and len(places) < len(work):
        return "B"
    if places is not None and trace.well_formed:
        return "A"
    # A step in which the text ends is unfinished, which is not yet wrong.
    open_step = trace.cut_off and trace.answer_span is None
    closed = trace.steps[:-1] if open_step else trace.steps
    right = len(closed) <= len(work) and all(map(_right, closed, work))
    return "C" if right and (trace.cut_off or trace.answer is None) else "D"


def _repaired(written: dict[int, str], work: Sequence[Operation]) -> list[str]:
    notation = Notation()
    steps = []
    for place, operation in enumerate(work):
        body = written.get(place, "")
        notation = _notation(body) or notation
        steps.append(
            body if _right(body, operation) else notation.write(operation, operation.result)
        )
    return steps


def _notation(body: str) -> Notation | None:
    match = _STEP.fullmatch(body)
    if match is None:
        return None
    return Notation(match["lead"], match["gap1"], match["gap2"], match["equals"], match["end"])
