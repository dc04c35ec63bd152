"""Lightning's predict loop, and after each batch the teacher answers for itself."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.diagnostics.probe.records import Attempt, attempts_of
from lightning_sd.modules.evidence import EvidenceSource
from lightning_sd.modules.self_distill import SelfDistillModule
from lightning_sd.tasks.base import Task
from lightning_sd.types import Question, QuestionBatch, Rollout, StepOutput


class ProbeQuestions(LightningDataModule):
    """Some validation questions to be predicted, judged by the data module they come from.

    Args:
        source: Judges and criticises; already set up.
        questions: To be answered.
        batch_size: Questions a batch.
    """

    def __init__(
        self, source: EvidenceSource, questions: Sequence[Question], batch_size: int
    ) -> None:
        super().__init__()
        self.source, self.questions, self.batch_size = source, questions, batch_size

    def predict_dataloader(self) -> DataLoader[Question]:
        """The questions in order."""
        return DataLoader(
            self.questions,  # type: ignore[arg-type]
            batch_size=self.batch_size,
            collate_fn=QuestionBatch,
        )

    def check(self, needs: frozenset[str]) -> None:
        """Whether the source has the evidence."""
        self.source.check(needs)

    def evidence(self, rollouts: Sequence[Rollout], needs: frozenset[str]) -> list[Rollout]:
        """The source's."""
        return self.source.evidence(rollouts, needs)

    def counters(self) -> Mapping[str, float]:
        """The source's."""
        return self.source.counters()


@dataclass
class Costs:
    """Tokens and seconds, summed up."""

    student_tokens: int = 0
    teacher_tokens: int = 0
    critic_tokens: int = 0
    student_seconds: float = 0.0
    """Sampling, judging, critiques and advantages."""
    critic_seconds: float = 0.0
    """Of these, the critic's."""
    teacher_seconds: float = 0.0
    """The teacher's own answers, judged."""
    analysis_seconds: float = 0.0
    """Telling phrases, copies and places of the advantage."""


class Collector(Callback):
    """Keeps what the predict loop found of each attempt, and lets the teacher answer as well.

    Args:
        context: Of the module.
        phrases: That tell of a context.
        task: The questions'; None: unknown.
    """

    def __init__(
        self, context: TeacherContext, phrases: Sequence[str], task: Task | None = None
    ) -> None:
        self.context, self.phrases, self.task = context, tuple(phrases), task
        self.attempts: list[Attempt] = []
        self.costs = Costs()
        self._since = 0.0

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at the clock."""
        self._since = time.perf_counter()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Let the teacher answer, and keep both."""
        assert isinstance(pl_module, SelfDistillModule)
        asked = time.perf_counter()
        # Lightning wraps only the module's own step in the run's precision.
        with trainer.precision_plugin.predict_step_context():
            answers = teacher_answers(pl_module, outputs, batch_idx)
        answered = time.perf_counter()
        self.attempts += attempts_of(
            outputs, answers, pl_module, self.context, self.phrases, self.task
        )
        self.costs.student_seconds += asked - self._since
        self.costs.teacher_seconds += answered - asked
        self.costs.analysis_seconds += time.perf_counter() - answered
        self._count(trainer, outputs, answers)

    def _count(self, trainer: Any, output: StepOutput, answers: Sequence[Rollout | None]) -> None:
        counters = trainer.datamodule.counters()
        self.costs.critic_tokens += int(counters.get("critique_tokens", 0))
        self.costs.critic_seconds += counters.get("critique_seconds", 0.0)
        self.costs.student_tokens += sum(len(rollout.ids) for rollout in output.rollouts)
        self.costs.teacher_tokens += sum(len(answer.ids) for answer in answers if answer)


def teacher_answers(
    module: SelfDistillModule, output: StepOutput, index: int
) -> list[Rollout | None]:
    """The teacher's own answer to each attempt's question, from the context's prompt.

    Args:
        module: Has the teacher's weights and the sampler.
        output: Attempts and views.
        index: Number of the batch, which decides the random numbers.

    Returns:
        One judged answer an attempt, in order; None where there is no view.
    """
    chosen = [i for i, view in enumerate(output.views) if view is not None]
    if not chosen:
        return [None] * len(output.views)
    asked = [
        replace(output.rollouts[i].question, messages=view.messages)
        for i, view in enumerate(output.views)
        if view is not None
    ]
    with module.teacher.swap_in(module.student):
        answers = module.sample(asked, module.sampler, 1, "probe", index)
    # Judged as answers to the bare question: the context is nothing to the verifier.
    judged = module.gather_evidence(
        [
            replace(a, question=output.rollouts[i].question)
            for i, a in zip(chosen, answers, strict=True)
        ],
        frozenset(),
    )
    found = dict(zip(chosen, judged, strict=True))
    return [found.get(i) for i in range(len(output.views))]
