"""The LightningModules."""

from lightning_sd.modules.self_distill import SelfDistillModule
from lightning_sd.modules.supervised import SupervisedModule

__all__ = [
    "SelfDistillModule",
    "SupervisedModule",
]
