"""A module that hosts a teacher context: it writes texts for it and asks it for views."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.models import ModelSource
from lightning_sd.models.fingerprint import fingerprint_module
from lightning_sd.models.sharding import gather_parameters, is_sharded
from lightning_sd.modules.answering import AnsweringModule
from lightning_sd.modules.memory import sample_within_memory
from lightning_sd.modules.shared_work import SharedWork
from lightning_sd.rollout import Completion, Sampler
from lightning_sd.teachers import TeacherWeights, help_score_both
from lightning_sd.types import Message, Rollout, TeacherView


class HostingModule(AnsweringModule):
    """A student with a teacher and a teacher context.

    It is a :class:`~lightning_sd.contexts.ContextHost`. The context is a callback and sets
    ``teacher_context`` itself.

    Args:
        model: A model source, or the name of a pretrained model.
        teacher: Which parameters the teacher has.
        eval_sampler: Draws answers in validation and test.
        eval_samples: Answers per question in validation and test.
        **settings: Further arguments of :class:`~lightning_sd.modules.answering.AnsweringModule`.
    """

    def __init__(
        self,
        model: ModelSource | str,
        teacher: TeacherWeights,
        eval_sampler: Sampler,
        eval_samples: int,
        **settings: Any,
    ) -> None:
        super().__init__(model, eval_sampler, eval_samples, **settings)
        self.teacher = teacher
        self.teacher_context: TeacherContext | None = None
        self._teacher_fingerprint: str | None = None

    def on_student_ready(self) -> None:
        """Prepare what a rank does while others write or answer."""
        helpers: dict[str, Callable[[], object]] = {
            "student": partial(self._help_write, teacher=False),
            "teacher": partial(self._help_write, teacher=True),
            "advantages": partial(help_score_both, self.teacher, self.student),
            "fingerprint": self._store_teacher_fingerprint,
        }
        self.shared_work = SharedWork(helpers, sharded=is_sharded(self.student))

    @property
    def required_evidence(self) -> frozenset[str]:
        """Evidence that the context asks for in addition to the verdicts."""
        context = self.teacher_context
        return frozenset() if context is None else context.required_evidence

    def prepare_context(self, rollouts: list[Rollout]) -> list[Rollout]:
        """Let the context update its memory, write texts, and add completions."""
        context = self.teacher_context
        return rollouts if context is None else context.prepare_batch(rollouts)

    def write_views(self, rollouts: Sequence[Rollout]) -> list[TeacherView | None]:
        """Let the context write what the teacher sees of each rollout."""
        context = self.teacher_context
        return [None] * len(rollouts) if context is None else context.views(rollouts)

    @torch.no_grad()
    def write(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        sampler: Sampler,
        teacher: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[Completion]:
        """Generate one text per prompt, for contexts that need text that the data do not hold.

        Args:
            prompts: Chat messages, each ending with a user turn.
            sampler: How to sample. Prompts of one training batch draw the same random numbers in
                each call, so a resumed run writes what the unbroken run wrote.
            teacher: Use the teacher's parameters instead of the student's.
            template_kwargs: Arguments of the chat template. Default: the student's.
        """
        encoded = [self.encode(messages, template_kwargs) for messages in prompts]
        trainer = self.trainer
        index = (
            trainer.predict_loop.batch_progress.current.ready
            if trainer.predicting
            else trainer.fit_loop.total_batch_idx
        )

        def sample() -> list[Completion]:
            with self.gather_writer(teacher=teacher):
                return sample_within_memory(
                    sampler,
                    self.student,
                    encoded,
                    samples=1,
                    stop_ids=self.stop_ids,
                    make_generator=lambda part: self.make_generator("write" + part, index),
                    limits=self.memory_limits,
                )

        return self.shared_work.run("teacher" if teacher else "student", sample)

    @contextmanager
    def gather_writer(self, *, teacher: bool) -> Iterator[None]:
        """Gather the student, with the teacher's parameters if wanted; every rank must enter."""
        swap = self.teacher.swap_in(self.student) if teacher else nullcontext()
        with swap, gather_parameters(self.student):
            yield

    def frozen_teacher_fingerprint(self) -> str | None:
        """Identify the teacher's parameters if they never change; None if they may."""
        if not self.teacher.writes_frozen:
            return None
        if self._teacher_fingerprint is None:
            self.shared_work.run("fingerprint", self._store_teacher_fingerprint)
        return self._teacher_fingerprint

    def _store_teacher_fingerprint(self) -> None:
        with self.teacher.swap_in(self.student):
            self._teacher_fingerprint = fingerprint_module(self.student)

    def _help_write(self, *, teacher: bool) -> None:
        with self.gather_writer(teacher=teacher):
            pass
