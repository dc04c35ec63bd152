"""End all processes of a run when one of them is lost, and say why."""

from __future__ import annotations

import re
import signal
import sys

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher


class EndOnLostRank(Callback):
    """Says in one line that a run ends because another rank has ended or hangs.

    A rank that waits for another in a collective gets an error at once if the other's process has
    ended, and after the strategy's ``timeout`` if it hangs. The error itself does not say that the
    cause is elsewhere. Processes that Lightning has started for the other ranks are then killed,
    so that none stays behind; those of ``torchrun`` or SLURM are left to them.

    ``timeout`` is 30 minutes by default. Set it above the longest time for which ranks may differ,
    such as the longest sampling or critique::

        trainer = Trainer(strategy=DDPStrategy(timeout=timedelta(minutes=5)), devices=2)

    The command line uses this callback by default.
    """

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Print the line, and kill the processes of the other ranks."""
        reason = find_lost_rank(exception)
        if trainer.world_size == 1 or reason is None:
            return
        sys.stderr.write(
            f"error: rank {trainer.global_rank} ends at step {trainer.global_step}, because "
            f"another rank has ended or does not answer ({reason}). The output of that rank may "
            "say why. Resume with --ckpt_path last.\n"
        )
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            launcher.kill(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)


def find_lost_rank(error: BaseException) -> str | None:
    """Return what a collective says of a rank that is lost; None for other errors.

    Args:
        error: What ended the run. Gloo raises a ``RuntimeError`` that names its source file.
    """
    text = str(error)
    from_gloo = isinstance(error, RuntimeError) and "/gloo/" in text
    if not from_gloo and not isinstance(error, torch.distributed.DistError):
        return None
    return re.sub(r"^\[\S*\] ", "", text).partition(". ")[0].partition("\n")[0]
