"""RESD's context: what was learned from failures, and solutions that succeeded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from lightning.pytorch import LightningModule, Trainer

from lightning_sd.contexts.base import TeacherContext, fill
from lightning_sd.contexts.reflection.buffer import SolutionBuffer
from lightning_sd.contexts.reflection.concise import Concise
from lightning_sd.contexts.reflection.exchange import decided, gathered
from lightning_sd.contexts.reflection.playbook import Addition, Playbook
from lightning_sd.contexts.reflection.prompts import BLOCKS, TEACHER
from lightning_sd.contexts.reflection.wording import check_blocks_exist, checked_blocks
from lightning_sd.contexts.reflection.writing import Curator, Note, Reflector
from lightning_sd.rollout.base import Sampler
from lightning_sd.text.thinking import extract_response
from lightning_sd.types import Message, Rollout

ShowFeedback = Literal["without_solution", "always", "never"]


@dataclass(frozen=True)
class _Found:
    """What one rank brings to an update."""

    notes: tuple[Note | None, ...]
    """One a failed attempt."""
    solutions: tuple[tuple[str, str], ...]
    """Question ids and solutions that succeeded."""


class Reflection(TeacherContext):
    """Reflections, a playbook and a buffer of solutions (RESD, algorithm 1).

    Each training batch first shortens the playbook (CONCISE). Failed attempts are then reflected
    on, with the student's current weights and the playbook at hand; lessons are tagged, and new
    ones added. Attempts that succeeded go into the buffer of their question. The playbook is shared
    by all questions and by all ranks; the student never sees it.

    The teacher of a failed attempt sees the playbook, the attempt, its feedback, the reflection and
    a solution; that of one that succeeded, the playbook and a solution. A block without content is
    left out. The solution is the attempt itself if it succeeded (``own_success``), else the first
    sibling that did, else the newest in the buffer. Without a solution, feedback or reflection
    there is no teacher. With ``accumulate_grad_batches`` each micro-batch is an update.

    Args:
        reflector: Reflects on failures, such as ``LMReflector``; None: nobody does.
        curator: Makes lessons of reflections, such as ``LMCurator``; None: no playbook.
        concise: Keeps the playbook short. Default: ``prioritized``, every 4 updates, 200 lessons.
        threshold: An attempt with at least this reward has succeeded.
        own_success: Let the teacher of an attempt that succeeded see that attempt.
        show_feedback: ``without_solution``: the feedback stands in for a missing solution.
        buffered: Solutions kept a question; 0: no buffer.
        only_first_of: Of these blocks show only the first that has content, for models that cannot
            read several at once, such as the embedded solver; empty: show all.
        blocks: Wording of the blocks ``playbook``, ``trial``, ``feedback``, ``reflection`` and
            ``solution``, each with its field in braces. An empty wording hides a block; those that
            are not named keep ours.
        template: As of :class:`TeacherContext`, with a field for each block.
        max_prompt_tokens: Likewise.
        template_kwargs: Likewise.

    Raises:
        ValueError: A curator without a reflector, or an option or wording that cannot work.
    """

    template = TEACHER
    cut_fields: ClassVar[tuple[str, ...]] = (
        "trial",
        "playbook",
        "feedback",
        "solution",
        "reflection",
    )

    def __init__(
        self,
        reflector: Reflector | None = None,
        curator: Curator | None = None,
        concise: Concise | None = None,
        threshold: float = 1.0,
        own_success: bool = True,
        show_feedback: ShowFeedback = "without_solution",
        buffered: int = 1,
        only_first_of: Sequence[str] = (),
        blocks: dict[str, str] | None = None,
        template: str | None = None,
        max_prompt_tokens: int | None = None,
        template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(template, max_prompt_tokens, template_kwargs)
        if curator is not None and reflector is None:
            raise ValueError("curator without reflector: there is nothing to make lessons of.")
        if show_feedback not in get_args(ShowFeedback):
            raise ValueError(
                f"show_feedback={show_feedback!r}: choose one of {get_args(ShowFeedback)}."
            )
        self.blocks = checked_blocks({**BLOCKS, **(blocks or {})})
        check_blocks_exist("only_first_of", only_first_of)
        self.only_first_of = tuple(only_first_of)
        self.reflector, self.curator = reflector, curator
        self.concise = concise or Concise()
        self.threshold = threshold
        self.own_success, self.show_feedback = own_success, show_feedback
        self.buffered = buffered
        self.playbook = Playbook()
        self.buffer = SolutionBuffer(buffered)
        self._notes: dict[tuple[str, tuple[int, ...]], Note] = {}
        self._means: dict[str, float] = {}

    @property
    def required_evidence(self) -> frozenset[str]:  # type: ignore[override]
        """What the reflector does."""
        return frozenset() if self.reflector is None else self.reflector.required_evidence

    def prepare_batch(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Reflect, curate and remember; see the class."""
        playbook = self.concise(self.playbook)
        sampled = [rollout for rollout in rollouts if rollout.origin == "student"]
        failed = [rollout for rollout in sampled if not self._succeeded(rollout)]
        notes = self._reflected(failed, playbook)
        solved = [(r.question.id, extract_response(r.text)) for r in sampled if self._succeeded(r)]
        ranks = gathered(_Found(tuple(notes), tuple(solved)))
        asked = [note for found in ranks for note in found.notes]
        usable = [note for note in asked if note is not None]
        playbook = playbook.tagged([note.tags for note in usable])
        lessons = decided(lambda: self._lessons(usable, playbook))
        added = [addition for found in lessons for addition in found or ()]
        self.playbook = playbook.extended(added).advanced()
        for question, text in (pair for found in ranks for pair in found.solutions):
            self.buffer.add(question, text)
        self._notes = {
            _key(r): note for r, note in zip(failed, notes, strict=True) if note is not None
        }
        self._means = {
            "reflections": len(usable),
            "reflections_refused": len(asked) - len(usable),
            "curations_refused": sum(found is None for found in lessons),
            "playbook_items": len(self.playbook),
            "buffered_questions": len(self.buffer),
        }
        return list(rollouts)

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """The blocks' contents, empty ones too; None without solution, feedback or reflection."""
        solution = self._solution(rollout)
        note = self._notes.get(_key(rollout))
        failed = not self._succeeded(rollout)
        feedback = rollout.verdict.feedback if rollout.verdict and failed else None
        if self.show_feedback == "never" or (solution and self.show_feedback != "always"):
            feedback = None
        found = {
            "playbook": self.playbook.render(),
            "trial": extract_response(rollout.text) if failed else "",
            "feedback": feedback or "",
            "reflection": note.text if note else "",
            "solution": solution or "",
        }
        shown = {name: text if self.blocks[name] else "" for name, text in found.items()}
        if not (shown["solution"] or shown["feedback"] or shown["reflection"]):
            return None
        first = next((name for name in self.only_first_of if shown[name]), None)
        return {
            name: "" if name in self.only_first_of and name != first else text
            for name, text in shown.items()
        }

    def messages(self, rollout: Rollout, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """The student's prompt, its last turn reworded; blocks without content are left out."""
        blocks = {
            name: fill(self.blocks[name], {name: text}) if text else ""
            for name, text in fields.items()
        }
        return super().messages(rollout, blocks)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Log the playbook's size and what was refused; the same numbers on every rank."""
        pl_module.log_dict({f"train/{name}": value for name, value in self._means.items()})

    def state_dict(self) -> dict[str, Any]:
        """Playbook and buffer."""
        return {"playbook": self.playbook.state_dict(), "buffer": self.buffer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take both back."""
        self.playbook = Playbook.from_state(state_dict["playbook"])
        self.buffer.load_state_dict(state_dict["buffer"])

    def _succeeded(self, rollout: Rollout) -> bool:
        return rollout.verdict is not None and rollout.verdict.reward >= self.threshold

    def _solution(self, rollout: Rollout) -> str | None:
        own = extract_response(rollout.text)
        if self.own_success and self._succeeded(rollout):
            return own
        peers = (extract_response(r.text) for r in rollout.siblings if self._succeeded(r))
        buffered = self.buffer.newest(rollout.question.id, other_than=own)
        return next((text for text in peers if text), buffered)

    def _reflected(self, failed: Sequence[Rollout], playbook: Playbook) -> list[Note | None]:
        if self.reflector is None:
            return [None] * len(failed)
        return self.reflector.reflect(failed, playbook, self._texts)

    def _lessons(
        self, notes: Sequence[Note], playbook: Playbook
    ) -> list[tuple[Addition, ...] | None]:
        return [] if self.curator is None else self.curator.curate(notes, playbook, self._texts)

    def _texts(self, prompts: Sequence[Sequence[Message]], sampler: Sampler) -> list[str]:
        """Let the student write, and take its thinking out."""
        if not prompts:
            return []
        written = self.write(prompts, sampler=sampler)
        texts = [self.tokenizer.decode(text.ids, skip_special_tokens=True) for text in written]
        return [extract_response(text) for text in texts]


def _key(rollout: Rollout) -> tuple[str, tuple[int, ...]]:
    """The same question and the same tokens are the same attempt."""
    return rollout.question.id, rollout.ids
