"""Lightning's trainer with further verbs: ``critique``, ``probe``, ``analyze`` and ``plan``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities import rank_zero_info

from lightning_sd.callbacks.checkpoint_io import AtomicCheckpointIO
from lightning_sd.callbacks.lost_ranks import EndOnLostRank
from lightning_sd.callbacks.predictions import PredictionWriter
from lightning_sd.callbacks.signals import SaveOnSignal
from lightning_sd.cli.checkpoint_path import AgreedCheckpoint
from lightning_sd.contexts.base import TeacherContext
from lightning_sd.diagnostics.analysis import AnalysisReport, analyze
from lightning_sd.diagnostics.plan import PlanReport, plan
from lightning_sd.diagnostics.plan.run import DEVICES
from lightning_sd.diagnostics.probe import ProbeReport, Thresholds, probe
from lightning_sd.metrics.style import STYLE_WORDS
from lightning_sd.text.leaks import LEAK_PHRASES

if TYPE_CHECKING:
    from lightning_sd.data import CritiqueDataModule
    from lightning_sd.modules.self_distill import SelfDistillModule


class Trainer(pl.Trainer):
    """Lightning's trainer, with ``critique``, ``probe``, ``analyze`` and ``plan`` beside its own.

    It writes checkpoints through :class:`~lightning_sd.callbacks.AtomicCheckpointIO`, unless
    ``plugins`` holds another ``CheckpointIO``, ends on signals as
    :class:`~lightning_sd.callbacks.SaveOnSignal` says, and with several processes as
    :class:`~lightning_sd.callbacks.EndOnLostRank` says. All processes restore the checkpoint that
    rank 0 has found.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["plugins"] = add_default(kwargs.get("plugins"), CheckpointIO, AtomicCheckpointIO)
        for kind in (EndOnLostRank, SaveOnSignal):
            kwargs["callbacks"] = add_default(kwargs.get("callbacks"), kind, kind)
        bars = [c for c in kwargs["callbacks"] if isinstance(c, ProgressBar)]
        if bars and kwargs.get("enable_progress_bar") is False:
            raise ValueError(
                f"trainer.enable_progress_bar=false: {type(bars[0]).__name__} is among "
                "trainer.callbacks; remove it there, or leave the option out."
            )
        super().__init__(*args, **kwargs)
        self._checkpoint_connector = AgreedCheckpoint(self)

    def critique(
        self,
        model: SelfDistillModule,
        datamodule: CritiqueDataModule,
        ckpt_path: str | None = None,
        out: str = "out/attempts.jsonl",
    ) -> None:
        """Fill the critique cache before training.

        Attempts that are stored with the training questions are critiqued as they are. Without them
        the student answers each training question ``eval_samples`` times, and the attempts are
        written to ``out`` with their critiques, as a data set to train on.

        A stopped run continues where it stopped, because cached critiques are not requested again.
        The commands ``critique stats``, ``verify``, ``merge``, ``export``, ``import`` and
        ``filter`` maintain caches.

        Args:
            model: The module; its student attempts the questions.
            datamodule: Gives the questions, and holds the critic and its cache.
            ckpt_path: Checkpoint of the student. Default: the parameters of its model source.
            out: JSON lines file for sampled attempts.
        """
        datamodule.setup("fit")
        questions = datamodule.train_questions
        if len(questions) and all(question.attempt is not None for question in questions):
            datamodule.critique_all(questions, progress=True)
            rank_zero_info(json.dumps(datamodule.counters()))
            return
        kept = [c for c in self.callbacks if not isinstance(c, PredictionWriter)]
        self.callbacks: list[Any] = [*kept, PredictionWriter(out)]
        before = datamodule.predict_split
        datamodule.predict_split, model.extra_evidence = "train", frozenset({"critique"})
        try:
            self.predict(
                model, datamodule=datamodule, ckpt_path=ckpt_path, return_predictions=False
            )
        finally:
            datamodule.predict_split, model.extra_evidence = before, frozenset()
        rank_zero_info(f"Attempts and critiques are in {Path(out)}.")

    def probe(
        self,
        model: SelfDistillModule,
        datamodule: CritiqueDataModule,
        ckpt_path: str | None = None,
        out: str = "out/probe.json",
        questions: int = 64,
        samples: int = 4,
        phrases: tuple[str, ...] = LEAK_PHRASES,
        thresholds: Thresholds = Thresholds(),  # noqa: B008 - frozen
        admission: bool = False,
    ) -> ProbeReport:
        """Measure whether the teacher context is worth distilling, before anything is trained.

        The student answers validation questions as in training. The teacher scores these attempts
        and answers the questions itself from the context's prompt. A table shows how often each is
        correct, how often the teacher refers to its context, and its advantages; a verdict follows,
        based on intervals over questions. The run uses one process.

        Args:
            model: The module to probe.
            datamodule: Gives the validation questions, and holds the critic and its cache.
            ckpt_path: Checkpoint of the student. Default: the parameters of its model source.
            out: JSON file for the numbers.
            questions: Maximum number of validation questions.
            samples: Attempts per question, at least 2.
            phrases: Phrases in an answer that refer to a context.
            thresholds: Thresholds of the verdict.
            admission: Whether to test, with three further answers an attempt, that the context is
                read and that the teacher goes on from the student's own right steps.
        """
        report = probe(
            model,
            datamodule,
            trainer=self,
            questions=questions,
            samples=samples,
            phrases=phrases,
            thresholds=thresholds,
            admission=admission,
            ckpt_path=ckpt_path,
        )
        report.show()
        report.save(out)
        rank_zero_info(f"The numbers are in {Path(out)}.")
        return report

    def analyze(
        self,
        model: SelfDistillModule,
        datamodule: CritiqueDataModule,
        ckpt_path: str | None = None,
        contexts: list[TeacherContext] | None = None,
        out: str = "out/analysis",
        split: Literal["val", "test"] = "val",
        questions: int = 64,
        samples: int = 4,
        words: list[str] | None = None,
    ) -> AnalysisReport:
        """Show where the teacher's signal falls, token by token, under one or several contexts.

        The student answers questions as in training; the teacher context and the further contexts
        score the same answers. A table shows the share of the signal at or after the first wrong
        step, its sign on the correct prefix, how well it separates wrong from correct steps, and
        its share on style tokens, each with its value by chance and with 95% intervals over
        questions. The run uses one process.

        Args:
            model: The module to analyze.
            datamodule: Gives the questions, and holds the critic and its cache.
            ckpt_path: Checkpoint of the student. Default: the parameters of its model source.
            contexts: Further contexts, such as ReferenceSolution.
            out: Folder for rows.jsonl (the rollouts), summary.json (the numbers), report.html and
                figure.png.
            split: Questions to use, val or test.
            questions: Maximum number of questions.
            samples: Rollouts per question.
            words: Style words. Default: lightning_sd.metrics.STYLE_WORDS.
        """
        report = analyze(
            model,
            datamodule,
            contexts or (),
            trainer=self,
            split=split,
            questions=questions,
            samples=samples,
            words=STYLE_WORDS if words is None else words,
            ckpt_path=ckpt_path,
            out=out,
        )
        report.show()
        rank_zero_info(f"Rollouts, numbers, page and figure are in {Path(out)}.")
        return report

    def plan(
        self,
        model: SelfDistillModule,
        datamodule: CritiqueDataModule,
        hardware: str = "h100",
        devices: tuple[int, ...] = DEVICES,
        prompt_tokens: int = 256,
        teacher_prompt_tokens: int | None = None,
        answer_tokens: int | None = None,
        out: str = "out/plan.json",
    ) -> PlanReport:
        """Print what a run needs on devices that are not at hand, before they are rented.

        A table shows memory per device and phase and the seconds of a step for each number of
        devices, and advice follows. The model's weights are neither loaded nor downloaded, and the
        trainer's devices are ignored. Seconds are arithmetic, not measurements.

        Args:
            model: The module to plan.
            datamodule: Gives the batch size.
            hardware: Kind of device: h100, rtx4090 or l4.
            devices: Numbers of devices.
            prompt_tokens: Tokens of a question's prompt.
            teacher_prompt_tokens: Tokens of a teacher's prompt. Default: those of a question and
                an answer.
            answer_tokens: Tokens of a rollout. Default: the sampler's limit.
            out: JSON file for the numbers.
        """
        report = plan(
            model,
            batch_size=datamodule.batch_size,
            hardware=hardware,
            devices=devices,
            precision=str(self.precision),
            accumulate=self.accumulate_grad_batches,
            prompt_tokens=prompt_tokens,
            teacher_prompt_tokens=teacher_prompt_tokens,
            answer_tokens=answer_tokens,
        )
        report.show()
        report.save(out)
        rank_zero_info(f"The numbers are in {Path(out)}.")
        return report


def add_default(given: Any, kind: type, default: Callable[[], Any]) -> list[Any]:
    """Add a default to a trainer's plugins or callbacks, unless one of its kind is given.

    Args:
        given: None, one plugin or callback, or a list of them.
        kind: The class of which one is enough.
        default: Makes the one to add, at the end.
    """
    items = [] if given is None else list(given) if isinstance(given, list) else [given]
    return items if any(isinstance(item, kind) for item in items) else [*items, default()]
