"""The task of the alignment map: any valid derivation is right, and each step can be checked."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import get_args

from benchmarks.alignment_map.derivations import (
    LENGTH,
    NAMES,
    NOTATIONS,
    Place,
    Step,
    complete_order,
    derive,
    draw_order,
    draw_question,
    follow_attempt,
    write_solution,
)
from lightning_sd.tasks.base import Split, Task
from lightning_sd.text.steps import parse_steps
from lightning_sd.types import Critique, Question, Verdict


class DerivationTask(Task):
    """Three interleaved expressions per question; the answer is their three results.

    The reference solution of a question has an order drawn per question.

    Args:
        train_size: Number of training questions.
        val_size: Number of validation questions.
        test_size: Number of test questions.
        seed: Selects the questions and the orders of their references.

    Raises:
        ValueError: A size is below 1.

    Example:
        >>> task = DerivationTask(train_size=1, val_size=1, test_size=1)
        >>> question = task.questions("val")[0]
        >>> task.verify(question, question.reference).correct
        True
    """

    def __init__(
        self, train_size: int = 2000, val_size: int = 100, test_size: int = 200, seed: int = 0
    ) -> None:
        sizes = {"train": train_size, "val": val_size, "test": test_size}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name}_size={size}: must be at least 1.")
        self._questions = {split: _draw(split, size, seed) for split, size in sizes.items()}

    def questions(self, split: Split) -> Sequence[Question]:
        """Return the questions of one split. See :meth:`.Task.questions`."""
        if split not in self._questions:
            raise ValueError(f"split={split!r}: choose one of {get_args(Split)}.")
        return self._questions[split]

    def verify(self, question: Question, completion: str) -> Verdict:
        """Return reward 1 for the three right results, whatever the derivation."""
        answer = parse_steps(completion).answer
        correct = answer is not None and answer == question.answer
        return Verdict(
            float(correct), correct, answer, status="no_answer" if answer is None else "judged"
        )

    def repair(self, question: Question, attempt: str) -> Critique:
        """Repair an attempt in its own order and notation. See :func:`repair_attempt`."""
        return repair_attempt(question.text, attempt)


def build_question(text: str, rng: random.Random) -> Question:
    """Build a question whose reference has a random order and random notations."""
    steps = derive(text, draw_order(rng), rng.choices(NOTATIONS, k=LENGTH))
    values = {step.name: step.result for step in steps}
    return Question(
        id=f"derivations/{text}",
        text=text,
        messages=({"role": "user", "content": text},),
        reference=write_solution(steps),
        answer="".join(str(values[name]) for name in NAMES),
    )


def repair_attempt(text: str, attempt: str) -> Critique:
    """Repair an attempt in its own order and notation.

    Steps that are right and start from true values are copied verbatim. Wrong results are
    corrected, and so are the later steps of the same expression. Steps that apply no pending
    operation are left out, and missing steps are added at the end. A step of two operations is
    written as two steps.

    Args:
        text: The question.
        attempt: A step-tagged solution.

    Returns:
        The critique with its step map. Step numbers of ``copied`` and ``changed`` are the
        attempt's, those of ``added`` the critique's.

    Raises:
        ValueError: ``text`` is not a question of this task.
    """
    places = follow_attempt(text, parse_steps(attempt).steps)
    steps, copied = _repair_places(text, places)
    solution = write_solution(steps)
    written = sum(len(place.step.rest) // 2 for place in places if place.step and place.fits)
    return build_critique(attempt, solution, len(places), copied, written, LENGTH)


def build_critique(
    attempt: str, solution: str, stated: int, copied: Collection[int], written: int, needed: int
) -> Critique:
    """Build the critique of an attempt from its repair.

    Args:
        attempt: A step-tagged solution.
        solution: Its repair, with the right answer.
        stated: Steps of the attempt.
        copied: Numbers of the attempt's steps that the repair copies.
        written: Steps of the repair that the attempt has, right or wrong.
        needed: Steps of a complete solution.
    """
    trace, answer = parse_steps(attempt), parse_steps(solution).answer
    numbers = range(1, stated + 1)
    changed = tuple(n for n in numbers if n not in copied)
    # A last step that was cut off is unfinished, which does not make it wrong.
    unfinished = stated if trace.cut_off and trace.answer_span is None else None
    wrong = [number for number in changed if number != unfinished]
    if written == needed and trace.answer == answer and trace.well_formed and not changed:
        case = "A"
    elif wrong or trace.answer not in (None, answer):
        case = "D"
    else:
        case = "C" if trace.cut_off or trace.answer is None else "B"
    return Critique(
        text=attempt if case == "A" else solution,
        case=case,
        copied=tuple(n for n in numbers if n in copied),
        changed=changed,
        added=tuple(range(written + 1, needed + 1)),
    )


def read_order(text: str, attempt: str) -> str:
    """Return the order of an attempt, with the operations that it left out at the end."""
    places = follow_attempt(text, parse_steps(attempt).steps)
    return complete_order(
        place.step.name * (len(place.step.rest) // 2)
        for place in places
        if place.step is not None and place.fits
    )


def find_wrong_step(text: str, attempt: str) -> int | None:
    """Return the index of the attempt's first wrong step, counted from 0; None if none is wrong."""
    places = follow_attempt(text, parse_steps(attempt).steps)
    return next((at for at, place in enumerate(places) if not place.right), None)


def _repair_places(text: str, places: Sequence[Place]) -> tuple[list[Step], set[int]]:
    """Return the steps of the repair, and the numbers of the attempt's steps that it copies."""
    order: list[str] = []
    notations: list[str] = []
    sources: dict[int, tuple[int, Step]] = {}
    for number, (step, fits, _) in enumerate(places, start=1):
        if step is None or not fits:
            continue
        if len(step.rest) == 2:
            sources[len(order)] = number, step
        order += step.name * (len(step.rest) // 2)
        notations += [step.notation] * (len(step.rest) // 2)
    notations += [notations[-1] if notations else NOTATIONS[0]] * (LENGTH - len(notations))
    steps = derive(text, complete_order(order), notations)
    copied = {number for at, (number, step) in sources.items() if steps[at] == step}
    return steps, copied


def _draw(split: str, size: int, seed: int) -> list[Question]:
    rng = random.Random(f"derivations/{split}/{seed}")
    texts: dict[str, None] = {}
    while len(texts) < size:
        texts[draw_question(split, rng)] = None
    return [build_question(text, rng) for text in texts]
