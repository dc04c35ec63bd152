"""Do what followed the batch of a checkpoint: its validation, and the end of the run."""

from __future__ import annotations

from functools import partial
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info


def resume_after_batch(trainer: Trainer) -> None:
    """Let a resumed trainer do the validation and the end of the run that a kill has cut off.

    Checkpoints of a training step are written before the validation that is due after it. Lightning
    skips that validation when it resumes, and ends at once if no step is left.

    Args:
        trainer: A trainer that has loaded a checkpoint, before its fit loop runs.
    """
    loop: Any = trainer.fit_loop
    loop.run = partial(_run, loop)


def _run(loop: Any) -> None:
    del loop.run  # the method of the class again
    loop.setup_data()
    if not loop.max_batches or loop.trainer.limit_train_batches == 0:
        return
    finished = loop.done
    _complete_batch(loop, finished)
    if not finished:
        loop.run()
        return
    rank_zero_info(
        f"The checkpoint is at step {loop.epoch_loop.global_step}, the last one: only what follows "
        "it is done, such as validation and exports."
    )
    loop.reset()
    loop.on_run_start()
    if loop.epoch_progress.current.processed < loop.epoch_progress.current.ready:
        loop.advance()
        loop.on_advance_end()
    loop.on_run_end()


def _complete_batch(loop: Any, finished: bool) -> None:
    """Set the progress of a checkpoint to the validation or the end of the epoch that comes next.

    If neither comes next, Lightning goes on itself.
    """
    epoch_loop = loop.epoch_loop
    trained, evaluated = epoch_loop.batch_progress, epoch_loop.val_loop.batch_progress
    in_batch = trained.total.processed > trained.total.completed
    in_validation = evaluated.total.started > evaluated.total.processed
    due = (in_batch or in_validation) and epoch_loop._should_check_val_fx(loop._data_fetcher)
    ends_epoch = not due and (finished or (in_batch and trained.is_last_batch))
    if in_batch and (due or ends_epoch):
        trained.increment_completed()
    if in_batch and due:
        evaluated.reset()
        evaluated.total.ready = evaluated.total.started = 1
    if ends_epoch:
        epoch_loop._batches_that_stepped = epoch_loop.global_step
        epoch_loop.run = partial(_skip_rest, epoch_loop)


def _skip_rest(epoch_loop: Any, data_fetcher: Any) -> None:
    del epoch_loop.run
    epoch_loop.restarting = False
