"""One probe: check, collect, summarise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.diagnostics.probe.collect import Collector, ProbeQuestions
from lightning_sd.diagnostics.probe.report import ProbeReport, summarise
from lightning_sd.diagnostics.probe.verdict import Thresholds
from lightning_sd.modules.evidence import EvidenceSource
from lightning_sd.modules.self_distill import SelfDistillModule
from lightning_sd.text.leaks import LEAK_PHRASES
from lightning_sd.types import Question

TICKS = 8
"""Fewest batches, so that the progress bar moves."""


def run_probe(
    trainer: Trainer,
    module: SelfDistillModule,
    data: LightningDataModule,
    *,
    questions: int = 64,
    samples: int = 4,
    phrases: Sequence[str] = LEAK_PHRASES,
    thresholds: Thresholds | None = None,
    ckpt_path: str | None = None,
) -> ProbeReport:
    """Measure what a context gives its teacher, on validation questions.

    The student answers each question ``samples`` times with the training sampler; the teacher
    scores these attempts as in training, and answers once itself for each of them, from the very
    prompt under which it scores. Nothing is trained.

    Args:
        trainer: A single process; the context is among its callbacks.
        module: To be probed.
        data: Gives validation questions and judges answers.
        questions: How many at most.
        samples: Attempts a question, at least two.
        phrases: Words that tell of a context.
        thresholds: Of the verdict; default: ``Thresholds()``.
        ckpt_path: Weights; None: as the model source gives them.

    Raises:
        TypeError: A module or data module of another kind.
        ValueError: No context, no validation questions, several processes, numbers out of range.
    """
    context = checked(trainer, module, data, questions, samples)
    chosen, rows = validation_questions(data, questions, module.eval_samples)
    size = max(1, min(rows // samples, -(-len(chosen) // TICKS)))
    assert isinstance(data, EvidenceSource)
    source = ProbeQuestions(data, chosen, size)
    collector = Collector(context, phrases, getattr(data, "task", None))
    with training_draws(module, samples), instead_of_writers(trainer, collector):
        trainer.predict(module, datamodule=source, ckpt_path=ckpt_path, return_predictions=False)
    if not collector.attempts:
        raise ValueError("probe saw no batch: trainer.limit_predict_batches must not be 0.")
    return summarise(
        collector.attempts,
        context=type(context).__name__,
        teacher=type(module.teacher).__name__,
        costs=collector.costs,
        thresholds=thresholds or Thresholds(),
    )


def checked(
    trainer: Any, module: SelfDistillModule, data: LightningDataModule, questions: int, samples: int
) -> TeacherContext:
    """Refuse what cannot be probed, before anything is loaded.

    Returns:
        The context.
    """
    if not isinstance(module, SelfDistillModule):
        raise TypeError(f"probe needs a SelfDistillModule; model is {type(module).__name__}.")
    if not isinstance(data, EvidenceSource):
        raise TypeError(
            f"probe needs a data module that judges answers, such as CritiqueDataModule; data is "
            f"{type(data).__name__}."
        )
    if questions < 1:
        raise ValueError(f"questions={questions}: must be at least 1.")
    if samples < 2:
        raise ValueError(
            f"samples={samples}: must be at least 2, for a failed attempt is compared with the "
            "other attempts at its question."
        )
    if trainer.world_size > 1:
        raise ValueError(
            f"probe runs in one process, not in {trainer.world_size}: set trainer.devices=1 and "
            "trainer.num_nodes=1."
        )
    found = [c for c in trainer.callbacks if isinstance(c, TeacherContext)]
    context = found[0] if found else module.teacher_context
    if context is None or not context.gives_views:
        raise ValueError(
            f"probe asks what a context is worth, but teacher_context is {type(context).__name__}, "
            "which shows the teacher nothing. Choose one that gives a view, such as "
            "--teacher_context=ReferenceSolution."
        )
    return context


def validation_questions(
    data: LightningDataModule, number: int, samples: int
) -> tuple[list[Question], int]:
    """The first validation questions.

    Args:
        data: Has them.
        number: How many at most.
        samples: Answers a question in validation.

    Returns:
        The questions, and how many answers validation samples at once, which the machine is known
        to bear.

    Raises:
        ValueError: There are none.
    """
    data.prepare_data()
    data.setup("validate")
    chosen: list[Question] = []
    largest = 0
    for batch in data.val_dataloader():
        chosen += islice(batch, number - len(chosen))
        largest = max(largest, len(batch))
        if len(chosen) == number:
            break
    if not chosen:
        raise ValueError(
            "probe asks validation questions, and the data module has none: give the task some "
            "(val_size, val_fraction, or a validation split)."
        )
    return chosen, largest * samples


@contextmanager
def training_draws(module: SelfDistillModule, samples: int) -> Iterator[None]:
    """Let ``predict`` sample as training does: the probe is about what would be trained on."""
    before = module.eval_sampler, module.eval_samples
    module.eval_sampler, module.eval_samples = module.sampler, samples
    try:
        yield
    finally:
        module.eval_sampler, module.eval_samples = before


@contextmanager
def instead_of_writers(trainer: Any, collector: Collector) -> Iterator[None]:
    """Put the collector where prediction writers were: a probe must not overwrite their files."""
    before = trainer.callbacks
    wanted = [c for c in before if not isinstance(c, BasePredictionWriter)]
    trainer.callbacks = [*wanted, collector]
    try:
        yield
    finally:
        trainer.callbacks = before
