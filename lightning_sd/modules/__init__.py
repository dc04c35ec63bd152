"""The LightningModules, and a strategy for them."""

from lightning_sd.modules.self_distill import SelfDistillModule
from lightning_sd.modules.strategy import FSDP2Strategy
from lightning_sd.modules.supervised import SupervisedModule

__all__ = [
    "FSDP2Strategy",
    "SelfDistillModule",
    "SupervisedModule",
]
