"""Plain transformers folders from a trained student."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info


class ExportPretrained(Callback):
    """Writes the student with ``save_pretrained`` when training ends, tokenizer included.

    Args:
        dirpath: The folder.
        merge: With LoRA: fold the adapter into the model (loads with transformers alone). False:
            write the adapter only (loads with peft on top of the base model).
    """

    def __init__(self, dirpath: str, merge: bool = True) -> None:
        self.dirpath, self.merge = dirpath, merge

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export on the first rank."""
        if trainer.is_global_zero:
            module: Any = pl_module
            export_pretrained(module.student, module.tokenizer, self.dirpath, merge=self.merge)
            rank_zero_info(f"The student stands in {self.dirpath} (transformers format).")


def export_pretrained(student: Any, tokenizer: Any, dirpath: str | Path, *, merge: bool) -> None:
    """Write a model and its tokenizer so that plain transformers answers as the student does.

    Args:
        student: A transformers model, or one in a peft wrapper.
        tokenizer: Its tokenizer, which is written with the processor that it may belong to.
        dirpath: The folder; made if it is not there.
        merge: Fold an adapter into the weights. The student itself stays as it is.
    """
    path = Path(dirpath)
    path.mkdir(parents=True, exist_ok=True)
    model = student
    if merge and hasattr(student, "merge_and_unload"):
        model = copy.deepcopy(student).merge_and_unload()
    model.save_pretrained(path)
    getattr(tokenizer, "processor", tokenizer).save_pretrained(path)
