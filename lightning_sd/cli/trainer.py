"""Lightning's trainer with more verbs: ``critique``, ``probe`` and ``analyze``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info

from lightning_sd.callbacks.predictions import PredictionWriter
from lightning_sd.contexts.base import TeacherContext
from lightning_sd.diagnostics.probe import ProbeReport, Thresholds
from lightning_sd.text.leaks import LEAK_PHRASES

if TYPE_CHECKING:
    from lightning_sd.data import CritiqueDataModule
    from lightning_sd.modules.self_distill import SelfDistillModule


class Trainer(pl.Trainer):
    """Lightning's trainer, with ``critique``, ``probe`` and ``analyze`` beside its own verbs."""

    def critique(
        self,
        model: SelfDistillModule | None = None,
        datamodule: CritiqueDataModule | None = None,
        ckpt_path: str | None = None,
        out: str = "out/attempts.jsonl",
    ) -> None:
        """Fill the critique cache ahead of training.

        Attempts that are stored with the training questions are criticised as they are. Without
        them the student answers each training question ``eval_samples`` times, and the attempts are
        written to ``out`` together with their critiques, ready to be trained on as a data set.

        A run that was stopped goes on where it was: what the cache holds is not asked again.
        Caches are looked after by ``critique stats``, ``verify``, ``merge``, ``export``, ``import``
        and ``filter``.

        Args:
            model: The module whose student attempts the questions.
            datamodule: Gives the questions, and holds the critic and its cache.
            ckpt_path: Weights of the student; None: as the model source gives them.
            out: Where sampled attempts are written, as JSON lines.
        """
        assert model is not None
        assert datamodule is not None
        datamodule.setup("fit")
        questions = datamodule.train_questions
        if len(questions) and all(question.attempt is not None for question in questions):
            datamodule.critique_all(questions, progress=True)
            rank_zero_info(json.dumps(datamodule.counters()))
            return
        wanted = [c for c in self.callbacks if not isinstance(c, PredictionWriter)]
        self.callbacks: list[Any] = [*wanted, PredictionWriter(out)]
        before = datamodule.predict_split
        datamodule.predict_split, model.extra_evidence = "train", frozenset({"critique"})
        try:
            self.predict(
                model, datamodule=datamodule, ckpt_path=ckpt_path, return_predictions=False
            )
        finally:
            datamodule.predict_split, model.extra_evidence = before, frozenset()
        rank_zero_info(f"Attempts and critiques stand in {Path(out)}.")

    def probe(
        self,
        model: SelfDistillModule | None = None,
        datamodule: CritiqueDataModule | None = None,
        ckpt_path: str | None = None,
        out: str = "out/probe.json",
        questions: int = 64,
        samples: int = 4,
        phrases: tuple[str, ...] = LEAK_PHRASES,
        thresholds: Thresholds = Thresholds(),  # noqa: B008 - frozen
    ) -> ProbeReport:
        """Ask whether a context is worth distilling, before anything is trained.

        The student answers validation questions as in training, the teacher scores these attempts,
        and answers once itself for each of them from the context's prompt. A table tells how often
        each is right, how often the teacher speaks of what it was shown, and what its advantages
        say; then comes a verdict in words, by intervals over questions. It runs in one process.

        Args:
            model: The module to be probed.
            datamodule: Gives the validation questions, and holds the critic and its cache.
            ckpt_path: Weights of the student; None: as the model source gives them.
            out: Where the numbers are written, as JSON.
            questions: Validation questions, at most.
            samples: Attempts a question, at least 2.
            phrases: Words in an answer that tell of a context.
            thresholds: Where the verdict turns.
        """
        from lightning_sd.diagnostics.probe.run import run_probe
        from lightning_sd.diagnostics.probe.show import show, write

        assert model is not None
        assert datamodule is not None
        report = run_probe(
            self,
            model,
            datamodule,
            questions=questions,
            samples=samples,
            phrases=phrases,
            thresholds=thresholds,
            ckpt_path=ckpt_path,
        )
        show(report)
        write(report, Path(out))
        rank_zero_info(f"The numbers stand in {Path(out)}.")
        return report

    def analyze(
        self,
        model: SelfDistillModule | None = None,
        datamodule: CritiqueDataModule | None = None,
        ckpt_path: str | None = None,
        contexts: list[TeacherContext] | None = None,
        out: str = "out/analysis",
        split: Literal["val", "test"] = "val",
        questions: int = 64,
        samples: int = 4,
        words: list[str] | None = None,
    ) -> dict[str, Any]:
        """Show where the teacher's signal falls, token by token, under one context or several.

        The student answers questions as in training; the config's context and the further ones
        score the same answers. A table tells how much of the signal lies at or after the first
        wrong step, what it says of the correct prefix, how well it tells wrong steps from right
        ones, and how much of it lies on style tokens, each beside what chance gives, with 95%
        intervals over questions. It runs in one process.

        Args:
            model: The module to be analysed.
            datamodule: Gives the questions, and holds the critic and its cache.
            ckpt_path: Weights of the student; None: as the model source gives them.
            contexts: Further contexts, such as ReferenceSolution.
            out: Folder for the rollouts (rows.jsonl), the numbers (summary.json), a page to read
                them in (report.html) and a figure (figure.png).
            split: Whose questions.
            questions: How many of them, at most.
            samples: Answers a question.
            words: Style words, instead of lightning_sd.diagnostics.analysis.STYLE_WORDS.
        """
        from lightning_sd.diagnostics.analysis.run import run_analysis
        from lightning_sd.metrics.style import STYLE_WORDS

        assert model is not None
        assert datamodule is not None
        summary = run_analysis(
            self,
            model,
            datamodule,
            out=Path(out),
            contexts=contexts or (),
            split=split,
            questions=questions,
            samples=samples,
            words=STYLE_WORDS if words is None else words,
            ckpt_path=ckpt_path,
        )
        rank_zero_info(f"Rollouts, numbers, page and figure stand in {Path(out)}.")
        return summary
