"""Write predictions as JSON lines: answers with the advantage of each token."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from lightning_sd.types import StepOutput


class PredictionWriter(BasePredictionWriter):
    """Write the results of ``predict``, one line per rollout, batch by batch.

    Each line holds the question's id and text, the completion, its reward and answer, the critique
    if there is one, the teacher's messages, and the tokens with their advantages. With several
    ranks, each rank writes its own file (``path`` with the rank before the suffix).

    Args:
        path: A ``.jsonl`` file; each run overwrites it.
    """

    def __init__(self, path: str) -> None:
        super().__init__(write_interval="batch")
        self.path = path

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Create the file."""
        if stage == "predict":
            target = add_rank(self.path, trainer)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("")

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: StepOutput,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Append the rows of one batch."""
        module: Any = pl_module
        with add_rank(self.path, trainer).open("a", encoding="utf-8") as file:
            for row in build_prediction_rows(prediction, module.tokenizer):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def add_rank(path: str, trainer: Trainer) -> Path:
    """Return the file of this rank; with several ranks its number is put before the suffix."""
    whole = Path(path)
    if trainer.world_size == 1:
        return whole
    return whole.with_name(f"{whole.stem}.{trainer.global_rank}{whole.suffix}")


def build_prediction_rows(output: StepOutput, tokenizer: Any) -> Iterator[dict[str, Any]]:
    """Build plain rows of one batch of predictions.

    Args:
        output: The result of ``predict_step``.
        tokenizer: The student's tokenizer.

    Yields:
        One dict per rollout.
    """
    for rollout, view, advantages in zip(
        output.rollouts, output.views, output.advantages, strict=True
    ):
        verdict, critique = rollout.verdict, rollout.critique
        yield {
            "id": rollout.question.id,
            "question": rollout.question.text,
            "reference": rollout.question.reference,
            "gold": rollout.question.answer,
            "attempt": rollout.text,
            "finished": rollout.finished,
            "reward": None if verdict is None else verdict.reward,
            "correct": None if verdict is None else verdict.correct,
            "answer": None if verdict is None else verdict.answer,
            "critique": None if critique is None else critique.text,
            "refused": None if critique is None else critique.refused,
            "teacher_messages": None if view is None else list(view.messages),
            "tokens": [tokenizer.decode([i]) for i in rollout.ids],
            "advantages": None if advantages is None else list(advantages),
        }
