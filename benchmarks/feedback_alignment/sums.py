"""Running sums for the real model: reasoning-gym's basic_arithmetic, shown by examples."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import get_args

from lightning_sd.tasks import ReasoningGymTask, Split
from lightning_sd.text.steps import compare_steps, parse_steps, render_steps
from lightning_sd.types import Critique, Message, Question

INSTRUCTION = "Work out the sum from left to right, one addition a step."
SHOTS = ("4 + 3 + 8", "9 + 6 + 2", "7 + 8 + 5", "2 + 9 + 9")
"""Never asked; they only show the form."""
TERMS = 3
_STEP = re.compile(r"([0-9]+) ?\+ ?([0-9]+) ?= ?([0-9]+)")


class RunningSums(ReasoningGymTask):
    """Sums of three numbers from 0 to 10, a step an addition, which can be repaired exactly.

    SmolLM2-135M does not keep to the step form when it is only told of it, and does when it has
    seen some solutions: they stand as earlier turns before each question.

    Args:
        sizes: Questions in ``train``, ``val`` and ``test``.
        seed: Decides which questions are drawn.
    """

    def __init__(self, sizes: dict[str, int], seed: int = 0) -> None:
        config = {
            "min_terms": TERMS,
            "max_terms": TERMS,
            "min_digits": 1,
            "max_digits": 1,
            "operators": ["+"],
            "allow_parentheses": False,
            "allow_negation": False,
        }
        super().__init__("basic_arithmetic", sizes, seed, config, instruction=None)

    def questions(self, split: Split) -> Sequence[Question]:
        """The questions of one split, without those that are shown."""
        return self._asked[split]

    @cached_property
    def _asked(self) -> dict[Split, list[Question]]:
        splits: tuple[Split, ...] = get_args(Split)
        return {
            split: [asked(q) for q in super(RunningSums, self).questions(split) if new(q)]
            for split in splits
        }

    def repair(self, question: Question, attempt: str) -> Critique:
        """Copy right steps, work the others out again, and add what is missing."""
        work = additions(question.text)
        trace = parse_steps(attempt)
        steps = [
            body if _right(body, step) else _written(step)
            for body, step in zip((*trace.steps, *[""] * len(work)), work, strict=False)
        ]
        answer = str(work[-1][2])
        whole = list(trace.steps) == steps
        if whole and trace.well_formed and trace.answer == answer:
            text, case = attempt, "A"
        else:
            unfinished = trace.answer is None and list(trace.steps) == steps[: len(trace.steps)]
            text, case = render_steps(steps, answer), "C" if unfinished else "D"
        copied, changed, added = compare_steps(trace, parse_steps(text))
        return Critique(text=text, case=case, copied=copied, changed=changed, added=added)


def new(question: Question) -> bool:
    """Whether it is none of the examples."""
    return expression(question) not in SHOTS


def expression(question: Question) -> str:
    """The bare sum, such as ``4 + 3 + 8``."""
    entry = question.extra["entry"]
    return str(entry["metadata"]["expression"]).strip()


def asked(question: Question) -> Question:
    """The question as it is put to the model, with its worked solution."""
    text = expression(question)
    turns: list[Message] = [{"role": "system", "content": INSTRUCTION}]
    for shot in SHOTS:
        turns.append({"role": "user", "content": shot})
        turns.append({"role": "assistant", "content": solution(shot)})
    turns.append({"role": "user", "content": text})
    return replace(question, text=text, messages=tuple(turns), reference=reference(text))


def additions(text: str) -> list[tuple[int, int, int]]:
    """Each step's two numbers and their sum.

    >>> additions("4 + 3 + 8")
    [(4, 3, 7), (7, 8, 15)]
    """
    first, *others = (int(number) for number in text.split(" + "))
    work = []
    for number in others:
        work.append((first, number, first + number))
        first += number
    return work


def solution(text: str) -> str:
    """The worked solution in the form that the examples show."""
    work = additions(text)
    return render_steps([_written(step) for step in work], str(work[-1][2]))


def reference(text: str) -> str:
    """The worked solution in a notation that no example shows."""
    work = additions(text)
    steps = [f"get {result} from {left} + {right}" for left, right, result in work]
    return render_steps(steps, str(work[-1][2]))


def _written(step: tuple[int, int, int]) -> str:
    left, right, result = step
    return f"{left} + {right} = {result}"


def _right(body: str, step: tuple[int, int, int]) -> bool:
    match = _STEP.fullmatch(body)
    return match is not None and tuple(map(int, match.groups())) == step
