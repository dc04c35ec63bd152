"""Predictions as JSON lines: answers with the advantage of each token."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from lightning_sd.types import StepOutput


class PredictionWriter(BasePredictionWriter):
    """Writes what ``predict`` found, one line a rollout, batch by batch.

    Each line holds the question's id and text, the completion, its reward and answer, the critique
    if there is one, the teacher's messages, and tokens with their advantages. Under several ranks
    each writes a file of its own (``path`` with the rank before the ending).

    Args:
        path: A ``.jsonl`` file; written anew by each run.
    """

    def __init__(self, path: str) -> None:
        super().__init__(write_interval="batch")
        self.path = path

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the file."""
        if stage == "predict":
            target = rank_file(self.path, trainer)
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
        """Append one batch."""
        module: Any = pl_module
        with rank_file(self.path, trainer).open("a", encoding="utf-8") as file:
            for row in prediction_rows(prediction, module.tokenizer):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def rank_file(path: str, trainer: Trainer) -> Path:
    """The file of this rank: with several, its number stands before the ending."""
    whole = Path(path)
    if trainer.world_size == 1:
        return whole
    return whole.with_name(f"{whole.stem}.{trainer.global_rank}{whole.suffix}")


def prediction_rows(output: StepOutput, tokenizer: Any) -> Iterator[dict[str, Any]]:
    """Plain rows of one batch of predictions.

    Args:
        output: What ``predict_step`` returned.
        tokenizer: Turns ids into token texts.

    Yields:
        One dict a rollout.
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
