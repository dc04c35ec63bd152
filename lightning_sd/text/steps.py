"""Reading and writing of step-tagged solutions.

The form: ``<step_1>...</step_1><step_2>...</step_2>...<answer>...</answer>``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# At most six digits: a model may write any number of them, and int() refuses very long ones.
_TAG = re.compile(r"<(?P<close>/?)(?:step_(?P<number>[0-9]{1,6})|answer)>")
# What is left of a closing tag in which the text was cut off.
_STUMP = re.compile(r"<(?:/[a-z_0-9]*)?$")

Span = tuple[int, int]


@dataclass(frozen=True)
class StepTrace:
    """What was found in one solution, in the order in which it stands there."""

    steps: tuple[str, ...]
    """The steps' bodies: without tags, without white space around them."""
    answer: str | None
    """The last answer's body, stripped; None: no answer tag, or nothing behind it."""
    well_formed: bool
    """One or more closed steps numbered from 1, none empty, one closed answer, no text between."""
    cut_off: bool
    """Whether the text ends inside a step or inside an answer."""
    spans: tuple[Span, ...]
    """Where each step stands in the text, tags included: ``text[start:end]``."""
    answer_span: Span | None
    """Where the last answer stands, tags included; None: there is no answer tag."""


@dataclass
class _Element:
    """One opened tag and what followed it up to the next tag."""

    number: int | None
    """The step's number; None: it is an answer."""
    body: str
    start: int
    end: int
    closed: bool = False


def parse_steps(text: str) -> StepTrace:
    """Read a step-tagged solution; whatever the text holds, it never raises.

    A step or answer that was not closed (a solution cut off) reaches to the next tag or to the end
    of the text. Steps count in the order in which they stand, whatever numbers their tags bear.

    Args:
        text: A completion, decoded.

    Returns:
        What was found. Nothing at all gives empty ``steps`` and no ``answer``.

    Example:
        >>> trace = parse_steps("<step_1>7+5=2</step_1><answer>2</answer>")
        >>> trace.steps, trace.answer, trace.well_formed
        (('7+5=2',), '2', True)
        >>> parse_steps("<step_1>7+5=2</step_1><step_2>2*").steps
        ('7+5=2', '2*')
    """
    elements, clean, cut_off = _elements(text)
    steps = [element for element in elements if element.number is not None]
    answers = [element for element in elements if element.number is None]
    well_formed = (
        clean
        and len(steps) > 0
        and [element.number for element in elements] == [*range(1, len(steps) + 1), None]
        and all(element.closed and element.body for element in elements)
    )
    return StepTrace(
        steps=tuple(step.body for step in steps),
        answer=(answers[-1].body or None) if answers else None,
        well_formed=well_formed,
        cut_off=cut_off,
        spans=tuple((step.start, step.end) for step in steps),
        answer_span=(answers[-1].start, answers[-1].end) if answers else None,
    )


def _elements(text: str) -> tuple[list[_Element], bool, bool]:
    """All steps and answers in order; is the text outside them blank; does it end inside one."""
    elements: list[_Element] = []
    clean = True
    position = 0  # end of the last tag
    current: _Element | None = None
    for tag in _TAG.finditer(text):
        between = text[position : tag.start()]
        if current is not None:
            current.body, current.end = between.strip(), tag.start()
        elif between.strip():
            clean = False
        number = int(tag["number"]) if tag["number"] else None
        if not tag["close"]:
            current = _Element(number, "", tag.start(), len(text))
            elements.append(current)
        elif current is not None:
            # A closing tag with another number still ends the step, but not as it should.
            current.closed, current.end = current.number == number, tag.end()
            current = None
        else:
            clean = False
        position = tag.end()
    rest = text[position:].strip()
    if current is not None:
        current.body = _STUMP.sub("", rest).rstrip()
    elif rest:
        clean = False
    return elements, clean, current is not None


def render_steps(steps: Sequence[str], answer: str | None) -> str:
    """Write a solution in the form that :func:`parse_steps` reads.

    Args:
        steps: The steps' bodies, without tags.
        answer: The final answer; None leaves its tag out.

    Returns:
        The solution on one line, nothing between the tags.

    Example:
        >>> render_steps(["7+5=2"], "2")
        '<step_1>7+5=2</step_1><answer>2</answer>'
    """
    parts = [f"<step_{i}>{body}</step_{i}>" for i, body in enumerate(steps, start=1)]
    if answer is not None:
        parts.append(f"<answer>{answer}</answer>")
    return "".join(parts)


def compare(
    attempt: StepTrace, repaired: StepTrace
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Tell which steps of a repaired solution stand in the attempt word for word.

    Args:
        attempt: The solver's own solution.
        repaired: The critic's version of it.

    Returns:
        ``(copied, changed, added)``, step numbers from 1, as ``Critique`` holds them. A step is
        copied if both have the same body at the same place, and added if the attempt ends before.

    Example:
        >>> attempt = parse_steps("<step_1>1+1=2</step_1><step_2>2+1=4</step_2>")
        >>> repaired = parse_steps(render_steps(["1+1=2", "2+1=3", "3*2=6"], "6"))
        >>> compare(attempt, repaired)
        ((1,), (2,), (3,))
    """
    had = len(attempt.steps)
    pairs = list(enumerate(zip(attempt.steps, repaired.steps, strict=False), start=1))
    copied = tuple(i for i, (old, new) in pairs if old == new)
    changed = tuple(i for i, (old, new) in pairs if old != new)
    return copied, changed, tuple(range(had + 1, len(repaired.steps) + 1))
