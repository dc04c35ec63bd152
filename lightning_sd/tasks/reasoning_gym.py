"""Tasks of the reasoning-gym collection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, get_args

from lightning_sd.tasks.base import Split, Task
from lightning_sd.tasks.instructions import STEP_INSTRUCTION, build_prompt
from lightning_sd.tasks.judges.extract import extract_answer, restore_thinking
from lightning_sd.tasks.judges.process import JudgeLimits, JudgeProcess, Outcome
from lightning_sd.types import Question, Verdict

DEFAULT_SIZES = {"train": 1000, "val": 100, "test": 200}
_SPLITS: tuple[Split, ...] = ("test", "val", "train")
"""Order in which the splits are drawn. More training questions do not change the others."""
_DRAWS_PER_QUESTION = 20
"""Largest number of draws per wanted question."""


class ReasoningGymTask(Task):
    """One reasoning-gym data set: generated questions, judged by the data set's own scorer.

    The splits are drawn from one seeded stream without repeated questions. There are no worked
    solutions: ``Question.reference`` is None, and a context or critic that needs a reference uses
    the answer.

    Args:
        name: Name of the data set, such as ``chain_sum`` or ``leg_counting``.
        sizes: Number of questions in ``train``, ``val`` and ``test``. The default is 1000, 100 and
            200.
        seed: Selects the questions.
        config: Options of the data set, such as ``{"max_terms": 4}``.
        instruction: System message that explains the format of a solution. None adds no system
            message.
        judge_limits: Time and memory limits of the scorer, which runs in a worker process.

    Raises:
        ImportError: reasoning-gym is not installed.
        ValueError: A name, split or option is unknown, or there are too few different questions.
    """

    def __init__(
        self,
        name: str,
        sizes: dict[str, int] | None = None,
        seed: int = 0,
        config: dict[str, Any] | None = None,
        instruction: str | None = STEP_INSTRUCTION,
        judge_limits: JudgeLimits | None = None,
    ) -> None:
        self.name = name
        self.sizes = _fill_sizes(sizes or {})
        self.seed = seed
        self.config = config
        self.instruction, self.judge_limits = instruction, judge_limits
        self._scorer = JudgeProcess(AnswerScorer(name, seed, config or {}), judge_limits)
        self._source = _create(name, seed, config or {})
        self._questions = self._draw()

    def questions(self, split: Split) -> Sequence[Question]:
        """Return the questions of one split. See :meth:`.Task.questions`."""
        if split not in self._questions:
            raise ValueError(f"split={split!r}: choose one of {get_args(Split)}.")
        return self._questions[split]

    def verify(self, question: Question, completion: str) -> Verdict:
        """Score the final answer with the data set's scorer. A score of 1 counts as correct."""
        return self.verify_batch([question], [completion])[0]

    def verify_batch(
        self, questions: Sequence[Question], completions: Sequence[str]
    ) -> list[Verdict]:
        """Score the final answers of a batch. See :meth:`.Task.verify_batch`."""
        answers = [extract_answer(text) for text in map(restore_thinking, questions, completions)]
        asked = zip(questions, answers, strict=True)
        calls = [(a, dict(q.extra["entry"])) for q, a in asked if a is not None]
        outcomes = iter(self._scorer.run(calls))
        return [_build_verdict(a, None if a is None else next(outcomes)) for a in answers]

    def _draw(self) -> dict[Split, list[Question]]:
        stream = self._yield_distinct()
        drawn: dict[Split, list[Question]] = {}
        for split in _SPLITS:
            drawn[split] = list(islice(stream, self.sizes[split]))
            if len(drawn[split]) < self.sizes[split]:
                total = sum(map(len, drawn.values()))
                raise ValueError(
                    f"sizes={self.sizes}: {self.name!r} has only {total} different questions with "
                    f"config={self.config!r}. Lower the sizes or widen the config."
                )
        return drawn

    def _yield_distinct(self) -> Iterator[Question]:
        seen: set[str] = set()
        for index in range(_DRAWS_PER_QUESTION * sum(self.sizes.values())):
            entry = self._source[index]
            if entry["question"] not in seen:
                seen.add(entry["question"])
                yield self._build_question(index, entry)

    def _build_question(self, index: int, entry: Mapping[str, Any]) -> Question:
        return Question(
            id=f"{self.name}/{self.seed}/{index}",
            text=entry["question"],
            messages=build_prompt(entry["question"], self.instruction),
            answer=None if entry["answer"] is None else str(entry["answer"]),
            extra={"entry": entry},
        )


class AnswerScorer:
    """Scores answers with the scorer of a reasoning-gym data set, in a worker process.

    Args:
        name: Name of the data set.
        seed: Seed of the data set.
        config: Options of the data set.
    """

    def __init__(self, name: str, seed: int, config: Mapping[str, Any]) -> None:
        self.name, self.seed, self.config = name, seed, config
        self._source: Any = None

    def __call__(self, answer: str, entry: dict[str, Any]) -> float:
        """Return the score of one answer, from 0 to 1. An answer that does not parse has 0."""
        if self._source is None:
            self._source = _create(self.name, self.seed, self.config)
        try:
            return float(self._source.score_answer(answer, entry))
        except MemoryError:
            raise
        except Exception:  # some scorers raise on answers that they cannot parse
            return 0.0


def _build_verdict(answer: str | None, outcome: Outcome | None) -> Verdict:
    if outcome is None:
        return Verdict(reward=0.0, correct=False, status="no_answer")
    if outcome.status != "judged":
        return Verdict(0.0, False, status=outcome.status, reason=outcome.reason)
    return Verdict(reward=outcome.value, correct=outcome.value >= 1.0, answer=answer)


def _fill_sizes(sizes: Mapping[str, int]) -> dict[str, int]:
    for split, size in sizes.items():
        if split not in DEFAULT_SIZES:
            raise ValueError(f"sizes: there is no split {split!r}. Use {tuple(DEFAULT_SIZES)}.")
        if size < 1:
            raise ValueError(f"sizes[{split!r}]={size}: must be at least 1.")
    return {**DEFAULT_SIZES, **sizes}


def _create(name: str, seed: int, config: Mapping[str, Any]) -> Any:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise ImportError(
            "ReasoningGymTask needs reasoning-gym: pip install reasoning-gym (with a C compiler)"
        ) from error
    if name not in DATASETS:
        raise ValueError(
            f"name={name!r}: there is no such data set. Choose one of "
            f"{', '.join(sorted(DATASETS))}."
        )
    try:
        # The size only bounds iteration. Items depend on seed and index alone.
        return reasoning_gym.create_dataset(name, **{**config, "seed": seed, "size": 1})
    except (TypeError, AssertionError) as error:
        raise ValueError(f"config={dict(config)!r} does not fit {name!r}: {error}") from error
