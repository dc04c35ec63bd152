"""Judge completions with functions of the user, TRL's reward functions included."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from lightning_sd.tasks.judges.process import JudgeLimits, JudgeProcess, Outcome
from lightning_sd.types import Question, Verdict

_OWN_FIELDS = ("prompts", "completions", "question", "answer", "reference", "attempt", "id")


class Judge(Protocol):
    """Judges the completions of a batch."""

    def judge(self, questions: Sequence[Question], completions: Sequence[str]) -> list[Verdict]:
        """Judge completions.

        Args:
            questions: The question of each completion.
            completions: Decoded completions.

        Returns:
            One verdict per completion, in order.
        """
        ...


class RewardJudge:
    """Judges completions with a function, in a worker process with a deadline.

    Two kinds of functions are accepted:

    - ``function(question, completion)`` returns a :class:`~lightning_sd.types.Verdict` or a number.
    - TRL's reward functions, ``function(prompts, completions, **columns) -> list[float]``. They are
      called with the whole batch. If that call fails or does not end, each completion is tried
      alone. They also get ``question``, ``answer``, ``reference``, ``attempt`` and ``id`` of the
      rows, and every column in ``extra_columns`` of the task, each as a list. A reward of None
      counts as 0.

    Args:
        function: The function, an instance with ``__call__``, or the import path of one.
        limits: Limits of the worker process. None uses those of the task.
        correct_at: Smallest reward at which a completion counts as correct in the metrics, for
            functions that return numbers.
        conversational: Whether a TRL function gets lists of messages, as TRL passes them for
            conversational data sets, or texts.

    Raises:
        TypeError: ``function`` is not callable, or takes neither kind of arguments.

    Example:
        >>> def prefer_short(prompts, completions, **kwargs):
        ...     return [1.0 / len(completion) for completion in completions]
        >>> judge = RewardJudge(prefer_short, JudgeLimits(seconds=None))
        >>> question = Question(id="1", text="Hi?", messages=({"role": "user", "content": "Hi?"},))
        >>> judge.judge([question], ["ja"])[0].reward
        0.5
    """

    def __init__(
        self,
        function: str | Callable[..., Any],
        limits: JudgeLimits | None = None,
        correct_at: float = 1.0,
        conversational: bool = False,
    ) -> None:
        self.function, self.limits = function, limits
        self.correct_at, self.conversational = correct_at, conversational
        if isinstance(function, str):
            function = import_function(function)
        if not callable(function):
            raise TypeError(f"judge={function!r}: it must be callable.")
        self.name = getattr(function, "__qualname__", type(function).__qualname__)
        parameters = inspect.signature(function).parameters
        self.takes_batch = "completions" in parameters
        self._names = tuple(parameters)
        self._required = _list_required(parameters)
        self._takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        if not self.takes_batch and not _takes_two(parameters):
            raise TypeError(
                f"judge={self.name}: it must take (question, completion), or (prompts, "
                "completions, **kwargs) as TRL's reward functions do."
            )
        call = call_batch if self.takes_batch else call_single
        self._process = JudgeProcess(partial(call, function), limits)

    def __call__(self, question: Question, completion: str) -> Verdict:
        """Judge one completion."""
        return self.judge([question], [completion])[0]

    def use_limits(self, limits: JudgeLimits) -> None:
        """Set the limits, unless the judge was made with its own."""
        self._process.limits = self.limits or limits

    def check_columns(self, columns: Sequence[str]) -> None:
        """Check that a TRL function can get all its required arguments.

        Args:
            columns: The columns that the questions hold in ``Question.extra``.

        Raises:
            ValueError: A required argument is not among them.
        """
        if not self.takes_batch:
            return
        missing = sorted(set(self._required) - {*columns, *_OWN_FIELDS})
        if missing:
            raise ValueError(
                f"judge={self.name}: it requires {missing}. Add the columns to extra_columns."
            )

    def judge(self, questions: Sequence[Question], completions: Sequence[str]) -> list[Verdict]:
        """Judge completions. See :class:`Judge`."""
        if not self.takes_batch:
            calls = list(zip(questions, completions, strict=True))
            return [self._read(outcome, i) for i, outcome in enumerate(self._process.run(calls))]
        if not questions:
            return []
        limits = self._process.limits
        whole = self._build_arguments(questions, completions)
        seconds = limits.seconds and min(limits.batch_seconds, limits.seconds * len(completions))
        [outcome] = self._process.run([whole], seconds=seconds)
        if outcome.status == "judged":
            rewards = _check_rewards(outcome.value, len(completions), self.name)
            return [self._read(Outcome(reward), i) for i, reward in enumerate(rewards)]
        if len(completions) == 1:
            return [self._read(outcome, 0)]
        # Only one completion may be at fault, so each is tried alone.
        pairs = zip(questions, completions, strict=True)
        alone = self._process.run([self._build_arguments([q], [c]) for q, c in pairs])
        return [self._read(_take_only(each, self.name), i) for i, each in enumerate(alone)]

    def close(self) -> None:
        """End the worker process."""
        self._process.close()

    def _build_arguments(
        self, questions: Sequence[Question], completions: Sequence[str]
    ) -> tuple[dict[str, Any]]:
        columns: dict[str, list[Any]] = {
            name: [question.extra.get(name) for question in questions]
            for name in {key: None for question in questions for key in question.extra}
        }
        for name in ("answer", "reference", "attempt", "id"):
            columns[name] = [getattr(question, name) for question in questions]
        columns["question"] = [question.text for question in questions]
        if self.conversational:
            columns["prompts"] = [list(question.messages) for question in questions]
            columns["completions"] = [[{"role": "assistant", "content": c}] for c in completions]
        else:
            columns["prompts"] = columns["question"]
            columns["completions"] = list(completions)
        if not self._takes_all:
            columns = {name: column for name, column in columns.items() if name in self._names}
        return (columns,)

    def _read(self, outcome: Outcome, index: int) -> Verdict:
        if outcome.status != "judged":
            return Verdict(0.0, False, status=outcome.status, reason=outcome.reason)
        value = 0.0 if outcome.value is None else outcome.value
        if isinstance(value, Mapping):
            return Verdict(**value)
        if not isinstance(value, (int, float)):
            raise TypeError(
                f"judge={self.name}: it returned {value!r} for completion {index}. Return a number "
                "or a Verdict."
            )
        if not math.isfinite(value):
            return Verdict(0.0, False, status="crashed", reason=f"the reward is {value}")
        return Verdict(reward=float(value), correct=value >= self.correct_at)


def import_function(path: str) -> Callable[..., Any]:
    """Import a function by its path.

    Args:
        path: Module and name, such as ``my_rewards.prefer_short``.

    Raises:
        ValueError: There is no such function.
    """
    module, _, name = path.rpartition(".")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"judge={path!r}: it is neither one of ('number', 'exact', 'math') nor the import path "
            f"of a function ({error})."
        ) from error
    return function


def call_single(function: Callable[..., Any], question: Question, completion: str) -> Any:
    """Call a function of one completion. It runs in the worker process."""
    return _make_plain(function(question, completion))


def call_batch(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call a function of a batch. It runs in the worker process."""
    rewards = function(**arguments)
    if hasattr(rewards, "tolist"):
        rewards = rewards.tolist()
    if not isinstance(rewards, (list, tuple)):
        return _make_plain(rewards)
    return [_make_plain(reward) for reward in rewards]


