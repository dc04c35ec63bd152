"""Export a trained student as a transformers folder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lightning_sd.callbacks.before_after import BeforeAfter
from lightning_sd.callbacks.model_card import write_model_card
from lightning_sd.callbacks.report import compare_answers
from lightning_sd.callbacks.resume import ExactResume
from lightning_sd.models import LoadedModel
from lightning_sd.models.sharding import is_sharded, to_full
from lightning_sd.models.trainable import list_trainable


class ExportPretrained(Callback):
    """Write the student and its tokenizer with ``save_pretrained`` when training ends.

    The folder also gets a model card with the settings. List it after ``BeforeAfter``, whose
    results it shows.

    Args:
        dirpath: The folder.
        merge: With LoRA, merge the adapter into the model, which then loads with transformers
            alone. False: write only the adapter, which peft loads on top of the base model.
    """

    def __init__(self, dirpath: str, merge: bool = True) -> None:
        self.dirpath, self.merge = dirpath, merge

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse at once what could not be exported after training."""
        module: Any = pl_module
        if is_sharded(module.student) and isinstance(module.source, LoadedModel):
            raise ValueError(
                "ExportPretrained: a sharded student is exported through a second copy, which a "
                "LoadedModel cannot give. Name the model with PretrainedModel, or use ddp."
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export on rank 0; the ranks of a sharded student gather it there."""
        module: Any = pl_module
        student = module.student
        if is_sharded(student):
            student = load_whole(module, keep=trainer.is_global_zero)
        if not trainer.is_global_zero:
            return
        export_pretrained(student, module.tokenizer, self.dirpath, merge=self.merge)
        callbacks: list[Any] = getattr(trainer, "callbacks")  # noqa: B009 - untyped in Lightning
        questions = next((c.questions for c in callbacks if isinstance(c, BeforeAfter)), {})
        config = next((c.config for c in callbacks if isinstance(c, ExactResume)), {})
        write_model_card(
            self.dirpath,
            config or {"model": {"init_args": dict(module.hparams)}},
            trainer.global_step,
            compare_answers(questions),
        )
        rank_zero_info(f"The trained student is in {self.dirpath} (transformers format).")


@torch.no_grad()
def load_whole(module: Any, *, keep: bool) -> nn.Module | None:
    """Load a second student in host memory, with the trained parameters of a sharded one.

    Args:
        module: A module with a sharded student; every rank must call this.
        keep: Whether this rank loads it.
    """
    whole = module.source.load()[0] if keep else None
    targets = dict(whole.named_parameters()) if whole is not None else {}
    for name, parameter in list_trainable(module.student):
        full = to_full(parameter)
        if keep:
            targets[name].copy_(full)
    return whole


def export_pretrained(student: Any, tokenizer: Any, dirpath: str | Path, *, merge: bool) -> None:
    """Write a model and its tokenizer to a folder that plain transformers loads.

    Args:
        student: A transformers model, or one in a peft wrapper; it is not changed.
        tokenizer: Its tokenizer. If it belongs to a processor, the processor is written.
        dirpath: The folder; created if it does not exist.
        merge: Merge an adapter into the weights.
    """
    path = Path(dirpath)
    path.mkdir(parents=True, exist_ok=True)
    model = student
    if merge and hasattr(student, "merge_and_unload"):
        _detach_states(student)
        model = copy.deepcopy(student).merge_and_unload()
    model.save_pretrained(path)
    getattr(tokenizer, "processor", tokenizer).save_pretrained(path)


def _detach_states(model: nn.Module) -> None:
    """Detach what layers keep of the last forward pass (RecurrentGemma): graphs are not copied."""
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor) and value.grad_fn is not None:
                setattr(module, name, value.detach())
