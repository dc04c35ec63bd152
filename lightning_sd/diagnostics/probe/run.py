"""Run a probe."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import LightningDataModule, Trainer

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.diagnostics.collect import (
    build_trainer,
    check_run,
    collect_records,
    find_context,
)
from lightning_sd.diagnostics.probe.attempt import AttemptRecorder
from lightning_sd.diagnostics.probe.report import Costs, ProbeReport, summarize_attempts
from lightning_sd.diagnostics.probe.verdict import Thresholds
from lightning_sd.modules.self_distill import SelfDistillModule
from lightning_sd.text.leaks import LEAK_PHRASES


def probe(
    module: SelfDistillModule,
    datamodule: LightningDataModule,
    teacher_context: TeacherContext | None = None,
    *,
    trainer: Trainer | None = None,
    questions: int = 64,
    samples: int = 4,
    phrases: Sequence[str] = LEAK_PHRASES,
    thresholds: Thresholds | None = None,
    admission: bool = False,
    ckpt_path: str | None = None,
) -> ProbeReport:
    """Measure whether a teacher context is worth distilling, on validation questions.

    The student answers each question ``samples`` times with the training sampler. The teacher
    scores these attempts as in training, and answers the question itself once per attempt, from the
    prompt under which it scores. Nothing is trained. The run uses one process.

    Args:
        module: The module with student, teacher and sampler.
        datamodule: Gives validation questions and judges answers, such as ``CritiqueDataModule``.
        teacher_context: The context to probe. Default: the one among the trainer's callbacks.
        trainer: Runs the predict loop. Default: a trainer for one device without logger.
        questions: Maximum number of questions.
        samples: Attempts per question, at least 2: a failed attempt is compared with the other
            attempts at its question.
        phrases: Phrases in an answer that refer to a context.
        thresholds: Thresholds of the verdict. Default: ``Thresholds()``.
        admission: Whether to sample three further answers for the admission test: the teacher's
            under another question's context, and those of the teacher and of the student alone
            from the right steps of failed attempts. It roughly doubles the time.
        ckpt_path: Checkpoint of the student. Default: the parameters of its model source.

    Returns:
        Estimates with intervals over questions, costs and a verdict.

    Raises:
        TypeError: The module or the data module has the wrong type.
        ValueError: No context, no validation questions, several processes, or a number out of
            range.

    Example::

        report = lightning_sd.probe(module, datamodule, ReferenceSolution())
        report.show()
        report.to_frame().loc["gain_failed"]
    """
    trainer = trainer or build_trainer()
    check_run("probe", trainer, module, datamodule, questions=questions, samples=samples)
    if samples < 2:
        raise ValueError(f"samples={samples}: must be at least 2.")
    context = teacher_context or find_context(trainer, module)
    if context is None or not context.gives_views:
        raise ValueError(
            f"teacher_context={type(context).__name__}: it shows the teacher nothing, so there is "
            "nothing to probe. Choose a context that gives views, such as ReferenceSolution."
        )
    task = getattr(datamodule, "task", None)
    recorder = AttemptRecorder(context, phrases, task, admission=admission)
    collector = collect_records(
        *(trainer, module, datamodule, recorder),
        split="val",
        questions=questions,
        samples=samples,
        context=context,
        ckpt_path=ckpt_path,
    )
    costs = Costs(
        student_tokens=recorder.student_tokens,
        teacher_tokens=recorder.teacher_tokens,
        critic_tokens=recorder.critic_tokens,
        student_seconds=collector.predict_seconds,
        critic_seconds=recorder.critic_seconds,
        teacher_seconds=collector.process_seconds,
    )
    return summarize_attempts(
        collector.records,
        context=type(context).__name__,
        teacher=type(module.teacher).__name__,
        costs=costs,
        thresholds=thresholds or Thresholds(),
    )