def _make_plain(value: Any) -> Any:
    """Return a verdict as a dictionary, and a number of any library as one of Python."""
    if isinstance(value, Verdict):
        return {name: getattr(value, name) for name in Verdict.__dataclass_fields__}
    if hasattr(value, "item"):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return f"{type(value).__name__} {value!r}"[:200]


def _check_rewards(rewards: Any, number: int, name: str) -> list[Any]:
    if not isinstance(rewards, list) or len(rewards) != number:
        size = f"{len(rewards)} rewards" if isinstance(rewards, list) else repr(rewards)
        raise TypeError(
            f"judge={name}: it returned {size} for {number} completions. Return a list with one "
            "number per completion."
        )
    return rewards


def _take_only(outcome: Outcome, name: str) -> Outcome:
    if outcome.status != "judged":
        return outcome
    return Outcome(_check_rewards(outcome.value, 1, name)[0])


def _list_required(parameters: Mapping[str, inspect.Parameter]) -> tuple[str, ...]:
    optional = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return tuple(
        name
        for name, p in parameters.items()
        if p.default is inspect.Parameter.empty and p.kind not in optional
    )


def _takes_two(parameters: Mapping[str, inspect.Parameter]) -> bool:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p for p in parameters.values() if p.kind in kinds]
    required = [p for p in positional if p.default is inspect.Parameter.empty]
    return len(required) <= 2 <= len(positional) or any(
        p.kind is p.VAR_POSITIONAL for p in parameters.values()
    )
