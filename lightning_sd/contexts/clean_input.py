"""The clean input as context: the teacher hears clean sounds where the student hears noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.rollout.transformers_sampler import TransformersSampler
from lightning_sd.types import Message, Question, Rollout, TeacherView


class CleanInput(TeacherContext):
    """Show the teacher the student's prompt with clean sounds or images (EchoDistill).

    ``question.extra["clean"]`` lists the clean parts in the order of the disturbed parts in
    ``question.messages``. A rollout has no teacher if its question has no clean parts.

    With ``teacher_text`` each question of a batch gets one more completion, which the teacher
    writes by greedy decoding from the clean prompt (``origin="teacher"``). A frozen teacher writes
    it once per question and run, and checkpoints hold the texts of rank 0; after a resume the other
    ranks write equal texts again. A teacher that changes writes a new text in each batch. Without
    ``teacher_text`` the teacher scores only the student's rollouts (the on-policy variant).

    Args:
        teacher_text: Add the teacher's own text to the rollouts of each question.
        max_new_tokens: Maximum length of the teacher's text, in tokens.
        max_prompt_tokens: Maximum length of the teacher's prompt, in tokens, sounds and images
            included. Nothing can be cut, so a longer prompt gives no teacher. Default: no limit.
        template_kwargs: Arguments of the chat template for the teacher's prompt only.

    Raises:
        ValueError: A limit below 1; or, in training, a question has more or fewer clean parts than
            disturbed ones.
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

    def has_evidence(self, question: Question) -> bool:
        """Return whether the question has clean parts."""
        return question.extra.get("clean") is not None

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """Return no fields, or None if the question has no clean parts."""
        return {} if self.has_evidence(rollout.question) else None

    def messages(self, rollout: Rollout, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """Return the student's prompt with the clean parts."""
        return insert_clean_parts(rollout.question)

    def views(self, rollouts: Sequence[Rollout]) -> list[TeacherView | None]:
        """Return one view per question, shared by its rollouts and the teacher's text."""
        views: dict[int, TeacherView | None] = {}
        for rollout in rollouts:
            if rollout.group not in views:
                views[rollout.group] = self.write_view(rollout, self.fields(rollout))
        return [views[rollout.group] for rollout in rollouts]

    def prepare_batch(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Add the teacher's text of each question that has a clean prompt."""
        if not self.teacher_text:
            return list(rollouts)
        first = {rollout.group: rollout for rollout in reversed(rollouts)}
        shown = [first[group] for group in sorted(first)]
        viewed = [r for r in shown if self.write_view(r, self.fields(r)) is not None]
        texts = self._write_texts([rollout.question for rollout in viewed])
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
            for rollout, (ids, finished) in zip(viewed, texts, strict=True)
        ]
        return [*rollouts, *added]

    def _write_texts(self, questions: Sequence[Question]) -> list[tuple[list[int], bool]]:
        """Return token ids of the teacher's text of each question, and whether it is finished."""
        if self.frozen_teacher_fingerprint() is None:
            self._texts = {}
        missing = {q.id: q for q in questions if q.id not in self._texts}
        if missing:
            prompts = [insert_clean_parts(question) for question in missing.values()]
            written = self.write(prompts, sampler=self.sampler, teacher=True)
            for name, completion in zip(missing, written, strict=True):
                self._texts[name] = (list(completion.ids), completion.finished)
        return [self._texts[question.id] for question in questions]

    def state_dict(self) -> dict[str, Any]:
        """Return the texts that the teacher has written."""
        return {"texts": dict(self._texts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the texts."""
        self._texts = {name: (list(ids), end) for name, (ids, end) in state_dict["texts"].items()}


def insert_clean_parts(question: Question) -> tuple[Message, ...]:
    """Return the question's messages with each sound or image replaced by its clean version.

    Raises:
        ValueError: The question has more or fewer clean parts than disturbed ones.

    Example:
        >>> noisy = {"type": "audio", "audio": "noisy.wav"}
        >>> clean = {"type": "audio", "audio": "clean.wav"}
        >>> turn = {"role": "user", "content": [noisy]}
        >>> question = Question("1", "Which digit?", (turn,), extra={"clean": [clean]})
        >>> insert_clean_parts(question)[0]["content"]
        [{'type': 'audio', 'audio': 'clean.wav'}]
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
            f"extra['clean'] has {len(clean)} parts; give one for each."
        )

    def replace_parts(content: Any) -> Any:
        if isinstance(content, str):
            return content
        return [part if part.get("type") == "text" else next(parts) for part in content]

    return tuple(
        Message(role=message["role"], content=replace_parts(message["content"]))
        for message in question.messages
    )
