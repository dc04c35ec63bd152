"""The clean input as context: the teacher hears what the student hears in noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.rollout.transformers_sampler import TransformersSampler
from lightning_sd.types import Message, Question, Rollout, TeacherView


class CleanInput(TeacherContext):
    """The teacher sees the student's prompt with its sounds (or images) replaced by clean ones.

    The clean parts stand in ``question.extra["clean"]``, in the order in which the disturbed ones
    stand in ``question.messages``; a question without them has no teacher.

    With ``teacher_text`` (EchoDistill) each question of a training batch gets one more completion,
    which the teacher writes greedily from the clean prompt (``origin="teacher"``). A frozen
    teacher's text is written once a question: what it wrote stands in the checkpoint (of the first
    rank; others write theirs again, and the same). Other teachers write anew each time. Without
    ``teacher_text`` the teacher scores what the student sampled: the on-policy variant.

    Args:
        teacher_text: Whether the teacher's own text takes part.
        max_new_tokens: Longest text of the teacher.
        max_prompt_tokens: Longest prompt of the teacher, sounds included; a longer one is no
            teacher, as there is nothing to cut.
        template_kwargs: For the chat template of the teacher's prompt.

    Raises:
        ValueError: A limit below 1.
    """

    template = "{question}"

    def __init__(
        self,
        teacher_text: bool = True,
        max_new_tokens: int = 128,
        max_prompt_tokens: int | None = None,
        template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(None, max_prompt_tokens, template_kwargs)
        self.teacher_text = teacher_text
        self.sampler = TransformersSampler(max_new_tokens=max_new_tokens, temperature=0)
        self._texts: dict[str, tuple[list[int], bool]] = {}

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """Nothing beside the question, if there are clean parts."""
        return {} if rollout.question.extra.get("clean") is not None else None

    def messages(self, rollout: Rollout, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """The student's prompt with the clean parts."""
        return clean_messages(rollout.question)

    def views(self, rollouts: Sequence[Rollout]) -> list[TeacherView | None]:
        """One view a question: its rollouts, and the teacher's text, share it."""
        found: dict[int, TeacherView | None] = {}
        for rollout in rollouts:
            if rollout.group not in found:
                found[rollout.group] = self._write_view(rollout)
        return [found[rollout.group] for rollout in rollouts]

    def prepare_batch(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Add the teacher's text of each question that has a clean prompt."""
        if not self.teacher_text:
            return list(rollouts)
        first = {rollout.group: rollout for rollout in reversed(rollouts)}
        seen = [
            first[group] for group in sorted(first) if self._write_view(first[group]) is not None
        ]
        written = self._written([rollout.question for rollout in seen])
        added = [
            replace(
                rollout,
                ids=tuple(ids),
                text=self.tokenizer.decode(ids, skip_special_tokens=True),
                finished=finished,
                logprobs=None,
                verdict=None,
                critique=None,
                siblings=(),
                origin="teacher",
            )
            for rollout, (ids, finished) in zip(seen, written, strict=True)
        ]
        return [*rollouts, *added]

    def _written(self, questions: Sequence[Question]) -> list[tuple[list[int], bool]]:
        if self.frozen_teacher_fingerprint() is None:
            self._texts = {}
        missing = {q.id: q for q in questions if q.id not in self._texts}
        if missing:
            prompts = [clean_messages(question) for question in missing.values()]
            found = self.write(prompts, sampler=self.sampler, teacher=True)
            for name, completion in zip(missing, found, strict=True):
                self._texts[name] = (list(completion.ids), completion.finished)
        return [self._texts[question.id] for question in questions]

    def state_dict(self) -> dict[str, Any]:
        """The texts that the teacher has written."""
        return {"texts": dict(self._texts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""
        self._texts = {name: (list(ids), end) for name, (ids, end) in state_dict["texts"].items()}


def clean_messages(question: Question) -> tuple[Message, ...]:
    """The question's messages with its clean parts in the place of the disturbed ones.

    Raises:
        ValueError: There are more or fewer clean parts than disturbed ones.
    """
    clean = list(question.extra["clean"])
    parts: Iterator[Any] = iter(clean)
    disturbed = sum(
        part.get("type") != "text"
        for message in question.messages
        if not isinstance(message["content"], str)
        for part in message["content"]
    )
    if disturbed != len(clean):
        raise ValueError(
            f"Question {question.id!r}: its messages hold {disturbed} sounds or images, but "
            f"extra['clean'] has {len(clean)}; give one for each."
        )

    def renewed(content: Any) -> Any:
        if isinstance(content, str):
            return content
        return [part if part.get("type") == "text" else next(parts) for part in content]

    return tuple(
        Message(role=message["role"], content=renewed(message["content"]))
        for message in question.messages
    )
