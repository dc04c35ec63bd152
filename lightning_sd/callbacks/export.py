"""Export a trained student as a transformers folder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info


class ExportPretrained(Callback):
    """Write the student and its tokenizer with ``save_pretrained`` when training ends.

    Args:
        dirpath: The folder.
        merge: With LoRA, merge the adapter into the model, which then loads with transformers
            alone. False: write only the adapter, which peft loads on top of the base model.
    """

    def __init__(self, dirpath: str, merge: bool = True) -> None:
        self.dirpath, self.merge = dirpath, merge

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export on rank 0."""
        if trainer.is_global_zero:
            module: Any = pl_module
            export_pretrained(module.student, module.tokenizer, self.dirpath, merge=self.merge)
            rank_zero_info(f"The trained student is in {self.dirpath} (transformers format).")


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
        model = copy.deepcopy(student).merge_and_unload()
    model.save_pretrained(path)
    getattr(tokenizer, "processor", tokenizer).save_pretrained(path)
