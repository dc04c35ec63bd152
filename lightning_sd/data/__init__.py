"""Questions, their loaders, and the critique cache."""

from lightning_sd.data.cache import CritiqueCache
from lightning_sd.data.module import CritiqueDataModule

__all__ = ["CritiqueCache", "CritiqueDataModule"]
