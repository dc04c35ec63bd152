"""The lab task: arithmetic modulo 10 in several steps, every step of which can be checked.

A question is a digit and a row of operations, worked from left to right: ``7+5*3-4*6``. A solver
writes each step as an equation in a notation of its own choice; the reference solution says the
same in a fixed other notation, so that a reference and a repaired attempt differ in their wording
and not in what they tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from lightning_sd.lab.explain import explain_attempt
from lightning_sd.lab.expressions import LabSplit, draw_questions, operations
from lightning_sd.lab.scribe import final_answer, reference_solution, repair_attempt
from lightning_sd.tasks.base import Split, Task
from lightning_sd.text.steps import parse_steps
from lightning_sd.types import Critique, Message, Question, Verdict

DEFAULT_INSTRUCTION = """\
Work out the expression from left to right, one operation a step, and keep only the last digit of \
each result (so 7+5 is 2, 3-7 is 6 and 4*6 is 4). There is no other order of operations. Write one \
equation a step, each starting from the result of the step before, and then the answer, in exactly \
this form, with nothing around it. For 7+5*3-4 the solution is
<step_1>7+5=2</step_1><step_2>2*3=6</step_2><step_3>6-4=2</step_3><answer>2</answer>"""
"""Explains the form to models that were not trained on it."""


class ArithmeticTask(Task):
    """Procedural questions with traces whose steps are checked exactly.

    Args:
        steps: Operations a question.
        train_size: Questions to train on.
        val_size: Questions to validate on.
        test_size: Questions to test on.
        seed: Decides which questions are drawn. The splits stay disjoint whatever it is.
        instruction: A system message that explains the form of a solution. The embedded solver
            needs none; for other models see ``DEFAULT_INSTRUCTION``.
        explain: Let verdicts on wrong answers say where they first go wrong (``Verdict.feedback``),
            as an environment that gives feedback would.

    Example:
        >>> task = ArithmeticTask(train_size=2, val_size=1, test_size=1)
        >>> question = task.questions("train")[0]
        >>> task.verify(question, f"<answer>{question.answer}</answer>").reward
        1.0
    """

    def __init__(
        self,
        steps: int = 4,
        train_size: int = 2000,
        val_size: int = 200,
        test_size: int = 200,
        seed: int = 0,
        instruction: str | None = None,
        explain: bool = False,
    ) -> None:
        sizes = {"train": train_size, "val": val_size, "test": test_size}
        for name, value in {"steps": steps, **{f"{k}_size": v for k, v in sizes.items()}}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")
        self.steps = steps
        self.train_size, self.val_size, self.test_size = train_size, val_size, test_size
        self.seed = seed
        self.instruction, self.explain = instruction, explain
        splits: tuple[Split, ...] = get_args(Split)
        self._questions = {
            split: [self.question(text) for text in self.draw(split, sizes[split])]
            for split in splits
        }

    def draw(self, split: LabSplit, size: int) -> Sequence[str]:
        """Draw the bare questions of a split, always the same; override it to be choosy."""
        return draw_questions(split, size, steps=self.steps, seed=self.seed)

    def question(self, text: str) -> Question:
        """Make the row for one bare question.

        Raises:
            ValueError: Not a question of this task.
        """
        messages: tuple[Message, ...] = ({"role": "user", "content": text},)
        if self.instruction:
            messages = ({"role": "system", "content": self.instruction}, *messages)
        return Question(
            id=f"arithmetic/{text}",
            text=text,
            messages=messages,
            reference=reference_solution(text),
            answer=str(operations(text)[-1].result),
        )

    def questions(self, split: Split) -> Sequence[Question]:
        """The questions of one split; see :class:`Task`."""
        if split not in self._questions:
            raise ValueError(f"split={split!r}: choose one of {get_args(Split)}.")
        return self._questions[split]

    def verify(self, question: Question, completion: str) -> Verdict:
        """Reward 1 for the right final answer, whatever the steps say."""
        answer = final_answer(parse_steps(completion))
        correct = answer is not None and answer == question.answer
        feedback = explain_attempt(question.text, completion) if self.explain else None
        return Verdict(reward=float(correct), correct=correct, answer=answer, feedback=feedback)

    def repair(self, question: Question, attempt: str) -> Critique:
        """Repair an attempt in its own words; see :func:`.scribe.repair_attempt`."""
        return repair_attempt(question.text, attempt)
