"""Open answers, judged by a rubric: descriptions of creatures, in free order and wording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from lightning_sd.contexts.rubrics.rubric import Criterion, Rubric
from lightning_sd.lab.creatures import (
    ASPECTS,
    Fact,
    all_questions,
    fact,
    facts_in,
    mistake,
    question_text,
)
from lightning_sd.tasks.base import Split, Task
from lightning_sd.tasks.instructions import prompt
from lightning_sd.types import Question, Verdict

WEIGHTS = dict(zip(ASPECTS, (5, 3, 2, 4), strict=True))
"""What a fact is worth, by its aspect."""
SAYS = "Says that "
_ENDS = {"train": 0.45, "val": 0.53, "test": 0.7}
"""Where each split ends in the list of all questions; the rest is for teaching a solver."""


class RubricTask(Task):
    """Tell of a creature three things, in the order asked; judged by code, by each one's rubric.

    A rubric has a criterion for each fact and a negative one for a common mistake. A fact counts if
    it is the first thing said of its aspect and comes after those before it in the rubric. The
    reward is the weight that was earned, the mistake's taken off, as a share of all positive
    weight, and never below 0; an answer is correct if that is 1. ``extra["rubric"]`` holds the
    rubric as plain data.

    Args:
        train_size: Questions to train on, at most 432.
        val_size: Questions to validate on, at most 76.
        test_size: Questions to test on, at most 163.
        instruction: A system message; None: none.

    Raises:
        ValueError: A size out of range.

    Example:
        >>> task = RubricTask(train_size=1, val_size=1, test_size=1)
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
        pairs = all_questions()
        sizes: dict[Split, int] = {"train": train_size, "val": val_size, "test": test_size}
        self._questions: dict[Split, list[Question]] = {}
        start = 0
        for split, size in sizes.items():
            end = int(_ENDS[split] * len(pairs))
            if not 1 <= size <= end - start:
                raise ValueError(f"{split}_size={size}: must be 1 to {end - start}.")
            chosen = pairs[start : start + size]
            self._questions[split] = [self._question(*pair) for pair in chosen]
            start = end

    def questions(self, split: Split) -> Sequence[Question]:
        """The questions of one split; see :class:`Task`."""
        if split not in self._questions:
            raise ValueError(f"split={split!r}: choose one of {get_args(Split)}.")
        return self._questions[split]

    def verify(self, question: Question, completion: str) -> Verdict:
        """The rewards of the class's description."""
        said = facts_in(completion)
        reward = rubric_reward(Rubric.of(question.extra["rubric"]), said)
        answer = " ".join(item.value for item in said) or None
        return Verdict(reward=reward, correct=reward == 1.0, answer=answer)

    def _question(self, thing: str, aspects: tuple[str, ...]) -> Question:
        text = question_text(thing, aspects)
        facts = [fact(thing, aspect) for aspect in aspects]
        rubric = creature_rubric(facts, mistake(thing, aspects[0]))
        return Question(
            id=f"creatures/{thing}/{'-'.join(aspects)}",
            text=text,
            messages=prompt(text, self.instruction),
            reference=" ".join(item.say() for item in facts),
            answer=" ".join(item.value for item in facts),
            extra={"rubric": rubric.plain()},
        )


def spare_questions() -> list[tuple[str, tuple[str, ...]]]:
    """Creatures and aspects of the questions that are in no split, to teach a solver with."""
    pairs = all_questions()
    return pairs[int(_ENDS["test"] * len(pairs)) :]


def creature_rubric(facts: Sequence[Fact], wrong: Fact) -> Rubric:
    """The rubric of a question: a criterion a fact, and one for what must not be said."""
    wanted = [Criterion(f.aspect, SAYS + _lower(f.say()), WEIGHTS[f.aspect]) for f in facts]
    return Rubric((*wanted, Criterion("error", SAYS + _lower(wrong.say()), -1)))


def rubric_reward(rubric: Rubric, said: Sequence[Fact]) -> float:
    """The share of the rubric's weight that an answer earns, 0 to 1.

    Args:
        rubric: Its descriptions say each one fact; those that the task cannot read never count.
        said: The facts of the answer, in its order.
    """
    first: dict[str, tuple[int, str]] = {}
    for place, item in enumerate(said):
        first.setdefault(item.aspect, (place, item.value))
    earned, total, reached = 0, 0, -1
    for criterion in rubric.criteria:
        stated = facts_in(_upper(criterion.description.removeprefix(SAYS)))
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
