"""Compare answers to held-out questions before and after training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from lightning_sd.metrics import build_answer_metrics, list_question_rows, update_answers

if TYPE_CHECKING:
    from lightning_sd.modules.self_distill import SelfDistillModule

Numbers = dict[str, float]


class BeforeAfter(Callback):
    """Sample k answers to each test question before the first and after the last step.

    Both measurements use the same random numbers, so only the student differs. Training never uses
    these questions.

    Args:
        path: JSON file for both measurements with one row per question. Default: only a table is
            printed.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self.before: Numbers = {}
        self.after: Numbers = {}
        self.questions: dict[str, list[dict[str, Any]]] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the untrained student; a resumed run keeps the measurement of its checkpoint."""
        if not self.before:
            found = measure_held_out(trainer, pl_module, "before training")
            self.before, self.questions["before"] = found

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the trained student and print both."""
        found = measure_held_out(trainer, pl_module, "after training")
        self.after, self.questions["after"] = found
        self._show(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the first measurement, so that a resumed run keeps it."""
        return {"before": self.before, "questions": self.questions}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the first measurement."""
        self.before, self.questions = dict(state_dict["before"]), dict(state_dict["questions"])

    @rank_zero_only
    def _show(self, trainer: Trainer) -> None:
        from rich import get_console
        from rich.table import Table

        table = Table(title=f"Held-out questions, {trainer.global_step} optimizer steps")
        for name in ("", *self.before):
            table.add_column(name.capitalize(), justify="right" if name else "left")
        table.add_row("before", *(_format(n, v) for n, v in self.before.items()))
        table.add_row("after", *(_format(n, v) for n, v in self.after.items()), style="bold")
        get_console().print(table)
        if self.path is not None:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            both = {"before": self.before, "after": self.after, "steps": trainer.global_step}
            text = json.dumps({**both, "questions": self.questions})
            Path(self.path).write_text(text + "\n")


@torch.no_grad()
def measure_held_out(
    trainer: Any, pl_module: Any, when: str
) -> tuple[Numbers, list[dict[str, Any]]]:
    """Measure Avg@k, Pass@k, Maj@k and length on the data module's test questions.

    Args:
        trainer: Its data module gives the questions and judges the answers.
        pl_module: A ``SelfDistillModule``.
        when: Text beside the progress bar.

    Returns:
        Shares between 0 and 1 and the mean length in tokens, over all ranks; and one row per
        question of this rank (:func:`~lightning_sd.metrics.list_question_rows`).
    """
    from rich.progress import Progress

    module: SelfDistillModule = pl_module
    k = module.eval_samples
    metrics, rows = build_answer_metrics(k).to(module.device), []
    loader = trainer.datamodule.test_dataloader()
    with Progress(transient=True, disable=not trainer.is_global_zero) as progress:
        task = progress.add_task(f"Held-out questions {when}", total=len(loader))
        for index, batch in enumerate(loader):
            rollouts = module.answer(batch, index, "eval")
            update_answers(metrics, rollouts, k)
            rows += list_question_rows(rollouts, k)
            progress.advance(task)
    module.shared_work.help_others()  # other ranks may have one batch more
    found = metrics.compute()
    order = (f"avg@{k}", f"pass@{k}", f"maj@{k}", "length")
    return {name: float(found[name]) for name in order}, rows


def _format(name: str, value: float) -> str:
    return f"{value:.1f}" if name == "length" else f"{100 * value:.1f}%"
