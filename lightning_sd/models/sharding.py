"""Shard a student over data-parallel processes with FSDP2, and gather it where it is used whole.

Sampling and scoring use the parameters of all layers at once, and ranks decode for different
numbers of steps. So the whole model is gathered for each rollout and for each micro-batch.
Parameters, gradients between micro-batches, optimizer and teacher stay sharded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from lightning_sd.models.cache import get_causal_lm


def list_sharded(model: nn.Module) -> list[Any]:
    """List the modules of a model that FSDP2 shards; empty for a model that is whole."""
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def is_sharded(model: nn.Module) -> bool:
    """Tell whether FSDP2 shards a model."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


def shard_model(model: nn.Module, mesh: Any) -> None:
    """Shard a model in place, decoder layer by decoder layer.

    Args:
        model: A transformers causal language model, with LoRA adapters or without.
        mesh: The device mesh with the dimensions ``data_parallel`` and ``tensor_parallel``.

    Raises:
        ValueError: The mesh has several tensor-parallel processes, as Lightning's default has.
    """
    from torch.distributed.fsdp import fully_shard

    size = mesh["tensor_parallel"].size()
    if size > 1:
        raise ValueError(
            f"trainer.strategy: tensor_parallel_size={size}, but students are sharded over "
            "data-parallel processes only. Set data_parallel_size to the number of processes and "
            "tensor_parallel_size to 1."
        )
    mesh = mesh["data_parallel"]
    for layer in get_causal_lm(model).get_decoder().layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    # FSDP2 finds its root in the first forward pass, which must be that of the whole model.
    with torch.no_grad():
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=mesh.device_type))
    release_parameters(model)


def hold_parameters(model: nn.Module) -> None:
    """Gather all parameters, and keep them and the gradients local until they are released.

    Does nothing for a model that is whole.
    """
    modules = list_sharded(model)
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
        module.set_reshard_after_backward(False, recurse=False)
        module.set_requires_gradient_sync(False, recurse=False)
    for module in modules:
        module.unshard()


def release_parameters(model: nn.Module) -> None:
    """Free the gathered parameters; each rank keeps its shard."""
    for module in list_sharded(model):
        module.reshard()


@contextmanager
def gather_parameters(model: nn.Module) -> Iterator[None]:
    """Hold all parameters of a model inside the context; a whole model is left as it is."""
    hold_parameters(model)
    try:
        yield
    finally:
        release_parameters(model)


def reduce_gradients(model: nn.Module, *, sync: bool) -> None:
    """Finish the backward pass of a micro-batch; reduce its gradients over ranks if wanted.

    FSDP2 reduces in a backward pass of the module. A pass over one token with a gradient of zero
    does it on every rank alike, also on a rank that had nothing to learn from.

    Args:
        model: The student, held since before the micro-batch.
        sync: Whether this is the last micro-batch of the optimizer step.
    """
    modules = list_sharded(model)
    if not modules:
        return
    for module in modules:
        module.set_requires_gradient_sync(sync, recurse=False)
        module.set_reshard_after_backward(True, recurse=False)
    device = next(model.parameters()).device
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    (model(input_ids=token).logits.sum() * 0.0).backward()
    if sync:
        release_parameters(model)


def to_full(tensor: Tensor) -> Tensor:
    """Return a tensor with the values of all ranks; every rank must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def to_local(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a tensor; a plain tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Distribute a full tensor as another one is; a plain tensor is copied.

    Args:
        tensor: The full values, equal on all ranks.
        like: The tensor whose distribution the result has.
    """
    if isinstance(like, DTensor):
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
    return tensor.clone()
