"""Run an analysis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.diagnostics.analysis.report import AnalysisReport
from lightning_sd.diagnostics.analysis.rows import Row, append_rows, build_row
from lightning_sd.diagnostics.collect import (
    HeldOutSplit,
    build_trainer,
    check_run,
    collect_records,
    find_context,
)
from lightning_sd.metrics.style import STYLE_WORDS
from lightning_sd.metrics.wrong_steps import find_steps
from lightning_sd.modules.evidence import EvidenceSource
from lightning_sd.modules.self_distill import SelfDistillModule
from lightning_sd.tasks.base import RepairTask
from lightning_sd.types import StepOutput


def analyze(
    module: SelfDistillModule,
    datamodule: LightningDataModule,
    contexts: Sequence[TeacherContext] = (),
    *,
    trainer: Trainer | None = None,
    split: HeldOutSplit = "val",
    questions: int = 64,
    samples: int = 4,
    words: Sequence[str] = STYLE_WORDS,
    ckpt_path: str | None = None,
    out: str | Path | None = None,
) -> AnalysisReport:
    """Measure where the teacher's signal falls, token by token, under one or several contexts.

    The student answers questions with the training sampler; every context scores the same answers.
    Nothing is trained. The run uses one process.

    Args:
        module: The module with student, teacher and sampler.
        datamodule: Gives the questions and judges answers, such as ``CritiqueDataModule``.
        contexts: Contexts to compare, after the one among the trainer's callbacks if there is one.
        trainer: Runs the predict loop. Default: a trainer for one device without logger.
        split: Questions to use, ``val`` or ``test``.
        questions: Maximum number of questions.
        samples: Rollouts per question.
        words: Style words.
        ckpt_path: Checkpoint of the student. Default: the parameters of its model source.
        out: Folder for ``rows.jsonl`` (written batch by batch), ``summary.json``, ``report.html``
            and ``figure.png``. Default: nothing is written.

    Returns:
        The rows and their summary.

    Raises:
        TypeError: The module or the data module has the wrong type.
        ValueError: No context gives views, there are no questions, several processes, or a number
            out of range.

    Example::

        report = lightning_sd.analyze(module, datamodule, [ReferenceSolution()])
        report.to_frame().loc["ReferenceSolution"]
    """
    trainer = trainer or build_trainer()
    source = check_run("analyze", trainer, module, datamodule, questions=questions, samples=samples)
    own = find_context(trainer, module)
    if not any(c.gives_views for c in (*([] if own is None else [own]), *contexts)):
        raise ValueError(
            "contexts: none shows the teacher anything; set teacher_context or contexts, such as "
            "--contexts+=ReferenceSolution."
        )
    task = getattr(datamodule, "task", None)
    extra = choose_evidence(contexts, source, task)
    source.check(extra)
    path = None if out is None else Path(out) / "rows.jsonl"
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    collector = collect_records(
        trainer,
        module,
        datamodule,
        RowRecorder(contexts, words, task, path),
        split=split,
        questions=questions,
        samples=samples,
        context=own,
        extra_evidence=extra,
        ckpt_path=ckpt_path,
    )
    report = AnalysisReport.from_rows(collector.records)
    if out is not None:
        report.save(out)
    return report


class RowRecorder:
    """Turn a batch of predictions into rows, scored under further contexts as well.

    Args:
        contexts: The further contexts.
        words: Style words.
        task: Task of the questions, which may know wrong steps exactly; None if unknown.
        path: File to which the rows of each batch are appended, so that a stopped run keeps them;
            None: no file.
    """

    def __init__(
        self, contexts: Sequence[TeacherContext], words: Sequence[str], task: Any, path: Path | None
    ) -> None:
        self.contexts, self.words, self.task, self.path = contexts, tuple(words), task, path

    def __call__(self, module: SelfDistillModule, output: StepOutput, index: int) -> list[Row]:
        """Record one batch.

        Args:
            module: The student and its teacher.
            output: Rollouts, with views and advantages under the module's own context.
            index: Index of the batch.
        """
        own = module.teacher_context
        scored = [(own, output.views, output.advantages)] if own and own.gives_views else []
        for context in self.contexts:
            context.attach(module)
            # Completions that a context adds for training are not rollouts of the student.
            _ = context.prepare_batch(output.rollouts)
            views = context.views(output.rollouts)
            advantages = module.compute_advantages(output.rollouts, views)
            scored.append((context, tuple(views), tuple(advantages)))
        names = name_contexts([context for context, _, _ in scored])
        rows = []
        for i, rollout in enumerate(output.rollouts):
            steps = find_steps(rollout, module.tokenizer, self.task)
            by_name = {
                name: (views[i], advantages[i])
                for name, (_, views, advantages) in zip(names, scored, strict=True)
            }
            rows.append(build_row(rollout, steps, by_name, self.words))
        if self.path is not None:
            append_rows(self.path, rows)
        return rows


def name_contexts(contexts: Sequence[TeacherContext]) -> list[str]:
    """Name contexts by their classes; further contexts of the same class get a number.

    Example:
        >>> from lightning_sd import ReferenceSolution
        >>> name_contexts([ReferenceSolution(), ReferenceSolution()])
        ['ReferenceSolution', 'ReferenceSolution 2']
    """
    classes = [type(context).__name__ for context in contexts]
    earlier = [classes[:i].count(name) for i, name in enumerate(classes)]
    return [f"{n} {count + 1}" if count else n for n, count in zip(classes, earlier, strict=True)]


def choose_evidence(
    contexts: Sequence[TeacherContext], source: EvidenceSource, task: Any
) -> frozenset[str]:
    """Choose the evidence to gather beside what the module's own context requires.

    A critique says which steps are wrong where the task cannot check steps itself.

    Args:
        contexts: The further contexts.
        source: Gives the evidence.
        task: Task of the questions; None if unknown.
    """
    required = frozenset[str]().union(*(context.required_evidence for context in contexts))
    if isinstance(task, RepairTask):
        return required
    try:
        source.check(frozenset({"critique"}))
    except ValueError:
        return required
    return required | {"critique"}
