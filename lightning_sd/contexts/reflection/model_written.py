"""Reflections and lessons that the student writes with its current parameters (RESD)."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_sd._serialize import build
from lightning_sd.contexts.base import fill
from lightning_sd.contexts.reflection.base import Curator, Note, Reflector, WriteTexts
from lightning_sd.contexts.reflection.json_output import (
    PARTS,
    find_json_object,
    read_additions,
    read_reflection_parts,
    read_tags,
)
from lightning_sd.contexts.reflection.playbook import SECTIONS, Addition, Playbook
from lightning_sd.contexts.reflection.prompt_checks import check_prompt
from lightning_sd.contexts.reflection.prompts import CURATE, REFLECT
from lightning_sd.rollout.base import Sampler
from lightning_sd.rollout.transformers_sampler import TransformersSampler
from lightning_sd.text.thinking import extract_response
from lightning_sd.types import Message, Rollout

NO_FEEDBACK = "The answer was judged to be wrong."
"""Feedback in the prompt if the environment gave none."""
NO_LESSONS = "(none yet)"
"""Playbook in the prompt if it is empty."""


class LMReflector(Reflector):
    """Let the student write, as JSON, where an attempt went wrong, why, and what is correct.

    Args:
        sampler: How the student samples. Default: up to 1024 tokens at temperature 1.
        prompt: Wording, with the fields ``{question}``, ``{attempt}``, ``{feedback}`` and
            ``{playbook}``; the last two are optional.

    Raises:
        ValueError: The prompt lacks the question or the attempt, or cannot be filled.
    """

    def __init__(self, sampler: Sampler | None = None, prompt: str = REFLECT) -> None:
        fields = ("question", "attempt", "feedback", "playbook")
        check_prompt(prompt, fields, required=("question", "attempt"))
        self.sampler: Sampler = build(sampler) or TransformersSampler(max_new_tokens=1024)
        self.prompt = prompt

    def reflect(
        self, rollouts: Sequence[Rollout], playbook: Playbook, write: WriteTexts
    ) -> list[Note | None]:
        """Return one note per rollout; None: the student wrote no JSON with a usable field."""
        lessons = playbook.render() or NO_LESSONS
        texts = write([self._fill_prompt(rollout, lessons) for rollout in rollouts], self.sampler)
        return [self._make_note(r, text) for r, text in zip(rollouts, texts, strict=True)]

    def _fill_prompt(self, rollout: Rollout, lessons: str) -> tuple[Message, ...]:
        feedback = rollout.verdict.feedback if rollout.verdict else None
        return _make_user_turn(
            self.prompt,
            question=rollout.question.text,
            attempt=extract_response(rollout.text),
            feedback=feedback or NO_FEEDBACK,
            playbook=lessons,
        )

    def _make_note(self, rollout: Rollout, text: str) -> Note | None:
        value = find_json_object(text, PARTS)
        parts = read_reflection_parts(value) if value else {}
        if value is None or not parts:
            return None
        lines = [f"{name.replace('_', ' ')}: {part}" for name, part in parts.items()]
        insight = parts.get("key_insight", "")
        return Note(rollout.question.text, "\n".join(lines), insight, read_tags(value))


class LMCurator(Curator):
    """Let the student write, as JSON, which lessons to add; one prompt per reflection.

    Args:
        sampler: How the student samples. Default: up to 1024 tokens at temperature 1.
        prompt: Wording, with the fields ``{question}``, ``{reflection}``, ``{playbook}`` and
            ``{sections}``; the first and the last are optional.

    Raises:
        ValueError: The prompt lacks the reflection or the playbook, or cannot be filled.
    """

    def __init__(self, sampler: Sampler | None = None, prompt: str = CURATE) -> None:
        fields = ("question", "reflection", "playbook", "sections")
        check_prompt(prompt, fields, required=("reflection", "playbook"))
        self.sampler: Sampler = build(sampler) or TransformersSampler(max_new_tokens=1024)
        self.prompt = prompt

    def curate(
        self, notes: Sequence[Note], playbook: Playbook, write: WriteTexts
    ) -> list[tuple[Addition, ...] | None]:
        """Return the lessons of each note; None: the student wrote no JSON with operations."""
        lessons, sections = playbook.render() or NO_LESSONS, "; ".join(SECTIONS)
        prompts = [
            _make_user_turn(
                self.prompt,
                question=note.question,
                reflection=note.text,
                playbook=lessons,
                sections=sections,
            )
            for note in notes
        ]
        texts = write(prompts, self.sampler)
        values = [find_json_object(text, ["operations"]) for text in texts]
        return [None if value is None else read_additions(value) for value in values]


def _make_user_turn(prompt: str, **fields: str) -> tuple[Message, ...]:
    return (Message(role="user", content=fill(prompt, fields)),)
