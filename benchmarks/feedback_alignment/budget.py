"""Callback that writes the spent budget and the accuracy at each validation."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_sd.types import StepOutput


class BudgetCurve(Callback):
    """Write one line per validation: steps, rollouts, tokens and seconds so far, and accuracy.

    Tokens are counted separately: ``sampled`` by the student; ``written`` by the critic (the
    length of the critique in the student's tokens, also for rule critics, because a language model
    would have to generate them); ``read`` by student and teacher in scoring (prompts and
    completions). Seconds cover training steps with the critic, without validation: ``seconds`` is
    wall-clock time, ``cpu_seconds`` the processor time of this process, which other runs on the
    machine disturb less.

    Args:
        path: A ``.jsonl`` file; each run overwrites it.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.spent: Counter[str] = Counter()
        self._began = (0.0, 0.0)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the file."""
        if stage != "test":
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clocks."""
        self._began = (time.perf_counter(), time.process_time())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clocks, then count."""
        wall, cpu = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        self.spent.update(seconds=wall, cpu_seconds=cpu, **_count_step(outputs["step"], pl_module))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Append a line."""
        values = trainer.callback_metrics
        found = {n: float(v) for n, v in values.items() if n.startswith("val/")}
        spent = {name: round(value, 3) for name, value in self.spent.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": trainer.global_step, **spent, **found}) + "\n")


def _count_step(step: StepOutput, module: Any) -> dict[str, int]:
    """Count rollouts and tokens of one step."""
    counts: Counter[str] = Counter(rollouts=len(step.rollouts))
    for rollout, view in zip(step.rollouts, step.views, strict=True):
        own = len(rollout.ids)
        counts["sampled"] += own
        counts["read"] += own + len(module.encode(rollout.question.messages))
        counts["correct"] += bool(rollout.verdict and rollout.verdict.correct)
        if rollout.critique is not None:
            counts["written"] += _count_tokens(rollout.critique.text, module)
        if view is not None and view.messages:
            counts["taught"] += 1
            counts["read"] += own + len(module.encode(view.messages, view.template_kwargs))
    return dict(counts)


def _count_tokens(text: str, module: Any) -> int:
    ids: Sequence[int] = module.tokenizer(text, add_special_tokens=False).input_ids
    return len(ids)
