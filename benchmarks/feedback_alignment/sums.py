"""Running sums for SmolLM2: reasoning-gym's basic_arithmetic with solved examples."""

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
"""Solved examples that show the form; they are never questions."""
TERMS = 3
_STEP = re.compile(r"([0-9]+) ?\+ ?([0-9]+) ?= ?([0-9]+)")


class RunningSums(ReasoningGymTask):
    """Sums of three numbers from 0 to 10, one addition per step, which can be repaired exactly.

    SmolLM2-135M does not follow the step form from an instruction, but does after some solved
    examples, which precede each question as earlier turns.

    Args:
        sizes: Number of questions in ``train``, ``val`` and ``test``.
        seed: Seed of the drawn questions.
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
        """Return the questions of one split, without the solved examples."""
        return self._asked[split]

    @cached_property
    def _asked(self) -> dict[Split, list[Question]]:
        splits: tuple[Split, ...] = get_args(Split)
        return {
            split: [
                format_question(q) for q in super(RunningSums, self).questions(split) if is_new(q)
            ]
            for split in splits
        }

    def repair(self, question: Question, attempt: str) -> Critique:
        """Copy right steps, recompute the others, and add missing ones."""
        work = list_additions(question.text)
        trace = parse_steps(attempt)
        steps = [
            body if _is_right(body, step) else _write_step(step)
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


def is_new(question: Question) -> bool:
    """Return whether the question is none of the examples."""
    return expression(question) not in SHOTS


def expression(question: Question) -> str:
    """Return the bare sum, such as ``4 + 3 + 8``."""
    entry = question.extra["entry"]
    return str(entry["metadata"]["expression"]).strip()


def format_question(question: Question) -> Question:
    """Build the question as the model sees it, with its worked solution."""
    text = expression(question)
    turns: list[Message] = [{"role": "system", "content": INSTRUCTION}]
    for shot in SHOTS:
        turns.append({"role": "user", "content": shot})
        turns.append({"role": "assistant", "content": solution(shot)})
    turns.append({"role": "user", "content": text})
    return replace(question, text=text, messages=tuple(turns), reference=reference(text))


def list_additions(text: str) -> list[tuple[int, int, int]]:
    """Return each step's two numbers and their sum.

    >>> list_additions("4 + 3 + 8")
    [(4, 3, 7), (7, 8, 15)]
    """
    first, *others = (int(number) for number in text.split(" + "))
    work = []
    for number in others:
        work.append((first, number, first + number))
        first += number
    return work


def solution(text: str) -> str:
    """Write the worked solution in the form of the examples."""
    work = list_additions(text)
    return render_steps([_write_step(step) for step in work], str(work[-1][2]))


def reference(text: str) -> str:
    """Write the worked solution in a notation that no example uses."""
    work = list_additions(text)
    steps = [f"get {result} from {left} + {right}" for left, right, result in work]
    return render_steps(steps, str(work[-1][2]))


def _write_step(step: tuple[int, int, int]) -> str:
    left, right, result = step
    return f"{left} + {right} = {result}"


def _is_right(body: str, step: tuple[int, int, int]) -> bool:
    match = _STEP.fullmatch(body)
    return match is not None and tuple(map(int, match.groups())) == step
