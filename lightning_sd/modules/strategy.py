"""Lightning's FSDP2 strategy with the choices that a student needs."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry

from lightning_sd.models.sharding import Gather
from lightning_sd.models.trainable import list_trainable

LARGE_CHECKPOINT = 8 * 2**30
"""Bytes of trained weights and Adam's moments above which each rank writes its own shard."""


class FSDP2Strategy(ModelParallelStrategy):
    """Shards the student over all processes with FSDP2; ``trainer.strategy: fsdp2`` in YAML.

    Lightning's ``ModelParallelStrategy(data_parallel_size=..., tensor_parallel_size=1)`` does the
    same with a fixed kind of checkpoint.

    Args:
        gather: How the student is gathered for forward passes. ``model``: whole, for each rollout
            and each micro-batch. ``layers``: layer by layer (ZeRO-3), for students that do not fit
            one device; rollouts of the default sampler are then slow. ``auto``: ``layers`` if
            weights and gradients take more than half of a GPU's memory.
        save_distributed_checkpoint: True: each rank writes its shard into a folder. False: rank 0
            gathers the trained weights and the optimizer's state into one file. Default: True if
            these take more than 8 GiB.
        replicas: Number of groups of neighboring ranks that each hold the whole student in shards
            (hybrid sharding). With one group per node, weights are gathered within nodes, and only
            gradients travel between them. 1: all ranks share one sharded student.
        **settings: Further arguments of ``ModelParallelStrategy``, such as ``timeout``.

    Raises:
        ValueError: An unknown ``gather``, or ``replicas`` that do not divide the processes.
    """

    def __init__(
        self,
        gather: Gather = "auto",
        save_distributed_checkpoint: bool | None = None,
        replicas: int = 1,
        **settings: Any,
    ) -> None:
        if gather not in ("auto", "model", "layers"):
            raise ValueError(f"gather={gather!r}: choose auto, model or layers.")
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=bool(save_distributed_checkpoint),
            **settings,
        )
        self.gather: Gather = gather
        self.replicas = replicas
        self._chooses_checkpoint = save_distributed_checkpoint is None

    def setup_environment(self) -> None:
        """Form one data-parallel group of all processes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        if self.replicas < 1 or self._data_parallel_size % self.replicas:
            raise ValueError(
                f"replicas={self.replicas}: it must divide the {self._data_parallel_size} "
                "processes; set it to num_nodes."
            )
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Choose the kind of checkpoint once the student is loaded."""
        super().setup(trainer)
        if self._chooses_checkpoint and self.model is not None:
            trained = sum(p.numel() * p.element_size() for _, p in list_trainable(self.model))
            self._save_distributed_checkpoint = 3 * trained > LARGE_CHECKPOINT


StrategyRegistry.register("fsdp2", FSDP2Strategy, description="Sharded student, gathered for use")
