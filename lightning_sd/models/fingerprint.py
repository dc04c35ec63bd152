"""Identify a set of weights by a hash over a sample of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lightning_sd.models.sharding import to_full

if TYPE_CHECKING:
    from lightning_sd.models import ModelSource

_BLOCK = 4096
_BLOCKS = 256
_VALUES = 64
_WEIGHTS = (".safetensors", ".gguf", ".bin")


def fingerprint_source(source: ModelSource) -> str | None:
    """Hash the weight files of a model on disk, without loading it.

    Args:
        source: The model's source.

    Returns:
        A hexadecimal hash over a sample of the weight files; None for a module in memory and for a
        name that has not been downloaded.
    """
    from lightning_sd.models import PretrainedModel

    if not isinstance(source, PretrainedModel):
        return None
    path = source.path() or _find_download(source.name, source.revision)
    if path is None:
        return None
    candidates = path.rglob("*") if path.is_dir() else [path]
    files = sorted(file for file in candidates if file.suffix in _WEIGHTS and file.is_file())
    return fingerprint_files(files) if files else None


def fingerprint_files(files: list[Path]) -> str:
    """Hash the names, the sizes and evenly spaced blocks of files, the first block included."""
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}:{size};".encode())
        with file.open("rb") as stream:
            for block in range(_BLOCKS):
                stream.seek(block * max(size - _BLOCK, 0) // (_BLOCKS - 1))
                digest.update(stream.read(_BLOCK))
    return digest.hexdigest()


def fingerprint_module(model: nn.Module) -> str:
    """Hash the names, shapes, dtypes and evenly spaced values of all parameters and buffers."""
    return fingerprint_tensors(model.state_dict())


@torch.no_grad()
def fingerprint_tensors(tensors: Mapping[str, Any]) -> str:
    """Hash the names, shapes, dtypes and evenly spaced values of tensors; skip other values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype};".encode())
        flat = to_full(tensor.detach()).reshape(-1)
        if flat.numel():
            places = torch.linspace(0, flat.numel() - 1, _VALUES, dtype=torch.float64).long()
            values = flat[places.to(flat.device)].cpu().contiguous()
            digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _find_download(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        return None
