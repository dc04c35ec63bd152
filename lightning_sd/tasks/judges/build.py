"""Build a judge from what a configuration says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from lightning_sd._serialize import build
from lightning_sd.tasks.judges.answer import AnswerJudge, AnswerMethod
from lightning_sd.tasks.judges.extract import DEFAULT_FORMATS
from lightning_sd.tasks.judges.process import JudgeLimits
from lightning_sd.tasks.judges.reward import Judge, RewardJudge
from lightning_sd.types import Question, Verdict

# The list comes first, because jsonargparse writes a value by the first type that takes it.
JudgeSpec = list[str | Callable[..., Any]] | str | Callable[..., Any]
"""A method of :class:`AnswerJudge`, an import path, a callable, or a list of them."""


class WeightedJudge:
    """Adds the rewards of several judges.

    Args:
        judges: The judges. The first one decides ``correct`` and ``answer``.
        weights: Factor of each judge's reward.

    Raises:
        ValueError: The numbers of judges and weights differ.
    """

    def __init__(self, judges: Sequence[Judge], weights: Sequence[float] | None = None) -> None:
        self.judges = list(judges)
        self.weights = list(weights) if weights is not None else [1.0] * len(self.judges)
        if not self.judges:
            raise ValueError("judge=[]: give at least one judge.")
        if len(self.weights) != len(self.judges):
            raise ValueError(
                f"judge_weights={self.weights}: give one weight for each of {len(self.judges)} "
                "judges."
            )

    def judge(self, questions: Sequence[Question], completions: Sequence[str]) -> list[Verdict]:
        """Judge completions. See :class:`Judge`."""
        parts = [judge.judge(questions, completions) for judge in self.judges]
        return [self._add(verdicts) for verdicts in zip(*parts, strict=True)]

    def _add(self, verdicts: Sequence[Verdict]) -> Verdict:
        first = verdicts[0]
        failed = next((v for v in verdicts if v.status in ("timed_out", "crashed")), first)
        feedback = [verdict.feedback for verdict in verdicts if verdict.feedback]
        return Verdict(
            reward=sum(w * v.reward for w, v in zip(self.weights, verdicts, strict=True)),
            correct=first.correct,
            answer=first.answer,
            feedback="\n".join(feedback) or None,
            status=failed.status,
            reason=failed.reason,
        )


def build_judge(
    spec: Any,
    *,
    weights: Sequence[float] | None = None,
    completion_pattern: str | Sequence[str] | None = None,
    limits: JudgeLimits,
    columns: Sequence[str] = (),
) -> Judge:
    """Build a judge.

    Args:
        spec: See ``JudgeSpec``. ``{class_path, init_args}`` as in YAML is accepted as well.
        weights: Factor of each judge's reward, if ``spec`` is a list.
        completion_pattern: Format of an answer, for answer judges. None uses the default formats.
        limits: Limits of judges that do not have their own.
        columns: Columns in ``Question.extra``, for the required arguments of TRL functions.

    Returns:
        The judge.

    Raises:
        TypeError: ``spec`` is not a judge.
        ValueError: ``spec`` names nothing, or the weights do not fit.
    """
    if isinstance(spec, (list, tuple)):
        parts = [
            build_judge(each, completion_pattern=completion_pattern, limits=limits, columns=columns)
            for each in spec
        ]
        return WeightedJudge(parts, weights)
    if weights is not None:
        raise ValueError(f"judge_weights={list(weights)}: set judge to a list of judges as well.")
    if isinstance(spec, Mapping):
        spec = build(spec, any_callable=True)
    if isinstance(spec, str) and "." not in spec:
        spec = AnswerJudge(_check_method(spec), completion_pattern or DEFAULT_FORMATS)
    elif not hasattr(spec, "judge"):
        spec = RewardJudge(spec)
    if isinstance(spec, (AnswerJudge, RewardJudge)):
        spec.use_limits(limits)
    if isinstance(spec, RewardJudge):
        spec.check_columns(columns)
    judge: Judge = spec
    return judge


def needs_answer(judge: Judge) -> bool:
    """Tell whether a judge compares completions with an answer."""
    parts = judge.judges if isinstance(judge, WeightedJudge) else [judge]
    return any(isinstance(part, AnswerJudge) for part in parts)


def _check_method(name: str) -> AnswerMethod:
    for method in get_args(AnswerMethod):
        if name == method:
            return method  # type: ignore[no-any-return]
    raise ValueError(
        f"judge={name!r}: choose one of {get_args(AnswerMethod)} or give the import path of a "
        "function, such as my_rewards.prefer_short."
    )
