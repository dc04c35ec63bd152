"""The data that travels through a training step, in the order in which it is made.

``Question`` -> ``Rollout`` (sampled) -> ``Rollout`` with evidence (``Verdict``, ``Critique``)
-> ``TeacherView``. All are frozen: each stage returns a new object and never changes its input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypedDict


class Message(TypedDict):
    """One chat message, in the format that chat templates take."""

    role: str
    content: Any
    """A string, or a list of parts in transformers' multimodal format, such as
    ``{"type": "audio", "audio": samples}`` and ``{"type": "text", "text": ...}``."""


@dataclass(frozen=True)
class Question:
    """One row of a dataset: a question and what is known about its answer."""

    id: str
    """Unique, and the same in every run; names the row in logs, caches and predictions."""
    text: str
    """The question alone, without instructions. Contexts and critics quote it."""
    messages: tuple[Message, ...]
    """The student's complete prompt; its last message is the user turn that asks the question."""
    reference: str | None = None
    """A worked reference solution."""
    answer: str | None = None
    """The final answer alone."""
    attempt: str | None = None
    """An attempt that is stored in the dataset (offline training)."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further values that the task needs to judge an answer, or that a context shows."""

    def to(self, *args: Any, **kwargs: Any) -> Question:
        """Return the question itself, so that Lightning moves a plain list of questions as it is.

        Without it Lightning copies frozen dataclasses field by field, which they refuse.
        """
        return self


class QuestionBatch:
    """The questions of one batch.

    Lightning passes this object through unchanged. It would copy a plain list of questions field by
    field when a ``16-true``, ``bf16-true`` or ``64-true`` precision plugin converts tensors, and
    frozen dataclasses refuse that. With other precisions a plain list works too.
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = tuple(questions)

    def __iter__(self) -> Iterator[Question]:
        return iter(self.questions)

    def __len__(self) -> int:
        return len(self.questions)


JudgeStatus = Literal["judged", "no_answer", "timed_out", "crashed"]
"""How the judgment of a completion ended."""


@dataclass(frozen=True)
class Verdict:
    """A task's judgment of one completion."""

    reward: float
    """The reward that policy gradients maximize, usually 0 or 1."""
    correct: bool
    """Whether the final answer is right; the metrics count this."""
    answer: str | None = None
    """The normalized final answer that was read from the completion; None if there was none."""
    feedback: str | None = None
    """Feedback of the environment on this completion, such as an error message."""
    status: JudgeStatus = "judged"
    """``no_answer``: the completion holds no final answer. ``timed_out`` and ``crashed``: the judge
    did not end, or failed, on this completion; the reward is 0 then."""
    reason: str | None = None
    """Why the judge timed out or crashed, such as ``MemoryError``. Teachers never see it."""


@dataclass(frozen=True)
class Critique:
    """A critic's repaired version of one attempt (cases A to D of the step-aligned method)."""

    text: str
    """The repaired solution, in the attempt's own words; empty if refused."""
    case: str
    """A: correct, returned unchanged. B: correct, but a step was missing. C: cut off. D: wrong."""
    copied: tuple[int, ...] = ()
    """Numbers of the attempt's steps that the critique repeats unchanged, counted from 1."""
    changed: tuple[int, ...] = ()
    """Numbers of the steps that the critique repeats in a changed form."""
    added: tuple[int, ...] = ()
    """Numbers of the steps that the attempt does not have."""
    refused: str | None = None
    """Why the critique must not be used; None if it may be used."""
    tokens: int = 0
    """Number of tokens that the critic generated."""
    seconds: float = 0.0
    """This critique's share of the critic's running time."""


@dataclass(frozen=True)
class Rollout:
    """One completion of one question, with the evidence gathered about it."""

    question: Question
    ids: tuple[int, ...]
    """The completion's token ids, including the end-of-turn token if it was sampled."""
    text: str
    """The completion, decoded without special tokens."""
    group: int
    """Index of the question in the batch. Rollouts with the same group are siblings."""
    finished: bool = True
    """Whether the model ended the completion; False if the length limit cut it off."""
    logprobs: tuple[float, ...] | None = None
    """Log-probability of each id under the policy that sampled it (the behavior policy)."""
    verdict: Verdict | None = None
    critique: Critique | None = None
    siblings: tuple[Rollout, ...] = field(default=(), repr=False, compare=False)
    """The other rollouts of the group, with their evidence but without their own siblings."""
    origin: Literal["student", "teacher"] = "student"
    """The model that wrote the text. Teacher texts are distilled from, but have no advantage and
    no siblings."""
    thinking_opened: bool = False
    """Whether the prompt ends with an opening ``<think>`` tag, so the text starts inside it."""


@dataclass(frozen=True)
class TeacherView:
    """The prompt under which the self-teacher scores one rollout's completion."""

    messages: tuple[Message, ...]
    cut: Mapping[str, int] = field(default_factory=dict)
    """Number of tokens cut from each field to fit the prompt's length limit."""
    contrasts: tuple[tuple[Message, ...], ...] = ()
    """Further prompts to compare the first one with, such as RLCSD's wrong hints."""
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the chat template, such as Qwen3's ``enable_thinking``."""


class StepOutput:
    """The result of a step, for callbacks.

    A plain class rather than a dataclass, for the same reason as :class:`QuestionBatch`.
    """

    def __init__(
        self,
        rollouts: Sequence[Rollout],
        views: Sequence[TeacherView | None],
        advantages: Sequence[tuple[float, ...] | None],
    ) -> None:
        """Store the results; all three arguments have one entry per rollout.

        Args:
            rollouts: With their evidence.
            views: The teacher's view of each rollout, or None if it has no teacher.
            advantages: ``log p_T(y_t) - log p_S(y_t)`` of each token, or None where no teacher
                scored the rollout.
        """
        self.rollouts = tuple(rollouts)
        self.views = tuple(views)
        self.advantages = tuple(advantages)


def link_siblings(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Set each rollout's ``siblings`` to the other rollouts of its group.

    Args:
        rollouts: A batch, in any order.

    Returns:
        The same rollouts in the same order, with ``siblings`` filled.
    """
    groups: dict[int, list[Rollout]] = {}
    for rollout in rollouts:
        groups.setdefault(rollout.group, []).append(replace(rollout, siblings=()))
    taken: dict[int, int] = {}
    result = []
    for rollout in rollouts:
        own = taken.get(rollout.group, 0)
        taken[rollout.group] = own + 1
        members = groups[rollout.group]
        result.append(replace(rollout, siblings=tuple(members[:own] + members[own + 1 :])))
    return result


def select_contrast(view: TeacherView | None, k: int) -> TeacherView | None:
    """Return the view's ``k``-th contrasting prompt as a view; None if it has fewer."""
    if view is None or k >= len(view.contrasts):
        return None
    return replace(view, messages=view.contrasts[k], contrasts=())


class RunStoppedError(RuntimeError):
    """Ends a run that is not worth going on with; its message says why and what to change.

    The command line prints the message without a traceback and exits with status 1.
    """
