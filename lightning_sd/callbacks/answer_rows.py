"""Write the test results per question as JSON lines."""

from __future__ import annotations

import json
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_sd.callbacks.predictions import add_rank
from lightning_sd.metrics import list_question_rows
from lightning_sd.types import StepOutput


class AnswerRows(Callback):
    """Write one line per test question, for intervals and paired comparisons.

    Each line holds the question's ``id``, ``avg``, ``pass``, ``maj``, ``reward`` and ``length``.
    With several ranks, each rank writes its own file (``path`` with the rank before the suffix).

    Args:
        path: A ``.jsonl`` file; each test run overwrites it.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Create the file."""
        path = add_rank(self.path, trainer)
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
        """Append the rows of one batch."""
        module: Any = pl_module
        step: StepOutput = outputs["step"]
        with add_rank(self.path, trainer).open("a", encoding="utf-8") as file:
            for row in list_question_rows(step.rollouts, module.eval_samples):
                file.write(json.dumps(row) + "\n")
