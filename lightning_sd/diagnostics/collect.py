"""Sample rollouts of some questions as training does, and process them batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Generic, Literal, TypeVar

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch.utils.data import DataLoader

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.modules.evidence import EvidenceSource
from lightning_sd.modules.self_distill import SelfDistillModule
from lightning_sd.types import Question, QuestionBatch, Rollout, StepOutput

Record = TypeVar("Record")
Process = Callable[[SelfDistillModule, StepOutput, int], Sequence[Record]]
"""Turns one batch of rollouts, given the module and the batch's index, into records."""
HeldOutSplit = Literal["val", "test"]

_BATCHES = 16
"""Minimum number of batches, so that the progress bar moves."""


class _Collector(Callback, Generic[Record]):
    """Process each batch of the predict loop and keep the records.

    Args:
        process: Called with the module, the predicted batch and its index; returns records.
    """

    def __init__(self, process: Process[Record]) -> None:
        self.process = process
        self.records: list[Record] = []
        self.predict_seconds = 0.0
        """Time in the predict step: sampling, evidence and scoring."""
        self.process_seconds = 0.0
        """Time in ``process``."""
        self._start = 0.0

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Process the batch."""
        assert isinstance(pl_module, SelfDistillModule)
        predicted = time.perf_counter()
        # Lightning wraps only the module's own step in the precision of the run.
        with trainer.precision_plugin.predict_step_context():
            self.records += self.process(pl_module, outputs, batch_idx)
        self.predict_seconds += predicted - self._start
        self.process_seconds += time.perf_counter() - predicted


class _QuestionSubset(LightningDataModule):
    """Some questions of another data module, which also judges the answers.

    Args:
        source: The other data module, already set up.
        questions: The questions to predict, in order.
        batch_size: Questions per batch.
    """

    def __init__(
        self, source: EvidenceSource, questions: Sequence[Question], batch_size: int
    ) -> None:
        super().__init__()
        self.source, self.questions, self.batch_size = source, questions, batch_size

    def predict_dataloader(self) -> DataLoader[Question]:
        """Return the questions in order."""
        return DataLoader(
            self.questions,  # type: ignore[arg-type]
            batch_size=self.batch_size,
            collate_fn=QuestionBatch,
        )

    def check(self, needs: frozenset[str]) -> None:
        """Raise if the source cannot give the evidence."""
        self.source.check(needs)

    def evidence(self, rollouts: Sequence[Rollout], needs: frozenset[str]) -> list[Rollout]:
        """Let the source judge the rollouts."""
        return self.source.evidence(rollouts, needs)

    def counters(self) -> Mapping[str, float | tuple[float, float]]:
        """Return the counters of the source."""
        return self.source.counters()


def build_trainer() -> Trainer:
    """Build a trainer for one process that writes no logs and no checkpoints."""
    return Trainer(devices=1, logger=False, enable_checkpointing=False, enable_model_summary=False)


def check_run(
    verb: str, trainer: Any, module: object, data: object, *, questions: int, samples: int
) -> EvidenceSource:
    """Refuse what cannot be sampled and judged, before a model is loaded.

    Args:
        verb: Name of the caller, for error messages.
        trainer: Must run in one process.
        module: Must be a ``SelfDistillModule``.
        data: Must be an :class:`~lightning_sd.modules.evidence.EvidenceSource`.
        questions: Must be at least 1.
        samples: Must be at least 1.

    Returns:
        The data module.

    Raises:
        TypeError: The module or the data module has the wrong type.
        ValueError: A number is out of range, or the trainer has several processes.
    """
    if not isinstance(module, SelfDistillModule):
        raise TypeError(f"{verb} needs a SelfDistillModule; model is {type(module).__name__}.")
    if not isinstance(data, EvidenceSource):
        raise TypeError(
            f"{verb} needs a data module that judges answers, such as CritiqueDataModule; data is "
            f"{type(data).__name__}."
        )
    for name, value in {"questions": questions, "samples": samples}.items():
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1.")
    if trainer.world_size > 1:
        raise ValueError(
            f"{verb} runs in one process, not in {trainer.world_size}: set trainer.devices=1 and "
            "trainer.num_nodes=1."
        )
    return data


def find_context(trainer: Any, module: SelfDistillModule) -> TeacherContext | None:
    """Return the teacher context among the trainer's callbacks, or the module's own."""
    attached = [c for c in trainer.callbacks if isinstance(c, TeacherContext)]
    return attached[0] if attached else module.teacher_context


def take_questions(
    data: LightningDataModule, split: HeldOutSplit, number: int
) -> tuple[list[Question], int]:
    """Take the first questions of a split.

    Args:
        data: The data module.
        split: ``val`` or ``test``.
        number: Maximum number of questions.

    Returns:
        The questions, and the size of the split's largest batch.

    Raises:
        ValueError: The split has no questions.
    """
    data.prepare_data()
    data.setup("validate" if split == "val" else "test")
    chosen: list[Question] = []
    largest = 0
    for batch in data.val_dataloader() if split == "val" else data.test_dataloader():
        chosen += islice(batch, number - len(chosen))
        largest = max(largest, len(batch))
        if len(chosen) == number:
            break
    if not chosen:
        raise ValueError(
            f"split={split}: the data module has no such questions; give the task some "
            f"({split}_size, {split}_fraction, or a {split} split of the data set)."
        )
    return chosen, largest


def collect_records(
    trainer: Trainer,
    module: SelfDistillModule,
    data: LightningDataModule,
    process: Process[Record],
    *,
    split: HeldOutSplit,
    questions: int,
    samples: int,
    context: TeacherContext | None,
    extra_evidence: frozenset[str] = frozenset(),
    ckpt_path: str | None = None,
) -> _Collector[Record]:
    """Let the student answer questions with the training sampler, and process the rollouts.

    Args:
        trainer: Runs its predict loop. Its prediction writers are left out, so that no file of the
            user is overwritten.
        module: The student and its teacher.
        data: Gives the questions and judges the answers.
        process: Turns each batch of rollouts into records.
        split: ``val`` or ``test``.
        questions: Maximum number of questions.
        samples: Rollouts per question.
        context: The module's teacher context during the run; None: no teacher.
        extra_evidence: Evidence to gather in addition to what the context requires.
        ckpt_path: Checkpoint of the student. Default: the parameters of its model source.

    Returns:
        The collector, with the records and the seconds.

    Raises:
        ValueError: There are no questions or no batches.
    """
    chosen, largest = take_questions(data, split, questions)
    # A batch that evaluation can sample fits in memory here as well.
    fits = largest * module.eval_samples // samples
    size = max(1, min(fits, -(-len(chosen) // _BATCHES)))
    assert isinstance(data, EvidenceSource)  # `check_run` has checked it
    subset = _QuestionSubset(data, chosen, size)
    collector = _Collector(process)
    with (
        _sample_as_training(module, samples, extra_evidence),
        _replace_callbacks(trainer, module, context, collector),
    ):
        trainer.predict(module, datamodule=subset, ckpt_path=ckpt_path, return_predictions=False)
    if not collector.records:
        raise ValueError("trainer.limit_predict_batches=0: no batch was sampled; raise it.")
    return collector


@contextmanager
def _sample_as_training(
    module: SelfDistillModule, samples: int, extra_evidence: frozenset[str]
) -> Iterator[None]:
    """Let ``predict`` use the training sampler: the rollouts are those that would be trained on."""
    before = module.eval_sampler, module.eval_samples, module.extra_evidence
    module.eval_sampler, module.eval_samples = module.sampler, samples
    module.extra_evidence = extra_evidence
    try:
        yield
    finally:
        module.eval_sampler, module.eval_samples, module.extra_evidence = before


@contextmanager
def _replace_callbacks(
    trainer: Any,
    module: SelfDistillModule,
    context: TeacherContext | None,
    collector: _Collector[Any],
) -> Iterator[None]:
    """Use this context and this collector instead of the trainer's context and writers."""
    before, attached = trainer.callbacks, module.teacher_context
    replaced = (BasePredictionWriter, TeacherContext)
    kept = [c for c in before if not isinstance(c, replaced)]
    trainer.callbacks = [*([] if context is None else [context]), *kept, collector]
    module.teacher_context = None
    try:
        yield
    finally:
        trainer.callbacks, module.teacher_context = before, attached
