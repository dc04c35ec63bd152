"""Write a page about a training run when it ends."""

from __future__ import annotations

import math
import shlex
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_sd.callbacks.before_after import BeforeAfter
from lightning_sd.callbacks.report_page import Page, write_page
from lightning_sd.callbacks.resume import ExactResume
from lightning_sd.callbacks.samples import COLUMNS, build_sample_row
from lightning_sd.metrics.intervals import difference_over_seeds, mean_over_seeds
from lightning_sd.text.cleaning import hide_credentials

Series = dict[str, list[tuple[int, float]]]
PREFIXES = ("train/", "monitor/", "val/", "advantage/")
ANSWERS = {"avg": "Avg@k, %", "pass": "Pass@k, %", "maj": "Maj@k, %", "length": "length, tokens"}


class TrainingReport(Callback):
    """Write a self-contained HTML page with curves, samples, settings and the command.

    The page has a curve per logged metric, the table of a
    :class:`~lightning_sd.callbacks.BeforeAfter` among the callbacks with 95% intervals over
    questions, samples of the first and the last step, all settings, and the command of the run.
    It needs no network. A run that fails leaves a page with the error.

    List it after ``StepMonitor`` and ``BeforeAfter``, whose values it shows.

    Args:
        path: The page; it is overwritten.
        rows: Rollouts per sample table.

    Raises:
        ValueError: ``rows`` is below 1.
    """

    def __init__(self, path: str = "out/report.html", rows: int = 4) -> None:
        if rows < 1:
            raise ValueError(f"rows={rows}: must be at least 1.")
        self.path, self.rows = path, rows
        self.series: Series = defaultdict(list)
        self.samples: dict[str, list[tuple[str, ...]]] = {}
        self._step = 0

    def state_dict(self) -> dict[str, Any]:
        """Return curves and samples, so that a resumed run continues them."""
        return {"series": dict(self.series), "samples": self.samples}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore curves and samples."""
        self.series = defaultdict(list, state_dict["series"])
        self.samples = dict(state_dict["samples"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the step at which training starts."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the metrics and some rollouts of each optimizer step."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        self._keep(trainer, ("train/", "monitor/", "advantage/"))
        output = outputs.get("step") if isinstance(outputs, dict) else None
        if output is not None:
            rows = zip(output.rollouts, output.views, output.advantages, strict=True)
            table = [build_sample_row(*row) for row, _ in zip(rows, range(self.rows), strict=False)]
            self.samples.setdefault("first", table)
            self.samples["last"] = table

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the validation metrics."""
        if not trainer.sanity_checking:
            self._keep(trainer, ("val/",))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the page, after every callback's own ``on_train_end``."""
        self._write(trainer, pl_module, None)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Write the page with the error."""
        if self.series:
            self._write(trainer, pl_module, f"{type(exception).__name__}: {exception}")

    def _keep(self, trainer: Trainer, prefixes: tuple[str, ...]) -> None:
        for name, value in trainer.callback_metrics.items():
            if name.startswith(prefixes) and not name.endswith(("_step", "_epoch")):
                number = float(value)
                if math.isfinite(number):
                    self.series[name].append((trainer.global_step, number))

    def _write(self, trainer: Trainer, pl_module: LightningModule, error: str | None) -> None:
        if not trainer.is_global_zero:
            return
        callbacks: list[Any] = getattr(trainer, "callbacks")  # noqa: B009 - untyped in Lightning
        comparison = next((c for c in callbacks if isinstance(c, BeforeAfter)), None)
        settings = next((c.config for c in callbacks if isinstance(c, ExactResume)), None)
        page = Page(
            title=f"{type(pl_module).__name__}, {trainer.global_step} optimizer steps",
            error=error and hide_credentials(error),
            series=self.series,
            answers=compare_answers(comparison.questions) if comparison else [],
            columns=COLUMNS,
            samples=self.samples,
            settings=settings or dict(pl_module.hparams),
            command=hide_credentials(format_command()),
            versions=list_versions(),
        )
        write_page(page, Path(self.path))
        rank_zero_info(f"The report of this run is {self.path}.")


def compare_answers(questions: Mapping[str, list[dict[str, Any]]]) -> list[tuple[str, ...]]:
    """Compare held-out answers before and after training, with intervals over questions.

    Args:
        questions: One row per question, ``before`` and ``after``, as
            :class:`~lightning_sd.callbacks.BeforeAfter` keeps and writes them.

    Returns:
        Rows of name, before, after and difference; empty if a measurement is missing.
    """
    before, after = (questions.get(when, []) for when in ("before", "after"))
    if not before or len(before) != len(after):
        return []
    rows = []
    for name, label in ANSWERS.items():
        old, new = ([[float(row[name]) for row in part]] for part in (before, after))
        scale = 1.0 if name == "length" else 100.0
        estimates = mean_over_seeds(old), mean_over_seeds(new), difference_over_seeds(new, old)
        rows.append((label, *(estimate.format(scale) for estimate in estimates)))
    return rows


def format_command() -> str:
    """Return the command that started the process, ready for a shell."""
    program, *words = sys.argv
    start = [program]
    if program.endswith("__main__.py"):
        start = ["python", "-m", Path(program).parent.name]
    elif program.endswith(".py"):
        start = ["python", program]
    return shlex.join([*start, *words])


def list_versions() -> dict[str, str]:
    """List the versions of the packages that a result depends on."""
    import lightning
    import transformers

    import lightning_sd

    return {
        "python": sys.version.split()[0],
        "lightning_sd": lightning_sd.__version__,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "transformers": transformers.__version__,
    }
