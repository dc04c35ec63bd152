"""Telling one set of weights from another without reading all of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from lightning_sd.models import ModelSource

_BLOCK = 4096
_BLOCKS = 256
_VALUES = 64
_WEIGHTS = (".safetensors", ".gguf", ".bin")


def source_fingerprint(source: ModelSource) -> str | None:
    """Fingerprint the files of a model that lies on disk, without loading it.

    Args:
        source: Where the model comes from.

    Returns:
        A hexadecimal hash over a sample of its weight files, or None: there are no such files here
        (a module in memory, or a name that has not been downloaded yet).
    """
    from lightning_sd.models import PretrainedModel

    if not isinstance(source, PretrainedModel):
        return None
    path = source.path() or _downloaded(source.name, source.revision)
    if path is None:
        return None
    found = path.rglob("*") if path.is_dir() else [path]
    files = sorted(file for file in found if file.suffix in _WEIGHTS and file.is_file())
    return files_fingerprint(files) if files else None


def files_fingerprint(files: list[Path]) -> str:
    """Hash names, sizes, and evenly spread blocks of files (the first block of each included)."""
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}:{size};".encode())
        with file.open("rb") as stream:
            for block in range(_BLOCKS):
                stream.seek(block * max(size - _BLOCK, 0) // (_BLOCKS - 1))
                digest.update(stream.read(_BLOCK))
    return digest.hexdigest()


@torch.no_grad()
def module_fingerprint(model: nn.Module) -> str:
    """Hash names, shapes, dtypes and evenly spread values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype};".encode())
        flat = tensor.detach().reshape(-1)
        if flat.numel():
            places = torch.linspace(0, flat.numel() - 1, _VALUES, dtype=torch.float64).long()
            values = flat[places.to(flat.device)].cpu().contiguous()
            digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _downloaded(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        return None
