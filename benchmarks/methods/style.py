"""Measure the share of style in the teacher's signal, with one right hint and with a contrast.

    python -m benchmarks.methods.run --only style

The untrained solver answers validation questions. Its answers are scored under a right hint and
under up to four wrong hints with the same wording. ``one_sided``, log p_right - log p_student, is
the signal of OPSD, SDPO and RLSD; ``contrast``, log p_right - log mean_k p_wrong, that of RLCSD.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from benchmarks.grid import Row
from lightning_sd import (
    ArithmeticTask,
    CritiqueDataModule,
    SelfDistillModule,
    TransformersSampler,
)
from lightning_sd.contexts import ContrastiveHints
from lightning_sd.contexts.templates import REFERENCE
from lightning_sd.functional.contrastive import log_mean_prob
from lightning_sd.metrics.spans import split_tokens
from lightning_sd.metrics.style import classify_tokens, sum_style_mass
from lightning_sd.types import Rollout, StepOutput, TeacherView, select_contrast

WORDS = ("so", "then", "now", "is")
"""The words in which the lab solver's notations differ; "is" replaces the equals sign."""
WRONG = 4
Hint = Literal["sibling", "reference"]


class SignalRows(Callback):
    """Collect one row per scored rollout: absolute sums of both signals per class of tokens."""

    def __init__(self, hint: Hint) -> None:
        self.hint = hint
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
        assert isinstance(pl_module, SelfDistillModule)
        step: StepOutput = outputs
        wrong = wrong_advantages(pl_module, step.rollouts, step.views)
        for rollout, right, others in zip(step.rollouts, step.advantages, wrong, strict=True):
            if right is not None:
                self.rows.append(self._row(pl_module.tokenizer, rollout, right, others))

    def _row(
        self, tokenizer: Any, rollout: Rollout, right: tuple[float, ...], wrong: Tensor
    ) -> Row:
        evidence = torch.tensor(right, dtype=torch.float64)
        # log p_student is in both and cancels.
        signals = {"one_sided": evidence, "contrast": evidence - log_mean_prob(wrong)}
        classes = classify_tokens(split_tokens(tokenizer, rollout.ids), WORDS)
        row: Row = {"hint": self.hint, "question": rollout.question.id}
        row["correct"] = bool(rollout.verdict and rollout.verdict.correct)
        for name, values in signals.items():
            mass = sum_style_mass(values.tolist(), classes)
            row[name] = {"style": mass.style.mass, "task": mass.task.mass}
            row["tokens"] = {"style": mass.style.tokens, "task": mass.task.tokens}
        return row


def wrong_advantages(
    module: SelfDistillModule, rollouts: Sequence[Rollout], views: Sequence[TeacherView | None]
) -> list[Tensor]:
    """Return log p_wrong - log p_student, ``[tokens, WRONG]`` per rollout; NaN: hint missing."""
    found = [
        module.compute_advantages(rollouts, [select_contrast(v, k) for v in views])
        for k in range(WRONG)
    ]
    tables = []
    for i, rollout in enumerate(rollouts):
        missing = (float("nan"),) * len(rollout.ids)
        columns = [missing if a[i] is None else a[i] for a in found]
        tables.append(torch.tensor(columns, dtype=torch.float64).T)
    return tables


def measure(hint: Hint, questions: int = 96, samples: int = 8, seed: int = 1) -> list[Row]:
    """Sample and score; return one row per rollout that has a right and a wrong hint."""
    seed_everything(seed)
    template = REFERENCE.replace("{reference}", "{hint}")
    context = ContrastiveHints(hint=hint, wrong_hints=WRONG, template=template)
    rows = SignalRows(hint)
    module = SelfDistillModule(
        "package:lightning_sd/lab/solver",
        sampler=TransformersSampler(max_new_tokens=64),
        eval_samples=samples,
    )
    data = CritiqueDataModule(ArithmeticTask(val_size=questions), eval_batch_size=16)
    data.predict_split = "val"
    trainer = Trainer(
        accelerator="cpu",
        callbacks=[context, rows],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.predict(module, datamodule=data, return_predictions=False)
    return rows.rows


def write_rows(path: Path) -> None:
    """Measure with both kinds of right hint and write one JSON line per rollout."""
    rows = [row for hint in get_args(Hint) for row in measure(hint)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
