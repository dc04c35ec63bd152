"""Lightning's trainer with one more verb: ``critique``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info

from lightning_sd.callbacks.predictions import PredictionWriter

if TYPE_CHECKING:
    from lightning_sd.data import CritiqueDataModule
    from lightning_sd.module import SelfDistillModule


class Trainer(pl.Trainer):
    """Lightning's trainer, with ``critique`` beside its own verbs."""

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
        datamodule.predict_split, model.predict_needs = "train", frozenset({"critique"})
        try:
            self.predict(
                model, datamodule=datamodule, ckpt_path=ckpt_path, return_predictions=False
            )
        finally:
            datamodule.predict_split, model.predict_needs = before, frozenset()
        rank_zero_info(f"Attempts and critiques stand in {Path(out)}.")
