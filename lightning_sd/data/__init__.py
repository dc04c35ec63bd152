"""Questions, their loaders, and the critique cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_sd.lazy import lazy

if TYPE_CHECKING:
    from lightning_sd.data.cache import CritiqueCache as CritiqueCache
    from lightning_sd.data.module import CritiqueDataModule as CritiqueDataModule

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "lightning_sd.data.cache": ("CritiqueCache",),
        "lightning_sd.data.module": ("CritiqueDataModule",),
    },
)
