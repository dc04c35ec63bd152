"""The forms of one critique: the same repair of the same attempt, told in other ways.

Each is a function of the attempt and its critique to the text that the teacher is shown, "" if it
says nothing. All read nothing of the critique but its text and its step numbers, so that critiques
of a language model serve as well as those of the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lightning_sd.lab.scribe import read_step
from lightning_sd.text.steps import parse_steps, render_steps
from lightning_sd.types import Critique

Form = Callable[[str, Critique], str]
"""(attempt, critique) -> what the teacher is shown."""

OBJECTION = " is wrong, it should be "
ASSENT = "step {number} is right. "


def partial(attempt: str, critique: Critique) -> str:
    """The paper's form: what is right word for word, the wrong step left out and put right."""
    return critique.text


def full_repetition(attempt: str, critique: Critique) -> str:
    """The first wrong step is quoted as it stands in the attempt, and then put right."""
    if not critique.changed:
        return critique.text
    wrong = min(critique.changed)
    quoted = _tagged(wrong, parse_steps(attempt).steps[wrong - 1]) + OBJECTION
    steps = [
        (quoted if number == wrong else "") + _tagged(place, body)
        for place, number, body in _repaired(critique)
    ]
    return "".join(steps) + _answer(critique)


def omission(attempt: str, critique: Critique) -> str:
    """Steps that are right are called so and not repeated."""
    steps = [
        ASSENT.format(number=place) if number in critique.copied else _tagged(place, body)
        for place, number, body in _repaired(critique)
    ]
    return "".join(steps) + _answer(critique)


def reference_phrasing(attempt: str, critique: Critique) -> str:
    """The attempt's steps, each in the words of the reference solution.

    A step that is no equation, which has no other phrasing, is left as it is.
    """
    steps = [_rephrased(body) for _, _, body in _repaired(critique)]
    return "".join(_tagged(i, body) for i, body in enumerate(steps, start=1)) + _answer(critique)


def no_answer(attempt: str, critique: Critique) -> str:
    """Without the answer and without the last step, whose result is the answer."""
    return render_steps(parse_steps(critique.text).steps[:-1], None)


FORMS: dict[str, Form] = {
    form.__name__: form
    for form in (partial, full_repetition, omission, reference_phrasing, no_answer)
}


def _repaired(critique: Critique) -> Iterator[tuple[int, int | None, str]]:
    """The critique's steps: place in it, number in the attempt (None: added), and body."""
    number = 0
    for place, body in enumerate(parse_steps(critique.text).steps, start=1):
        if place in critique.added:
            yield place, None, body
        else:
            number += 1
            yield place, number, body


def _rephrased(body: str) -> str:
    read = read_step(body)
    return body if read is None else f"get {read[1]} from {read[0]}"


def _tagged(number: int, body: str) -> str:
    return f"<step_{number}>{body}</step_{number}>"


def _answer(critique: Critique) -> str:
    return render_steps((), parse_steps(critique.text).answer)
