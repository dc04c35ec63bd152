"""Load a student, build its optimizer, and keep frozen parameters out of checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_sd._serialize import build
from lightning_sd.models import ModelSource, PretrainedModel
from lightning_sd.models.experts import find_router_loss
from lightning_sd.models.precision import check_fused_clipping, check_update_size
from lightning_sd.models.sharding import Gather, is_sharded, reduce_gradients, shard_model
from lightning_sd.models.stop_ids import find_stop_ids
from lightning_sd.models.trainable import broadcast_trainable, list_trainable
from lightning_sd.modules.global_mean import GlobalMean
from lightning_sd.modules.guards import check_trained_weights
from lightning_sd.modules.optimizer_state import renumber_state
from lightning_sd.scoring import Scores

OptimizerCallable = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerCallable = Callable[[Optimizer], LRScheduler]


class StudentModule(GlobalMean):
    """A module with one student, which is loaded in ``configure_model``.

    Args:
        model: A model source, or the name of a pretrained model.
        optimizer: Function from parameters to an optimizer. Default: AdamW, learning rate 1e-5.
        scheduler: Function from the optimizer to a schedule that steps once per optimizer step.
        max_bad_steps: See :class:`GlobalMean`.

    Raises:
        TypeError: ``model`` is neither a model source nor a name.
    """

    student: nn.Module

    def __init__(
        self,
        model: ModelSource | str,
        optimizer: OptimizerCallable | None = None,
        scheduler: SchedulerCallable | None = None,
        max_bad_steps: int = 3,
    ) -> None:
        super().__init__(max_bad_steps)
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
        """Load the student; a second call does nothing."""
        if hasattr(self, "student"):
            return
        load = self.source.load if self.device_mesh is None else self.source.load_to_shard
        student, self.tokenizer = load()
        self.student = student
        self.router_loss = find_router_loss(student)
        if self._trainer is not None and self.device_mesh is None:
            broadcast_trainable(student, self.trainer.strategy.root_device)
        self.stop_ids = find_stop_ids(student, self.tokenizer)
        if self.device_mesh is not None:
            strategy: Any = self.trainer.strategy
            gather: Gather = getattr(strategy, "gather", "auto")
            replicas: int = getattr(strategy, "replicas", 1)
            shard_model(student, self.device_mesh, gather, replicas)
            self.strict_loading = False
        self.on_student_ready()

    def on_student_ready(self) -> None:
        """Run after the student is loaded and before a checkpoint is read."""

    def add_router_loss(self, loss: Tensor, count: float, scores: Scores) -> Tensor:
        """Add the auxiliary loss of a mixture of experts, if its configuration asks for it.

        Logs ``router_loss``, the auxiliary loss without its weight.

        Args:
            loss: The sum of a micro-batch's loss.
            count: Number of its items, by which the optimizer step weights micro-batches.
            scores: The student's scores of the micro-batch.

        Returns:
            ``loss + count * router_aux_loss_coef * router_loss``; ``loss`` without gradients.
        """
        if self.router_loss is None or not scores.router_logits:
            return loss
        value = self.router_loss.compute(scores.router_logits)
        self.log_mean("router_loss", value * count, count)
        return loss + count * self.router_loss.weight * value

    def configure_optimizers(self) -> Any:
        """Build the optimizer over the trainable parameters, and its schedule."""
        parameters = [parameter for _, parameter in list_trainable(self.student)]
        if not parameters:
            raise ValueError(
                "model: no parameter is trainable. A quantized model trains through `lora` only."
            )
        optimizer = (
            torch.optim.AdamW(parameters, lr=1e-5)
            if self._optimizer is None
            else self._optimizer(parameters)
        )
        check_update_size(optimizer)
        trainer = self._trainer
        if trainer is not None:
            check_fused_clipping(optimizer, str(trainer.precision), trainer.gradient_clip_val)
        if self._scheduler is None:
            return optimizer
        schedule = {"scheduler": self._scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_after_backward(self) -> None:
        """Reduce the gradients of a sharded student over ranks, once per optimizer step."""
        last = not self.trainer.fit_loop.epoch_loop._should_accumulate()
        reduce_gradients(self.student, sync=last)

    def on_train_end(self) -> None:
        """Refuse to end as if all were well with weights that are NaN or infinite."""
        check_trained_weights(self.student, "Training ends with an error")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out parameters that are not trained; the model source loads them again.

        Raises:
            FloatingPointError: A trained weight is NaN or infinite; nothing is written.
        """
        check_trained_weights(self.student, "No checkpoint is written")
        super().on_save_checkpoint(checkpoint)
        if is_sharded(self.student) and self.trainer.strategy._save_distributed_checkpoint:  # type: ignore[attr-defined]
            return  # a distributed checkpoint is loaded by the names of all parameters
        if not is_sharded(self.student) and "optimizer_states" in checkpoint:
            states = zip(checkpoint["optimizer_states"], self.trainer.optimizers, strict=True)
            checkpoint["optimizer_states"] = [renumber_state(*pair, self) for pair in states]
        kept = self._list_saved()
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: state[name] for name in state if name in kept}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load parameters; untrained ones may be missing, trained ones may not.

        Raises:
            RuntimeError: Trained parameters are missing, or the checkpoint holds unknown ones.
        """
        result = super().load_state_dict(state_dict, strict=False, assign=assign)
        missing = [name for name in result.missing_keys if name in self._list_saved()]
        if strict and (missing or result.unexpected_keys):
            raise RuntimeError(
                "The checkpoint does not fit this model (another model or other LoRA settings?): "
                f"missing {missing[:3]}, unexpected {result.unexpected_keys[:3]}."
            )
        return result

    def _list_saved(self) -> set[str]:
        names = {name for name, _ in list_trainable(self)}
        return names | {name for name, _ in self.named_buffers()}
