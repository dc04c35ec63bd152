"""RESD's context: lessons from failed attempts, and correct solutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from lightning.pytorch import LightningModule, Trainer

from lightning_sd.contexts.base import TeacherContext, fill
from lightning_sd.contexts.reflection.base import Curator, Note, Reflector
from lightning_sd.contexts.reflection.buffer import SolutionBuffer
from lightning_sd.contexts.reflection.concise import Concise
from lightning_sd.contexts.reflection.playbook import Addition, Playbook
from lightning_sd.contexts.reflection.prompt_checks import check_block_names, check_blocks
from lightning_sd.contexts.reflection.prompts import BLOCKS, TEACHER
from lightning_sd.contexts.reflection.ranks import decide_on_first_rank, gather_from_ranks
from lightning_sd.rollout.base import Sampler
from lightning_sd.text.thinking import extract_response
from lightning_sd.types import Message, Rollout

ShowFeedback = Literal["without_solution", "always", "never"]


@dataclass(frozen=True)
class _RankResults:
    """What one rank contributes to an update."""

    notes: tuple[Note | None, ...]
    """One entry per failed attempt; None: no usable reflection."""
    solutions: tuple[tuple[str, str], ...]
    """Question ids and correct solutions."""


class Reflection(TeacherContext):
    """Show the teacher reflections, a playbook and a correct solution (RESD, algorithm 1).

    Each training batch is one update, also with ``accumulate_grad_batches``. The playbook is
    shortened (:class:`Concise`). The reflector reflects on the failed attempts and tags lessons,
    and the curator adds new ones. Correct attempts are stored in the buffer of their question. All
    questions and all ranks share one playbook; the student never sees it.

    The teacher of a failed attempt sees the playbook, the attempt, its feedback, the reflection and
    a solution. The teacher of a correct attempt sees the playbook and a solution. Empty blocks are
    left out. The solution is the attempt itself if it is correct (``own_success``), otherwise the
    first correct sibling, otherwise the newest solution in the buffer. A rollout has no teacher if
    it has no solution, no feedback and no reflection.

    Args:
        reflector: Reflects on failed attempts, such as ``LMReflector``. Default: no reflections.
        curator: Turns reflections into lessons, such as ``LMCurator``. Default: no playbook.
        concise: Shortens the playbook. Default: ``Concise()``.
        threshold: An attempt is correct if its reward is at least this.
        own_success: Show a correct attempt to its own teacher as the solution.
        show_feedback: When to show the feedback on a failed attempt. ``without_solution``: only if
            there is no solution. ``always``; ``never``.
        buffered: Solutions stored per question; 0: no buffer.
        only_first_of: Of these blocks show only the first that is not empty, for models that cannot
            read several at once, such as the embedded solver. Default: show all blocks.
        blocks: Wording of the blocks ``playbook``, ``trial``, ``feedback``, ``reflection`` and
            ``solution``, each with its field in braces. An empty wording hides a block. Blocks that
            are not given keep their default.
        template: Wording of the last user turn, with ``{question}`` and a field per block.
        max_prompt_tokens: Maximum length of the teacher's prompt, in tokens. The ends of the
            blocks are cut to fit, in the order trial, playbook, feedback, solution, reflection.
            Default: no limit.
        template_kwargs: Arguments of the chat template for the teacher's prompt only.

    Raises:
        ValueError: A curator without a reflector, an unknown option or block, a wording without its
            field, or as :class:`TeacherContext`.
    """

    reads_verdicts: ClassVar[bool] = True
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
            raise ValueError(
                f"curator={type(curator).__name__} without reflector: it turns reflections into "
                "lessons, so set reflector too."
            )
        if show_feedback not in get_args(ShowFeedback):
            raise ValueError(
                f"show_feedback={show_feedback!r}: choose one of {get_args(ShowFeedback)}."
            )
        self.blocks = {**BLOCKS, **(blocks or {})}
        check_blocks(self.blocks)
        check_block_names("only_first_of", only_first_of)
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
        """Evidence that the reflector needs."""
        return frozenset() if self.reflector is None else self.reflector.required_evidence

    def prepare_batch(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Update the playbook and the buffer; see the class."""
        rollouts = self.gather_missing(rollouts)
        playbook = self.concise(self.playbook)
        sampled = [rollout for rollout in rollouts if rollout.origin == "student"]
        failed = [rollout for rollout in sampled if not self._is_correct(rollout)]
        notes = self._reflect(failed, playbook)
        solved = [(r.question.id, extract_response(r.text)) for r in sampled if self._is_correct(r)]
        ranks = gather_from_ranks(_RankResults(tuple(notes), tuple(solved)))
        attempted = [note for results in ranks for note in results.notes]
        usable = [note for note in attempted if note is not None]
        playbook = playbook.count_tags([note.tags for note in usable])
        lessons = decide_on_first_rank(lambda: self._curate(usable, playbook))
        additions = [addition for lesson in lessons for addition in lesson or ()]
        self.playbook = playbook.add(additions).advance()
        for question, text in (pair for results in ranks for pair in results.solutions):
            self.buffer.add(question, text)
        self._notes = {
            _make_key(r): note for r, note in zip(failed, notes, strict=True) if note is not None
        }
        self._means = {
            "reflections": len(usable),
            "reflections_refused": len(attempted) - len(usable),
            "curations_refused": sum(lesson is None for lesson in lessons),
            "playbook_items": len(self.playbook),
            "buffered_questions": len(self.buffer),
        }
        return list(rollouts)

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """Return the content of each block, some of them empty.

        Returns:
            None if there is no solution, no feedback and no reflection.
        """
        solution = self._find_solution(rollout)
        note = self._notes.get(_make_key(rollout))
        failed = not self._is_correct(rollout)
        feedback = rollout.verdict.feedback if rollout.verdict and failed else None
        if self.show_feedback == "never" or (solution and self.show_feedback != "always"):
            feedback = None
        contents = {
            "playbook": self.playbook.render(),
            "trial": extract_response(rollout.text) if failed else "",
            "feedback": feedback or "",
            "reflection": note.text if note else "",
            "solution": solution or "",
        }
        shown = {name: text if self.blocks[name] else "" for name, text in contents.items()}
        if not (shown["solution"] or shown["feedback"] or shown["reflection"]):
            return None
        first = next((name for name in self.only_first_of if shown[name]), None)
        return {
            name: "" if name in self.only_first_of and name != first else text
            for name, text in shown.items()
        }

    def messages(self, rollout: Rollout, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """Return the student's prompt; its last turn holds the blocks that are not empty."""
        blocks = {
            name: fill(self.blocks[name], {name: text}) if text else ""
            for name, text in fields.items()
        }
        return super().messages(rollout, blocks)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Log counts of reflections and lessons; every rank logs the same numbers."""
        pl_module.log_dict({f"train/{name}": value for name, value in self._means.items()})

    def state_dict(self) -> dict[str, Any]:
        """Return the playbook and the buffer."""
        return {"playbook": self.playbook.state_dict(), "buffer": self.buffer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the playbook and the buffer."""
        self.playbook = Playbook.from_state(state_dict["playbook"])
        self.buffer.load_state_dict(state_dict["buffer"])

    def _is_correct(self, rollout: Rollout) -> bool:
        return rollout.verdict is not None and rollout.verdict.reward >= self.threshold

    def _find_solution(self, rollout: Rollout) -> str | None:
        own = extract_response(rollout.text)
        if self.own_success and self._is_correct(rollout):
            return own
        peers = (extract_response(r.text) for r in rollout.siblings if self._is_correct(r))
        buffered = self.buffer.get_newest(rollout.question.id, other_than=own)
        return next((text for text in peers if text), buffered)

    def _reflect(self, failed: Sequence[Rollout], playbook: Playbook) -> list[Note | None]:
        if self.reflector is None:
            return [None] * len(failed)
        return self.reflector.reflect(failed, playbook, self._write_texts)

    def _curate(
        self, notes: Sequence[Note], playbook: Playbook
    ) -> list[tuple[Addition, ...] | None]:
        if self.curator is None:
            return []
        return self.curator.curate(notes, playbook, self._write_texts)

    def _write_texts(self, prompts: Sequence[Sequence[Message]], sampler: Sampler) -> list[str]:
        """Let the student write one text per prompt, and remove its thinking."""
        if not prompts:
            return []
        written = self.write(prompts, sampler=sampler)
        texts = [self.tokenizer.decode(text.ids, skip_special_tokens=True) for text in written]
        return [extract_response(text) for text in texts]


def _make_key(rollout: Rollout) -> tuple[str, tuple[int, ...]]:
    """Identify an attempt: the same question and the same tokens are the same attempt."""
    return rollout.question.id, rollout.ids
