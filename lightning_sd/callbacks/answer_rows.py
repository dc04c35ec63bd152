"""Evaluation question by question, as JSON lines."""

from __future__ import annotations

import json
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_sd.callbacks.predictions import rank_file
from lightning_sd.metrics import list_question_rows
from lightning_sd.types import StepOutput


class AnswerRows(Callback):
    """Writes a line a test question, in a file that each test run begins anew.

    Averages hide what intervals and paired comparisons need: how each question fared. Each line
    holds the question's ``id`` and its share of Avg@k, Pass@k, Maj@k, reward and length.
    Under several ranks each writes a file of its own (``path`` with the rank before the ending).

    Args:
        path: A ``.jsonl`` file.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the file."""
        path = rank_file(self.path, trainer)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Append one batch."""
        module: Any = pl_module
        step: StepOutput = outputs["step"]
        with rank_file(self.path, trainer).open("a", encoding="utf-8") as file:
            for row in list_question_rows(step.rollouts, module.eval_samples):
                file.write(json.dumps(row) + "\n")
