"""What travels through a training step, in the order in which it comes to be.

``Question`` -> ``Rollout`` (sampled) -> ``Rollout`` with evidence (``Verdict``, ``Critique``)
-> ``TeacherView``. All are frozen: a stage hands on a new object and never edits the last one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypedDict


class Message(TypedDict):
    """One chat message, as chat templates take it."""

    role: str
    content: Any
    """A text; or a list of parts in transformers' multimodal form, such as
    ``{"type": "audio", "audio": samples}`` and ``{"type": "text", "text": ...}``."""


@dataclass(frozen=True)
class Question:
    """One row of data: what is asked, and what is known about the answer."""

    id: str
    """Unique and stable between runs; names the row in logs, caches and predictions."""
    text: str
    """The bare question, which contexts and critics quote."""
    messages: tuple[Message, ...]
    """The student's whole prompt, ending with the user's turn that holds the question."""
    reference: str | None = None
    """A worked reference solution."""
    answer: str | None = None
    """The final answer alone."""
    attempt: str | None = None
    """An attempt stored with the data (offline mode)."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the task needs to judge an answer, or a context wants to show."""


class QuestionBatch:
    """The questions of one batch, which Lightning hands through untouched.

    A bare list of dataclasses would be taken apart by the precision plugins, which refuse frozen
    ones.
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = tuple(questions)

    def __iter__(self) -> Iterator[Question]:
        return iter(self.questions)

    def __len__(self) -> int:
        return len(self.questions)


@dataclass(frozen=True)
class Verdict:
    """What a task's verifier says of one completion."""

    reward: float
    """What policy gradients maximise, usually 0 or 1."""
    correct: bool
    """Whether the final answer is right; the metrics count this."""
    answer: str | None = None
    """The final answer that was read out of the completion, normalised; None: none was found."""
    feedback: str | None = None
    """The environment's own words about this completion (an error text), if it has any."""


@dataclass(frozen=True)
class Critique:
    """A critic's repaired version of one attempt (methods of the step-aligned paper, cases A-D)."""

    text: str
    """The repaired solution, in the attempt's own words; empty if refused."""
    case: str
    """A: right as it stands. B: right, a step was missing. C: cut off. D: wrong."""
    copied: tuple[int, ...] = ()
    """Numbers of the attempt's steps that stand in the critique unchanged, counted from 1."""
    changed: tuple[int, ...] = ()
    """Numbers of the steps that stand there in another form."""
    added: tuple[int, ...] = ()
    """Numbers of the steps that the attempt does not have."""
    refused: str | None = None
    """Why the critique must not be used; None: it may be."""
    tokens: int = 0
    """Tokens that the critic wrote."""
    seconds: float = 0.0
    """Its share of the critic's time."""


@dataclass(frozen=True)
class Rollout:
    """One completion of one question, and the evidence gathered about it."""

    question: Question
    ids: tuple[int, ...]
    """The completion's token ids, the end-of-turn token included if it was sampled."""
    text: str
    """The same, decoded without special tokens."""
    group: int
    """Which question of the batch this answers: rollouts of one group are siblings."""
    finished: bool = True
    """Whether the model ended the completion itself; False: cut off at the length limit."""
    logprobs: tuple[float, ...] | None = None
    """Log-probability of each id under the policy that sampled it (the old policy)."""
    verdict: Verdict | None = None
    critique: Critique | None = None
    siblings: tuple[Rollout, ...] = field(default=(), repr=False, compare=False)
    """The other rollouts of the group, with their evidence but without siblings of their own."""
    origin: Literal["student", "teacher"] = "student"
    """Who wrote it. The teacher's texts are distilled on, but have no advantage and no siblings."""


@dataclass(frozen=True)
class TeacherView:
    """What the self-teacher sees before it scores one rollout's completion."""

    messages: tuple[Message, ...]
    cut: Mapping[str, int] = field(default_factory=dict)
    """Tokens cut from each field so that the prompt fits its limit."""
    contrasts: tuple[tuple[Message, ...], ...] = ()
    """Further prompts that the first is compared with, such as RLCSD's wrong hints."""
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Handed to the chat template, such as Qwen3's ``enable_thinking``."""


class StepOutput:
    """What a step did, for callbacks; no dataclass, for the same reason as ``QuestionBatch``."""

    def __init__(
        self,
        rollouts: Sequence[Rollout],
        views: Sequence[TeacherView | None],
        advantages: Sequence[tuple[float, ...] | None],
    ) -> None:
        """Collect them; all are one entry a rollout.

        Args:
            rollouts: With their evidence.
            views: What the teacher saw; None: no teacher.
            advantages: log p_T(y_t) - log p_S(y_t) of each token; None where no teacher scored.
        """
        self.rollouts, self.views, self.advantages = (
            tuple(rollouts),
            tuple(views),
            tuple(advantages),
        )


def with_siblings(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Give each rollout the others of its group.

    Args:
        rollouts: A batch, any order.

    Returns:
        The same rollouts in the same order, ``siblings`` filled.
    """
    groups: dict[int, list[Rollout]] = {}
    for rollout in rollouts:
        groups.setdefault(rollout.group, []).append(replace(rollout, siblings=()))
    seen: dict[int, int] = {}
    result = []
    for rollout in rollouts:
        own = seen.get(rollout.group, 0)
        seen[rollout.group] = own + 1
        others = groups[rollout.group]
        result.append(replace(rollout, siblings=tuple(others[:own] + others[own + 1 :])))
    return result


def contrast(view: TeacherView | None, k: int) -> TeacherView | None:
    """The k-th contrasting prompt as a view of its own; None if there are fewer."""
    if view is None or k >= len(view.contrasts):
        return None
    return replace(view, messages=view.contrasts[k], contrasts=())
