"""Write a checkpoint when the process is asked to end, and end with the signal's exit code."""

from __future__ import annotations

import contextlib
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)
)
INTERRUPTED = "last-interrupted.ckpt"
"""Name of the checkpoint; ``--ckpt_path last`` finds it if it is the newest."""


class SaveOnSignal(Callback):
    """Ends training at the end of the running batch, with a checkpoint, when a signal comes.

    SIGTERM, SIGUSR1 and SIGINT (Ctrl-C) end the process with 143, 138 and 130, so that
    ``fit && next`` does not go on. A second signal ends it at once, without a checkpoint. The file
    ``last-interrupted.ckpt`` is in the folder of the first ``ModelCheckpoint``, or else in the
    trainer's ``default_root_dir``; it is removed when training ends normally.

    A batch that takes longer than the grace time of whoever sent the signal ends without one.

    Under SLURM with Lightning's ``SLURMEnvironment(auto_requeue=True)``, which is its default, the
    requeue signal saves and requeues through Lightning, also at the end of the running batch.

    The command line uses it by default. Elsewhere put it last in the list of callbacks, so that the
    checkpoint holds what the others did in the batch.
    """

    def __init__(self) -> None:
        self._received = 0
        self._saved = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals; Lightning has installed its own handlers by now."""
        self._received, self._saved = 0, False
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._receive)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if any process has received a signal."""
        self._agree(trainer)
        if not self._received:
            return
        if self._received == _get_requeue_signal(trainer):
            # Saves `hpc_ckpt_N.ckpt`, which the next start of the job finds, and requeues the job.
            requeue: Any = trainer._signal_connector._slurm_sigusr_handler_fn
            requeue(self._received, None)
            self._saved = True
        else:
            self._save(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End, now that the values of the saved batch are logged."""
        self._end_if_saved(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End before a validation, which the resumed run does."""
        if self._saved:
            self._save_before_validation(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """End within a validation, which the resumed run does from its start.

        Several processes end after the next training batch instead: they may have different numbers
        of validation batches, so they cannot agree here.
        """
        if self._received and trainer.world_size == 1:
            self._save_before_validation(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End before the next epoch."""
        self._end_if_saved(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back, and remove a checkpoint that is not needed any more."""
        self._restore()
        if trainer.is_global_zero:
            get_interrupted_path(trainer).unlink(missing_ok=True)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back."""
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received:
            raise SystemExit(128 + number)
        self._received = number
        with contextlib.suppress(RuntimeError):  # the signal came while a line was written
            rank_zero_info(
                f"\nReceived {signal.Signals(number).name}: after this batch a checkpoint is "
                f"written, and the run ends with exit code {128 + number}. Send it again to end at "
                "once, without a checkpoint."
            )

    def _agree(self, trainer: Trainer) -> None:
        """Let all processes end if one has received a signal."""
        if trainer.world_size > 1:
            received = torch.tensor(self._received, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(received, torch.distributed.ReduceOp.MAX)
            self._received = int(received)

    def _save(self, trainer: Trainer) -> None:
        path = get_interrupted_path(trainer)
        trainer.save_checkpoint(path)
        self._saved = True
        rank_zero_info(f"Saved {path}; resume with --ckpt_path last.")

    def _save_before_validation(self, trainer: Trainer) -> None:
        """Save as if the validation had started and no batch of it had ended, and end."""
        progress: Any = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        progress.reset()
        progress.total.ready = progress.total.started = 1
        self._save(trainer)
        self._end_if_saved(trainer)

    def _end_if_saved(self, trainer: Trainer) -> None:
        if self._saved:
            raise SystemExit(128 + self._received)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            with contextlib.suppress(TypeError):  # a handler that was not set from Python
                signal.signal(number, handler)
        self._before = {}


def get_interrupted_path(trainer: Trainer) -> Path:
    """Return where the checkpoint of an interrupted run is written."""
    folders = [
        callback.dirpath
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint) and callback.dirpath
    ]
    return Path(folders[0] if folders else trainer.default_root_dir) / INTERRUPTED


def _get_requeue_signal(trainer: Trainer) -> int | None:
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
        return int(environment.requeue_signal or 0) or None
    return None
