"""Read and write step-tagged solutions.

The format is ``<step_1>...</step_1><step_2>...</step_2>...<answer>...</answer>``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# At most six digits: a model may write more, and int() refuses very long numbers.
_TAG = re.compile(r"<(?P<close>/?)(?:step_(?P<number>[0-9]{1,6})|answer)>")
# The remains of a closing tag that the length limit cut off.
_STUMP = re.compile(r"<(?:/[a-z_0-9]*)?$")

Span = tuple[int, int]


@dataclass(frozen=True)
class StepTrace:
    """The steps and the answer of one solution, in the order of the text."""

    steps: tuple[str, ...]
    """The text of each step, without tags and without white space at its ends."""
    answer: str | None
    """The text of the last answer, stripped; None if there is no answer tag or no text in it."""
    well_formed: bool
    """Whether the text is one or more closed, non-empty steps numbered from 1, then one closed,
    non-empty answer, with no text between them."""
    cut_off: bool
    """Whether the text ends inside a step or inside an answer."""
    spans: tuple[Span, ...]
    """The characters of each step in the text, tags included: ``text[start:end]``."""
    answer_span: Span | None
    """The characters of the last answer, tags included; None if there is no answer tag."""


@dataclass
class _Element:
    """One opening tag and the text up to the next tag."""

    number: int | None
    """The step's number; None for an answer."""
    body: str
    start: int
    end: int
    closed: bool = False


def parse_steps(text: str) -> StepTrace:
    """Read a step-tagged solution. Never raises, whatever the text is.

    A step or answer without a closing tag ends at the next tag or at the end of the text. Steps are
    counted in the order of the text; the numbers in their tags are used for ``well_formed`` only.

    Args:
        text: A decoded completion.

    Returns:
        The trace; a text without tags gives no steps and no answer.

    Example:
        >>> trace = parse_steps("<step_1>7+5=2</step_1><answer>2</answer>")
        >>> trace.steps, trace.answer, trace.well_formed
        (('7+5=2',), '2', True)
        >>> parse_steps("<step_1>7+5=2</step_1><step_2>2*").steps
        ('7+5=2', '2*')
    """
    elements, clean, cut_off = _split_elements(text)
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


def _split_elements(text: str) -> tuple[list[_Element], bool, bool]:
    """Return all steps and answers, whether only blanks separate them, and if the last is open."""
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
            # A closing tag with another number ends the step but does not count as closing it.
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
    """Write a solution in the format that :func:`parse_steps` reads.

    Args:
        steps: The text of each step, without tags.
        answer: The final answer; None omits its tag.

    Returns:
        The solution, with nothing between the tags.

    Example:
        >>> render_steps(["7+5=2"], "2")
        '<step_1>7+5=2</step_1><answer>2</answer>'
    """
    parts = [f"<step_{i}>{body}</step_{i}>" for i, body in enumerate(steps, start=1)]
    if answer is not None:
        parts.append(f"<answer>{answer}</answer>")
    return "".join(parts)


def compare_steps(
    attempt: StepTrace, repaired: StepTrace
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Find the steps of a repaired solution that repeat the attempt word for word.

    Args:
        attempt: The student's solution.
        repaired: The critic's version of it.

    Returns:
        ``(copied, changed, added)``, step numbers counted from 1, as in ``Critique``. A step is
        copied if both solutions have the same text at that number, and added if the attempt has
        fewer steps.

    Example:
        >>> attempt = parse_steps("<step_1>1+1=2</step_1><step_2>2+1=4</step_2>")
        >>> repaired = parse_steps(render_steps(["1+1=2", "2+1=3", "3*2=6"], "6"))
        >>> compare_steps(attempt, repaired)
        ((1,), (2,), (3,))
    """
    attempted = len(attempt.steps)
    pairs = list(enumerate(zip(attempt.steps, repaired.steps, strict=False), start=1))
    copied = tuple(i for i, (old, new) in pairs if old == new)
    changed = tuple(i for i, (old, new) in pairs if old != new)
    return copied, changed, tuple(range(attempted + 1, len(repaired.steps) + 1))
