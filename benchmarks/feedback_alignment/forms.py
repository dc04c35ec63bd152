"""The forms of a critique: the same repair of the same attempt in different wording.

Each function maps the attempt and its critique to the text that the teacher sees; "" means no text.
All use only the text and the step numbers of the critique, so critiques of a language model work
as well as those of the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lightning_sd.lab.step_notation import read_step
from lightning_sd.text.steps import parse_steps, render_steps
from lightning_sd.types import Critique

Form = Callable[[str, Critique], str]
"""(attempt, critique) -> text that the teacher sees."""

OBJECTION = " is wrong, it should be "
ASSENT = "step {number} is right. "


def partial(attempt: str, critique: Critique) -> str:
    """Return the paper's form: right steps word for word, the wrong step omitted and corrected."""
    return critique.text


def full_repetition(attempt: str, critique: Critique) -> str:
    """Quote the first wrong step of the attempt, then correct it."""
    if not critique.changed:
        return critique.text
    wrong = min(critique.changed)
    quoted = _tag_step(wrong, parse_steps(attempt).steps[wrong - 1]) + OBJECTION
    steps = [
        (quoted if number == wrong else "") + _tag_step(place, body)
        for place, number, body in _iterate_steps(critique)
    ]
    return "".join(steps) + _render_answer(critique)


def omission(attempt: str, critique: Critique) -> str:
    """Call right steps right instead of repeating them."""
    steps = [
        ASSENT.format(number=place) if number in critique.copied else _tag_step(place, body)
        for place, number, body in _iterate_steps(critique)
    ]
    return "".join(steps) + _render_answer(critique)


def reference_phrasing(attempt: str, critique: Critique) -> str:
    """Write the attempt's steps in the words of the reference solution.

    A step that is not an equation has no other phrasing and is kept.
    """
    steps = [_rephrase(body) for _, _, body in _iterate_steps(critique)]
    return "".join(_tag_step(i, body) for i, body in enumerate(steps, start=1)) + _render_answer(
        critique
    )


def no_answer(attempt: str, critique: Critique) -> str:
    """Omit the answer and the last step, which results in the answer."""
    return render_steps(parse_steps(critique.text).steps[:-1], None)


FORMS: dict[str, Form] = {
    form.__name__: form
    for form in (partial, full_repetition, omission, reference_phrasing, no_answer)
}


def _iterate_steps(critique: Critique) -> Iterator[tuple[int, int | None, str]]:
    """Yield the critique's steps: place, number in the attempt (None: added), and body."""
    number = 0
    for place, body in enumerate(parse_steps(critique.text).steps, start=1):
        if place in critique.added:
            yield place, None, body
        else:
            number += 1
            yield place, number, body


def _rephrase(body: str) -> str:
    read = read_step(body)
    return body if read is None else f"get {read[1]} from {read[0]}"


def _tag_step(number: int, body: str) -> str:
    return f"<step_{number}>{body}</step_{number}>"


def _render_answer(critique: Critique) -> str:
    return render_steps((), parse_steps(critique.text).answer)
