"""The data module, its loaders, and the order of batches."""

from lightning_sd.data.module import CritiqueDataModule

__all__ = ["CritiqueDataModule"]
