"""The second task of the continual study: a dialect of the lab's arithmetic."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import get_args

from lightning_sd.lab.expressions import draw_texts, parse_operations
from lightning_sd.lab.step_notation import Notation
from lightning_sd.lab.step_repair import read_final_answer, write_reference
from lightning_sd.tasks import Task
from lightning_sd.tasks.base import Split
from lightning_sd.text.steps import parse_steps, render_steps
from lightning_sd.types import Question, Verdict

OWN = Notation()
"""The simplest notation that the embedded solver uses itself."""

MARKER = "now "
"""Precedes each question of the dialect; a word of the solver's vocabulary."""
_MEANT = str.maketrans("+-", "-+")


class DialectTask(Task):
    """Arithmetic as in the lab, except that ``+`` means minus and ``-`` means plus.

    The marker before a question distinguishes the dialect from the lab's own arithmetic. Worked
    solutions use the signs with their usual meaning, so each of their equations is true. A question
    has at least one sign whose meaning is swapped.

    Args:
        own_words: Write the worked solutions in one of the embedded solver's own notations. False:
            in the notation of the lab's references, which the solver never writes.
        marker: Text before each question. Empty: questions that look like the first task's, to
            test whether the dialect is used there too.
        train_size: Questions to train on.
        val_size: Questions to validate on.
        test_size: Questions to test on.

    Example:
        >>> task = DialectTask(own_words=True, train_size=1, val_size=1, test_size=1)
        >>> task.question("7-5*3").text, task.question("7-5*3").reference
        ('now 7-5*3', '<step_1>7+5=2</step_1><step_2>2*3=6</step_2><answer>6</answer>')
    """

    steps = 4

    def __init__(
        self,
        own_words: bool = False,
        marker: str = MARKER,
        train_size: int = 4000,
        val_size: int = 64,
        test_size: int = 128,
    ) -> None:
        self.own_words, self.marker = own_words, marker
        sizes = {"train": train_size, "val": val_size, "test": test_size}
        splits: tuple[Split, ...] = get_args(Split)
        self._questions = {split: self._draw(split, sizes[split]) for split in splits}

    def questions(self, split: Split) -> Sequence[Question]:
        return self._questions[split]

    def verify(self, question: Question, completion: str) -> Verdict:
        """Return reward 1 for the right final answer, as in the lab."""
        answer = read_final_answer(parse_steps(completion))
        correct = answer is not None and answer == question.answer
        return Verdict(reward=float(correct), correct=correct, answer=answer)

    def question(self, text: str) -> Question:
        """Build the row for one question without marker, such as ``7-5*3``."""
        meant = text.translate(_MEANT)
        work = parse_operations(meant)
        told = [OWN.write(operation, operation.result) for operation in work]
        answer = str(work[-1].result)
        return Question(
            id=f"dialect/{text}",
            text=self.marker + text,
            messages=({"role": "user", "content": self.marker + text},),
            reference=render_steps(told, answer) if self.own_words else write_reference(meant),
            answer=answer,
        )

    def _draw(self, split: Split, size: int) -> list[Question]:
        drawn: dict[str, None] = {}
        for text in draw_texts(split, self.steps, random.Random(f"dialect/{split}")):
            if len(drawn) >= size:
                break
            if "+" in text or "-" in text:
                drawn[text] = None
        return [self.question(text) for text in drawn]
