"""What every module that trains a language model shares: loading, optimizer, lean checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_sd._serialize import build
from lightning_sd.models import ModelSource, PretrainedModel
from lightning_sd.models.stop_ids import find_stop_ids
from lightning_sd.models.trainable import list_trainable
from lightning_sd.modules.global_mean import GlobalMean

OptimizerCallable = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerCallable = Callable[[Optimizer], LRScheduler]


class StudentModule(GlobalMean):
    """A student that is loaded when training is set up, and saved without its frozen weights.

    Args:
        model: Where the student comes from; a name stands for ``PretrainedModel(name)``.
        optimizer: From parameters to an optimizer; None: AdamW with learning rate 1e-5.
        scheduler: From the optimizer to a schedule, stepped once an optimizer step.

    Raises:
        TypeError: ``model`` is neither a source nor a name.
    """

    student: nn.Module

    def __init__(
        self,
        model: ModelSource | str,
        optimizer: OptimizerCallable | None = None,
        scheduler: SchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        source = PretrainedModel(model) if isinstance(model, str) else build(model)
        if not isinstance(source, ModelSource):
            raise TypeError(
                f"model is a {type(source).__name__}: give a name, a ModelSource such as "
                "PretrainedModel, or a module in memory as LoadedModel(module, tokenizer)."
            )
        self.source: ModelSource = source
        self._optimizer, self._scheduler = optimizer, scheduler
        self.tokenizer: Any = None

    def configure_model(self) -> None:
        """Load the student, once, however often Lightning asks."""
        if hasattr(self, "student"):
            return
        student, self.tokenizer = self.source.load()
        self.student = student
        self.stop_ids = find_stop_ids(student, self.tokenizer)
        self.on_student_ready()

    def on_student_ready(self) -> None:
        """Hook: the student is loaded, and no checkpoint has been read yet."""

    def configure_optimizers(self) -> Any:
        """Build the optimizer over the trainable weights, and its schedule."""
        parameters = [parameter for _, parameter in list_trainable(self.student)]
        if not parameters:
            raise ValueError(
                "model: nothing is trainable. A quantized model trains through `lora` only."
            )
        optimizer = (
            torch.optim.AdamW(parameters, lr=1e-5)
            if self._optimizer is None
            else self._optimizer(parameters)
        )
        if self._scheduler is None:
            return optimizer
        schedule = {"scheduler": self._scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out weights that are not trained: their source gives them back."""
        kept = self._kept()
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: state[name] for name in state if name in kept}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load weights; those that are not trained may be missing, trained ones may not.

        Raises:
            RuntimeError: Trained weights are missing, or there are weights without a place.
        """
        result = super().load_state_dict(state_dict, strict=False, assign=assign)
        missing = [name for name in result.missing_keys if name in self._kept()]
        if strict and (missing or result.unexpected_keys):
            raise RuntimeError(
                "The checkpoint does not fit this model (other LoRA settings or another model?): "
                f"missing {missing[:3]}, unexpected {result.unexpected_keys[:3]}."
            )
        return result

    def _kept(self) -> set[str]:
        names = {name for name, _ in list_trainable(self)}
        return names | {name for name, _ in self.named_buffers()}
