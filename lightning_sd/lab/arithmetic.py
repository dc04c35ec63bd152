"""Multi-step arithmetic modulo 10, with an exact check of every step.

A question is an expression that is evaluated from left to right, such as ``7+5*3-4*6``. A solver
may write each step in any notation. The reference solution uses another, fixed notation, so that a
reference and a repaired attempt hold the same facts in different words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from lightning_sd.lab.explain import explain_attempt
from lightning_sd.lab.expressions import LabSplit, draw_questions, parse_operations
from lightning_sd.lab.step_repair import read_final_answer, repair_attempt, write_reference
from lightning_sd.tasks.base import Split, Task
from lightning_sd.text.steps import parse_steps
from lightning_sd.types import Critique, JudgeStatus, Message, Question, Verdict

DEFAULT_INSTRUCTION = """\
Work out the expression from left to right, one operation a step, and keep only the last digit of \
each result (so 7+5 is 2, 3-7 is 6 and 4*6 is 4). There is no other order of operations. Write one \
equation a step, each starting from the result of the step before, and then the answer, in exactly \
this form, with nothing around it. For 7+5*3-4 the solution is
<step_1>7+5=2</step_1><step_2>2*3=6</step_2><step_3>6-4=2</step_3><answer>2</answer>"""
"""System message that explains the format to models that were not trained on it."""


class ArithmeticTask(Task):
    """Generated arithmetic questions with an exact check of every step.

    Args:
        steps: Operations per question.
        train_size: Number of training questions.
        val_size: Number of validation questions.
        test_size: Number of test questions.
        seed: Selects the questions. The splits are disjoint for every seed.
        instruction: System message that explains the format of a solution. The embedded solver
            needs none. For other models, see ``DEFAULT_INSTRUCTION``.
        explain: Whether ``Verdict.feedback`` describes the first error of a wrong answer, as an
            environment with feedback would.

    Raises:
        ValueError: A size is below 1 or larger than the split allows.

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
        """Draw the expressions of one split. Override it to select expressions.

        Args:
            split: The split.
            size: Number of expressions.

        Returns:
            Distinct expressions, the same on every call.
        """
        return draw_questions(split, size, steps=self.steps, seed=self.seed)

    def question(self, text: str) -> Question:
        """Build the question of one expression.

        Args:
            text: The expression, such as ``7+5*3``.

        Returns:
            The question with its reference solution and answer.

        Raises:
            ValueError: ``text`` is not an expression of this task.
        """
        messages: tuple[Message, ...] = ({"role": "user", "content": text},)
        if self.instruction:
            messages = ({"role": "system", "content": self.instruction}, *messages)
        return Question(
            id=f"arithmetic/{text}",
            text=text,
            messages=messages,
            reference=write_reference(text),
            answer=str(parse_operations(text)[-1].result),
        )

    def questions(self, split: Split) -> Sequence[Question]:
        """Return the questions of one split. See :meth:`.Task.questions`."""
        if split not in self._questions:
            raise ValueError(f"split={split!r}: choose one of {get_args(Split)}.")
        return self._questions[split]

    def verify(self, question: Question, completion: str) -> Verdict:
        """Return reward 1 for the right final answer, regardless of the steps."""
        answer = read_final_answer(parse_steps(completion))
        correct = answer is not None and answer == question.answer
        feedback = explain_attempt(question.text, completion) if self.explain else None
        status: JudgeStatus = "no_answer" if answer is None else "judged"
        return Verdict(float(correct), correct, answer, feedback, status)

    def repair(self, question: Question, attempt: str) -> Critique:
        """Repair an attempt in its own notation. See :func:`.step_repair.repair_attempt`."""
        return repair_attempt(question.text, attempt)
