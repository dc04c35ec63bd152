"""The task: any order of the three operations is right, and each step can be checked."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import get_args

from benchmarks.alignment_map.real.sums import (
    NAMES,
    ORDERS,
    compute_results,
    draw_question,
    follow_attempt,
    format_answer,
    read_order,
    write_solution,
)
from benchmarks.alignment_map.task import build_critique
from lightning_sd.contexts import ReferenceSolution
from lightning_sd.tasks.base import Split, Task
from lightning_sd.text.steps import parse_steps
from lightning_sd.types import Critique, Question, Rollout, Verdict


class SumsTask(Task):
    """Three independent operations per question; the answer is their results.

    Args:
        train_size: Number of training questions.
        val_size: Number of validation questions.
        test_size: Number of test questions.
        products: Share of products; the other operations are sums.
        seed: Selects the questions.

    Raises:
        ValueError: A size is below 1.

    Example:
        >>> task = SumsTask(train_size=1, val_size=1, test_size=1)
        >>> question = task.questions("val")[0]
        >>> task.verify(question, question.reference).correct
        True
    """

    def __init__(
        self,
        train_size: int = 200,
        val_size: int = 64,
        test_size: int = 64,
        products: float = 0.5,
        seed: int = 0,
    ) -> None:
        sizes = {"train": train_size, "val": val_size, "test": test_size}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name}_size={size}: must be at least 1.")
        self._questions = {s: _draw(s, size, products, seed) for s, size in sizes.items()}

    def questions(self, split: Split) -> Sequence[Question]:
        """Return the questions of one split. See :meth:`.Task.questions`."""
        if split not in self._questions:
            raise ValueError(f"split={split!r}: choose one of {get_args(Split)}.")
        return self._questions[split]

    def verify(self, question: Question, completion: str) -> Verdict:
        """Reward the share of right results in the answer, whatever the order of the steps.

        The answer is correct if all three are right.
        """
        answer = parse_steps(completion).answer
        if answer is None:
            return Verdict(0.0, correct=False, status="no_answer")
        true, stated = str(question.answer).split(","), answer.split(",")
        is_complete = len(stated) == len(true)
        right = sum(a == b for a, b in zip(stated, true, strict=True)) if is_complete else 0
        return Verdict(right / len(true), right == len(true), answer)

    def repair(self, question: Question, attempt: str) -> Critique:
        """Repair an attempt in its own order. See :func:`repair_attempt`."""
        return repair_attempt(question.text, attempt)


class OtherOrder(ReferenceSolution):
    """A right solution in an order drawn from the five that are not the attempt's."""

    def fields(self, rollout: Rollout) -> Mapping[str, str]:
        """Return the reference; attempts at a question with one order get the same one."""
        text = rollout.question.text
        own = read_order(text, rollout.text)
        rng = random.Random(f"reference/{text}/{own}")
        order = rng.choice([order for order in ORDERS if order != own])
        return {"reference": write_solution(order, compute_results(text))}


def build_question(text: str) -> Question:
    """Build a question; its stored reference has the order of the names."""
    results = compute_results(text)
    return Question(
        id=f"sums/{text}",
        text=text,
        messages=({"role": "user", "content": text},),
        reference=write_solution(NAMES, results),
        answer=format_answer(results),
    )


def repair_attempt(text: str, attempt: str) -> Critique:
    """Repair an attempt in its own order.

    Right steps are copied verbatim and wrong results corrected. Steps that are none, or that repeat
    a name, are left out; missing ones are added at the end.

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
    solution = write_solution(read_order(text, attempt), compute_results(text))
    copied = [n for n, place in enumerate(places, start=1) if place.right]
    written = sum(place.name is not None for place in places)
    return build_critique(attempt, solution, len(places), copied, written, len(NAMES))


def _draw(split: str, size: int, products: float, seed: int) -> list[Question]:
    rng = random.Random(f"sums/{split}/{seed}")
    shares = {"sum": 1 - products, "product": products}
    texts: dict[str, None] = {}
    while len(texts) < size:
        texts[draw_question(split, shares, rng)] = None
    return [build_question(text) for text in texts]
