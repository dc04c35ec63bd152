"""Descriptions of creatures, judged by a rubric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from lightning_sd.contexts.rubrics.rubric import Criterion, Rubric
from lightning_sd.lab.creature_facts import (
    ASPECTS,
    Fact,
    get_fact,
    get_mistake,
    list_questions,
    read_facts,
    write_question,
)
from lightning_sd.tasks.base import Split, Task
from lightning_sd.tasks.instructions import build_prompt
from lightning_sd.types import JudgeStatus, Question, Verdict

WEIGHTS = dict(zip(ASPECTS, (5, 3, 2, 4), strict=True))
"""Weight of a fact in the rubric, by its aspect."""
SAYS = "Says that "
"""Beginning of every criterion."""
_ENDS = {"train": 0.45, "val": 0.53, "test": 0.7}
"""End of each split as a share of all questions. The rest is reserved for training a solver."""


class CreatureTask(Task):
    """Questions that ask for three facts about a creature, judged by code with a rubric.

    A rubric has one criterion per fact and a negative criterion for a common mistake. A fact earns
    its weight if it is the first statement about its aspect and follows the facts that precede it
    in the rubric. The reward is the sum of the earned weights, minus 1 for the mistake, divided
    by the sum of the positive weights, and at least 0. An answer is correct if its reward is 1.
    ``Question.extra["rubric"]`` holds the rubric as plain data.

    Args:
        train_size: Number of training questions, at most 432.
        val_size: Number of validation questions, at most 76.
        test_size: Number of test questions, at most 163.
        instruction: System message. None adds no system message.

    Raises:
        ValueError: A size is out of range.

    Example:
        >>> task = CreatureTask(train_size=1, val_size=1, test_size=1)
        >>> question = task.questions("train")[0]
        >>> task.verify(question, question.reference).reward
        1.0
    """

    def __init__(
        self,
        train_size: int = 400,
        val_size: int = 64,
        test_size: int = 128,
        instruction: str | None = None,
    ) -> None:
        self.train_size, self.val_size, self.test_size = train_size, val_size, test_size
        self.instruction = instruction
        pairs = list_questions()
        sizes: dict[Split, int] = {"train": train_size, "val": val_size, "test": test_size}
        self._questions: dict[Split, list[Question]] = {}
        start = 0
        for split, size in sizes.items():
            end = int(_ENDS[split] * len(pairs))
            if not 1 <= size <= end - start:
                raise ValueError(f"{split}_size={size}: must be 1 to {end - start}.")
            chosen = pairs[start : start + size]
            self._questions[split] = [self._build_question(*pair) for pair in chosen]
            start = end

    def questions(self, split: Split) -> Sequence[Question]:
        """Return the questions of one split. See :meth:`.Task.questions`."""
        if split not in self._questions:
            raise ValueError(f"split={split!r}: choose one of {get_args(Split)}.")
        return self._questions[split]

    def verify(self, question: Question, completion: str) -> Verdict:
        """Score the completion with the rubric of the question. See the class."""
        facts = read_facts(completion)
        reward = score_rubric(Rubric.from_list(question.extra["rubric"]), facts)
        answer = " ".join(fact.value for fact in facts) or None
        status: JudgeStatus = "no_answer" if answer is None else "judged"
        return Verdict(reward, correct=reward == 1.0, answer=answer, status=status)

    def _build_question(self, thing: str, aspects: tuple[str, ...]) -> Question:
        text = write_question(thing, aspects)
        facts = [get_fact(thing, aspect) for aspect in aspects]
        rubric = build_creature_rubric(facts, get_mistake(thing, aspects[0]))
        return Question(
            id=f"creatures/{thing}/{'-'.join(aspects)}",
            text=text,
            messages=build_prompt(text, self.instruction),
            reference=" ".join(fact.write() for fact in facts),
            answer=" ".join(fact.value for fact in facts),
            extra={"rubric": rubric.to_list()},
        )


def list_spare_questions() -> list[tuple[str, tuple[str, ...]]]:
    """List the creatures and aspects of questions outside all splits, for training a solver."""
    pairs = list_questions()
    return pairs[int(_ENDS["test"] * len(pairs)) :]


def build_creature_rubric(facts: Sequence[Fact], wrong: Fact) -> Rubric:
    """Build a rubric with one criterion per fact and a negative one for a mistake.

    Args:
        facts: The wanted facts, in the wanted order.
        wrong: The mistake.

    Returns:
        The rubric.
    """
    wanted = [Criterion(f.aspect, SAYS + _lower(f.write()), WEIGHTS[f.aspect]) for f in facts]
    return Rubric((*wanted, Criterion("error", SAYS + _lower(wrong.write()), -1)))


def score_rubric(rubric: Rubric, said: Sequence[Fact]) -> float:
    """Score an answer with a rubric.

    Args:
        rubric: Each criterion describes one fact. A criterion that the task cannot read earns
            nothing.
        said: The facts of the answer, in its order.

    Returns:
        The share of the positive weight that the answer earns, from 0 to 1.
    """
    first: dict[str, tuple[int, str]] = {}
    for place, fact in enumerate(said):
        first.setdefault(fact.aspect, (place, fact.value))
    earned, total, reached = 0, 0, -1
    for criterion in rubric.criteria:
        stated = read_facts(_upper(criterion.description.removeprefix(SAYS)))
        if criterion.weight < 0:
            earned += criterion.weight * bool(set(stated) & set(said))
            continue
        total += criterion.weight
        place, value = first.get(stated[0].aspect, (-1, "")) if stated else (-1, "")
        if place > reached and value == stated[0].value:
            earned, reached = earned + criterion.weight, place
    return max(earned, 0) / total if total else 0.0


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
