"""Train by a method's name from Python, in one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning.pytorch import seed_everything
from torch import nn

from lightning_sd.callbacks import BeforeAfter, StepProgressBar
from lightning_sd.cli.checks import check_settings
from lightning_sd.cli.methods import build_method
from lightning_sd.cli.trainer import Trainer
from lightning_sd.critique import Critic
from lightning_sd.data import CritiqueDataModule
from lightning_sd.models import LoadedModel, ModelSource
from lightning_sd.modules import SelfDistillModule
from lightning_sd.tasks import DatasetTask, RowsTask, Task

_TRAINER_DEFAULTS = {
    "logger": False,
    "enable_checkpointing": False,
    "num_sanity_val_steps": 0,
    "limit_val_batches": 0,
}


@dataclass(frozen=True)
class TrainResult:
    """What :func:`train` returns."""

    module: SelfDistillModule
    """The trained module; ``module.student`` is the transformers model."""
    trainer: Trainer
    """Its trainer, for ``trainer.test(result.module)`` and the other verbs."""
    metrics: dict[str, float]
    """The last value of each logged metric."""
    before: dict[str, float]
    """Avg@k, Pass@k, Maj@k (shares) and length (tokens) of the test questions before training;
    empty without ``measure``."""
    after: dict[str, float]
    """The same after training."""


def train(
    model: str | ModelSource | nn.Module,
    dataset: Any,
    method: str,
    *,
    critic: Critic | None = None,
    tokenizer: Any = None,
    max_steps: int = 100,
    batch_size: int = 8,
    learning_rate: float = 1e-5,
    seed: int = 1,
    measure: bool = True,
    module_kwargs: Mapping[str, Any] | None = None,
    data_kwargs: Mapping[str, Any] | None = None,
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train a model by a method.

    Args:
        model: Hub name, folder, a :class:`~lightning_sd.models.ModelSource` such as
            ``PretrainedModel(name, lora=LoRA(r=16))``, or a module in memory.
        dataset: A :class:`~lightning_sd.tasks.Task`; or a ``datasets.Dataset``, a list of rows, or
            the path of a data set. Then its layout is recognized, and a tenth each is held out for
            validation and test; for other settings give a ``DatasetTask`` or ``RowsTask``.
        method: Name of the method, such as ``step_aligned``. :func:`describe_method` shows its
            composition, and :func:`list_methods` lists the names.
        critic: Writes critiques, for methods whose context shows them.
        tokenizer: The tokenizer of a module in memory.
        max_steps: Number of optimizer steps.
        batch_size: Training questions per step and process.
        learning_rate: Learning rate of AdamW.
        seed: Seed of Python, NumPy and torch.
        measure: Answer the test questions before and after training.
        module_kwargs: Arguments of ``SelfDistillModule``; they replace those of the method.
        data_kwargs: Arguments of ``CritiqueDataModule``.
        trainer_kwargs: Arguments of Lightning's trainer. ``callbacks`` are added to the method's.

    Raises:
        ValueError: There is no such method, or two settings do not fit together.
        TypeError: A module in memory has no tokenizer.
    """
    context, arguments = build_method(method)
    seed_everything(seed, verbose=False)
    arguments["optimizer"] = partial(torch.optim.AdamW, lr=learning_rate)
    module = SelfDistillModule(
        _to_source(model, tokenizer), **{**arguments, **(module_kwargs or {})}
    )
    data = CritiqueDataModule(
        _to_task(dataset), critic, **{"batch_size": batch_size, **(data_kwargs or {})}
    )
    held_out = BeforeAfter()
    options = {**_TRAINER_DEFAULTS, **(trainer_kwargs or {})}
    callbacks = [context, *options.pop("callbacks", [])]
    callbacks += [held_out] if measure else []
    callbacks += [StepProgressBar()] if options.get("enable_progress_bar", True) else []
    trainer = Trainer(max_steps=max_steps, callbacks=callbacks, **options)
    check_settings("fit", module, data, callbacks)
    trainer.fit(module, datamodule=data)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return TrainResult(module, trainer, metrics, held_out.before, held_out.after)


def _to_source(model: str | ModelSource | nn.Module, tokenizer: Any) -> str | ModelSource:
    if not isinstance(model, nn.Module):
        return model
    if tokenizer is None:
        raise TypeError("tokenizer=None: give the tokenizer of a module in memory.")
    return LoadedModel(model, tokenizer)


def _to_task(dataset: Any) -> Task:
    if isinstance(dataset, Task):
        return dataset
    kind = DatasetTask if isinstance(dataset, str) else RowsTask
    return kind(dataset, val_fraction=0.1)
