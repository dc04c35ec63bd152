"""Resume runs with changed settings, and say what changed."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_sd.callbacks.resumed_fit import resume_after_batch

_PROGRESS = frozenset(
    {"last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial"}
)
"""Parts of a scheduler's state that say how far it is; the rest are settings."""


class ExactResume(Callback):
    """Apply this run's optimizer and scheduler settings to a resumed run, and print differences.

    Lightning restores the settings of the optimizer together with its state, so a changed learning
    rate has no effect. This callback keeps the restored state (moments, step counts) and sets the
    settings of the current run. A scheduler is advanced to the restored step with its current
    settings.

    It also does the validation that was due after the checkpoint's step, and the end of the run
    (validation, exports) if that step was the last. A run that ``max_steps`` stopped within an
    epoch may continue with a larger ``max_steps``. ``last.ckpt`` of every
    ``ModelCheckpoint(save_last=True)`` is saved at the last step. The command line adds this
    callback to ``fit``.

    Args:
        config: Plain settings of this run, stored in checkpoints; differences to the settings in
            the checkpoint are printed when a run is resumed. Default: none.
    """

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self.config = dict(config or {})
        self._resumed = False
        self._groups: list[list[dict[str, Any]]] = []
        self._schedulers: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the settings of this run."""
        return {"config": self.config}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Print how the settings of this run differ from those in the checkpoint."""
        if not self.config:
            return
        for line in describe_changes(state_dict.get("config", {}), self.config):
            rank_zero_info(f"Resumed with {line}")

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse a checkpoint beyond ``max_steps``; reopen an epoch that ``max_steps`` ended."""
        if not trainer.training and trainer.state.fn != "fit":
            return
        self._resumed = True
        step, limit = checkpoint.get("global_step", 0), trainer.max_steps
        if 0 <= limit < step:
            raise ValueError(
                f"trainer.max_steps={limit}: the checkpoint is at step {step} already; set a "
                "larger max_steps."
            )
        reopen_epoch(checkpoint)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the settings of this run before the checkpoint replaces them."""
        self._groups = [[_settings(g) for g in o.param_groups] for o in trainer.optimizers]
        self._schedulers = [
            copy.deepcopy(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs
        ]
        if self._resumed:
            resume_after_batch(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the settings of this run in the restored optimizers and schedulers."""
        if not self._resumed:
            return
        for optimizer, groups in zip(trainer.optimizers, self._groups, strict=True):
            for group, settings in zip(optimizer.param_groups, groups, strict=True):
                _apply_settings(group, settings, type(optimizer).__name__)
        configs = trainer.lr_scheduler_configs
        for config, settings in zip(configs, self._schedulers, strict=True):
            _advance_scheduler(config.scheduler, settings)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last step."""
        for callback in trainer.checkpoint_callbacks:
            if (
                isinstance(callback, ModelCheckpoint)
                and callback.save_last
                and callback._last_global_step_saved != trainer.global_step
            ):
                callback._save_last_checkpoint(trainer, callback._monitor_candidates(trainer))


def describe_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Describe each setting that differs between two nested configurations.

    Args:
        old: Settings of the checkpoint.
        new: Settings of this run.

    Yields:
        One text per setting; settings that only one of them has count as None.

    Example:
        >>> list(describe_changes({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}))
        ['a.b=3 (the checkpoint has 1).']
    """
    before, after = dict(_flatten(old)), dict(_flatten(new))
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name) and not name.endswith("ckpt_path"):
            yield f"{name}={after.get(name)!r} (the checkpoint has {before.get(name)!r})."


def reopen_epoch(checkpoint: dict[str, Any]) -> None:
    """Mark the current epoch as unfinished if its batches were not all used.

    A run that stops at ``max_steps`` counts its epoch as processed, so a resumed run would end at
    once with "max_epochs reached".

    Args:
        checkpoint: The checkpoint, changed in place.
    """
    loop = checkpoint.get("loops", {}).get("fit_loop")
    if loop is None:
        return
    epoch = loop["epoch_progress"]["current"]
    batches = loop["epoch_loop.batch_progress"]
    unfinished = not batches["is_last_batch"] and batches["current"]["completed"] > 0
    if unfinished and epoch["processed"] == epoch["ready"]:
        for name in ("processed", "completed"):
            epoch[name] = epoch["ready"] - 1


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}


def _apply_settings(group: dict[str, Any], settings: Mapping[str, Any], optimizer: str) -> None:
    """Set the settings; the rate of a scheduled optimizer follows from its initial rate."""
    scheduled = "initial_lr" in settings
    for name, value in settings.items():
        if scheduled and name == "lr":
            continue
        old = group.get(name)
        if old != value:
            shown = "lr" if name == "initial_lr" else name
            rank_zero_info(f"{optimizer}.{shown}: {old!r} in the checkpoint, now {value!r}.")
            if name == "initial_lr":
                group["lr"] *= value / old if old else 1.0
            group[name] = value


def _advance_scheduler(scheduler: Any, settings: Mapping[str, Any]) -> None:
    """Give a scheduler new settings and advance it to its step; unchanged ones stay as they are."""
    restored = scheduler.state_dict()
    changed = {
        name: value
        for name, value in settings.items()
        if name not in _PROGRESS and restored.get(name) != value
    }
    if not changed:
        return
    name = type(scheduler).__name__
    for setting, value in changed.items():
        if setting != "base_lrs":
            old = restored.get(setting)
            rank_zero_info(f"{name}.{setting}: {old!r} in the checkpoint, now {value!r}.")
    if isinstance(scheduler, ReduceLROnPlateau):
        # Its rate follows from past metrics, which cannot be replayed.
        scheduler.load_state_dict({**restored, **changed})
        return
    steps = restored["last_epoch"]
    for group in scheduler.optimizer.param_groups:
        group["lr"] = group["initial_lr"]
    scheduler.load_state_dict(dict(settings))
    with warnings.catch_warnings():
        # Advancing without optimizer steps is intended here.
        warnings.simplefilter("ignore")
        for _ in range(steps - scheduler.last_epoch):
            scheduler.step()


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from _flatten(part, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        for index, part in enumerate(value):
            yield from _flatten(part, f"{prefix}.{index}")
    else:
        yield prefix, value
