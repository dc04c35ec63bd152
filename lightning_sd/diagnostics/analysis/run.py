"""One analysis: sample, let every context score the same rollouts, write it all down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.diagnostics.analysis.figure import draw_figure
from lightning_sd.diagnostics.analysis.report import write_report
from lightning_sd.diagnostics.analysis.rows import Row, append_rows, rollout_row
from lightning_sd.diagnostics.analysis.summary import summarise
from lightning_sd.diagnostics.analysis.table import print_summary
from lightning_sd.diagnostics.probe.collect import ProbeQuestions
from lightning_sd.diagnostics.probe.run import instead_of_writers, training_draws
from lightning_sd.metrics.style import STYLE_WORDS
from lightning_sd.metrics.wrong_steps import find_steps
from lightning_sd.modules.evidence import EvidenceSource
from lightning_sd.modules.self_distill import SelfDistillModule
from lightning_sd.tasks.base import RepairTask
from lightning_sd.types import Question

AnalysisSplit = Literal["val", "test"]
_TICKS = 16
"""Fewest batches, so that the progress bar moves."""


class Collector(Callback):
    """Keeps each rollout of the predict loop, scored under the further contexts as well.

    Args:
        task: Where the questions come from; its rules tell which steps are wrong, if it has some.
        contexts: The further ones.
        words: Style words.
        path: JSON lines; written batch by batch, so that a run that breaks leaves its rows.
    """

    def __init__(
        self, task: Any, contexts: Sequence[TeacherContext], words: Sequence[str], path: Path
    ) -> None:
        self.task, self.contexts, self.words, self.path = task, contexts, tuple(words), path
        self.rows: list[Row] = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Score one batch under the further contexts, and write its rows."""
        assert isinstance(pl_module, SelfDistillModule)
        own = pl_module.teacher_context
        scored = (
            [] if own is None or not own.gives_views else [(own, outputs.views, outputs.advantages)]
        )
        for context in self.contexts:
            context.attach(pl_module)
            # Lightning wraps only the module's own step in the run's precision.
            with trainer.precision_plugin.predict_step_context():
                # What a context would add to train on is no rollout of the student's.
                _ = context.prepare_batch(outputs.rollouts)
                views = context.views(outputs.rollouts)
                scored.append(
                    (context, views, pl_module.compute_advantages(outputs.rollouts, views))
                )
        names = context_names([context for context, _, _ in scored])
        rows = []
        for i, rollout in enumerate(outputs.rollouts):
            steps = find_steps(rollout, pl_module.tokenizer, self.task)
            seen = {n: (v[i], a[i]) for n, (_, v, a) in zip(names, scored, strict=True)}
            rows.append(rollout_row(rollout, steps, seen, self.words))
        append_rows(self.path, rows)
        self.rows += rows


def run_analysis(
    trainer: Trainer,
    module: SelfDistillModule,
    data: LightningDataModule,
    *,
    out: Path,
    contexts: Sequence[TeacherContext] = (),
    split: AnalysisSplit = "val",
    questions: int = 64,
    samples: int = 4,
    words: Sequence[str] = STYLE_WORDS,
    ckpt_path: str | None = None,
) -> dict[str, Any]:
    """Analyse the advantages of rollouts of validation or test questions.

    Args:
        trainer: A single process; the config's context, if any, is among its callbacks.
        module: Samples the rollouts as in training, and scores them.
        data: Gives the questions and judges answers.
        out: Folder for ``rows.jsonl``, ``summary.json``, ``report.html`` and ``figure.png``.
        contexts: Further ones, which score the same rollouts.
        split: Whose questions.
        questions: How many at most.
        samples: Rollouts a question.
        words: Style words.
        ckpt_path: Weights; None: as the model source gives them.

    Returns:
        The summary; see :func:`.summary.summarise`.

    Raises:
        TypeError: A module or data module of another kind.
        ValueError: No context, no questions, several processes, numbers out of range.
    """
    source = _checked(trainer, module, data, contexts, questions, samples)
    chosen, size = take_questions(data, split, questions)
    needs = frozenset[str]().union(*(context.required_evidence for context in contexts))
    task = getattr(data, "task", None)
    if not isinstance(task, RepairTask) and _has_critiques(source):
        needs |= {"critique"}
    source.check(needs)
    out.mkdir(parents=True, exist_ok=True)
    (out / "rows.jsonl").write_text("")
    collector = Collector(task, contexts, words, out / "rows.jsonl")
    batch = max(1, min(size, -(-len(chosen) // _TICKS)))
    before, module.extra_evidence = module.extra_evidence, needs
    try:
        with training_draws(module, samples), instead_of_writers(trainer, collector):  # type: ignore[arg-type]
            trainer.predict(
                module,
                datamodule=ProbeQuestions(source, chosen, batch),
                ckpt_path=ckpt_path,
                return_predictions=False,
            )
    finally:
        module.extra_evidence = before
    return write_analysis(collector.rows, out)


def write_analysis(rows: Sequence[Row], out: Path) -> dict[str, Any]:
    """Sum up rows, print the table, and write everything but the rows.

    Args:
        rows: Of an analysis, perhaps read back with :func:`.rows.read_rows`.
        out: The folder.
    """
    summary = summarise(rows)
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    write_report(rows, summary, out / "report.html")
    try:
        draw_figure(rows, out / "figure.png")
    except ImportError as error:
        rank_zero_warn(f"figure.png is left out: {error}")
    print_summary(summary)
    return summary


def take_questions(
    data: LightningDataModule, split: AnalysisSplit, number: int
) -> tuple[list[Question], int]:
    """The first questions of a split, and the size of its largest batch.

    Raises:
        ValueError: There are none.
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
        raise ValueError(f"split={split}: the data module has no such questions.")
    return chosen, largest


def context_names(contexts: Sequence[TeacherContext]) -> list[str]:
    """The classes' names; one that stands there again gets a number."""
    names: list[str] = []
    for context in contexts:
        name = type(context).__name__
        same = sum(other.split(" ")[0] == name for other in names)
        names.append(f"{name} {same + 1}" if same else name)
    return names


def _has_critiques(source: EvidenceSource) -> bool:
    try:
        source.check(frozenset({"critique"}))
    except ValueError:
        return False
    return True


def _checked(
    trainer: Any,
    module: SelfDistillModule,
    data: LightningDataModule,
    contexts: Sequence[TeacherContext],
    questions: int,
    samples: int,
) -> EvidenceSource:
    """Refuse what cannot be analysed, before anything is loaded."""
    if not isinstance(module, SelfDistillModule):
        raise TypeError(f"analyze needs a SelfDistillModule; model is {type(module).__name__}.")
    if not isinstance(data, EvidenceSource):
        raise TypeError(
            "analyze needs a data module that judges answers, such as CritiqueDataModule; data is "
            f"{type(data).__name__}."
        )
    for name, value in {"questions": questions, "samples": samples}.items():
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1.")
    if trainer.world_size > 1:
        raise ValueError(
            f"analyze runs in one process, not in {trainer.world_size}: set trainer.devices=1 and "
            "trainer.num_nodes=1."
        )
    own = [c for c in trainer.callbacks if isinstance(c, TeacherContext)]
    if not any(context.gives_views for context in (*own, *contexts)):
        raise ValueError(
            "analyze compares a teacher with the student, but no context shows the teacher "
            "anything: set teacher_context or contexts, such as --contexts+=ReferenceSolution."
        )
    return data
