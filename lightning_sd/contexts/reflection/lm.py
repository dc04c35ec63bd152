"""Reflections and lessons that the student itself writes, with its current weights."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_sd._serialize import build
from lightning_sd.contexts.base import fill
from lightning_sd.contexts.reflection.parsing import (
    PARTS,
    additions_in,
    json_object,
    reflection_parts,
    tags_in,
)
from lightning_sd.contexts.reflection.playbook import SECTIONS, Addition, Playbook
from lightning_sd.contexts.reflection.prompts import CURATE, REFLECT
from lightning_sd.contexts.reflection.wording import check_wording
from lightning_sd.contexts.reflection.writing import Curator, Note, Reflector, Write
from lightning_sd.rollout.base import Sampler
from lightning_sd.rollout.transformers_sampler import TransformersSampler
from lightning_sd.text.thinking import extract_response
from lightning_sd.types import Message, Rollout

NO_FEEDBACK = "The answer was judged to be wrong."
NO_LESSONS = "(none yet)"


class LMReflector(Reflector):
    """The student says in JSON where an attempt went wrong, why, and what would have been right.

    Args:
        sampler: With what settings it writes. Default: up to 1024 tokens at temperature 1.
        prompt: Wording, with the fields ``{question}``, ``{attempt}``, ``{feedback}`` and
            ``{playbook}``.

    Raises:
        ValueError: A prompt that lacks the question or the attempt, or cannot be filled.
    """

    def __init__(self, sampler: Sampler | None = None, prompt: str = REFLECT) -> None:
        fields = ("question", "attempt", "feedback", "playbook")
        check_wording(prompt, fields, required=("question", "attempt"))
        self.sampler: Sampler = build(sampler) or TransformersSampler(max_new_tokens=1024)
        self.prompt = prompt

    def reflect(
        self, rollouts: Sequence[Rollout], playbook: Playbook, write: Write
    ) -> list[Note | None]:
        """See :class:`Reflector`; None where no JSON with a usable field was written."""
        lessons = playbook.render() or NO_LESSONS
        texts = write([self._prompt(rollout, lessons) for rollout in rollouts], self.sampler)
        return [self._note(r, text) for r, text in zip(rollouts, texts, strict=True)]

    def _prompt(self, rollout: Rollout, lessons: str) -> tuple[Message, ...]:
        feedback = rollout.verdict.feedback if rollout.verdict else None
        return user_turn(
            self.prompt,
            question=rollout.question.text,
            attempt=extract_response(rollout.text),
            feedback=feedback or NO_FEEDBACK,
            playbook=lessons,
        )

    def _note(self, rollout: Rollout, text: str) -> Note | None:
        value = json_object(text, PARTS)
        parts = reflection_parts(value) if value else {}
        if value is None or not parts:
            return None
        shown = "\n".join(f"{name.replace('_', ' ')}: {part}" for name, part in parts.items())
        insight = parts.get("key_insight", "")
        return Note(rollout.question.text, shown, insight, tags_in(value))


class LMCurator(Curator):
    """The student says in JSON which lessons to add, one prompt a reflection.

    Args:
        sampler: With what settings it writes. Default: up to 1024 tokens at temperature 1.
        prompt: Wording, with the fields ``{question}``, ``{reflection}``, ``{playbook}`` and
            ``{sections}``.

    Raises:
        ValueError: A prompt that lacks the reflection or the playbook, or cannot be filled.
    """

    def __init__(self, sampler: Sampler | None = None, prompt: str = CURATE) -> None:
        fields = ("question", "reflection", "playbook", "sections")
        check_wording(prompt, fields, required=("reflection", "playbook"))
        self.sampler: Sampler = build(sampler) or TransformersSampler(max_new_tokens=1024)
        self.prompt = prompt

    def curate(
        self, notes: Sequence[Note], playbook: Playbook, write: Write
    ) -> list[tuple[Addition, ...] | None]:
        """See :class:`Curator`; None where no JSON with operations was written."""
        lessons, sections = playbook.render() or NO_LESSONS, "; ".join(SECTIONS)
        prompts = [
            user_turn(
                self.prompt,
                question=note.question,
                reflection=note.text,
                playbook=lessons,
                sections=sections,
            )
            for note in notes
        ]
        found = [json_object(text, ["operations"]) for text in write(prompts, self.sampler)]
        return [None if value is None else additions_in(value) for value in found]


def user_turn(prompt: str, **fields: str) -> tuple[Message, ...]:
    """One user's turn."""
    return (Message(role="user", content=fill(prompt, fields)),)
