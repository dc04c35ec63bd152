"""Shard a student over data-parallel processes with FSDP2, and gather it where it is used.

Parameters, gradients, optimizer and teacher are sharded. Two ways to gather are built:

- ``model``: the whole model, for each rollout and for each micro-batch. Ranks may then make
  different numbers of forward passes; gradients are reduced once per optimizer step.
- ``layers``: each layer in each forward and backward pass, as ZeRO-3 does, for models that do not
  fit one device. Only embeddings, head and final norm are held whole. See
  :mod:`lightning_sd.models.passes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor

from lightning_sd.models.cache import get_causal_lm
from lightning_sd.models.passes import EqualPasses
from lightning_sd.models.rank_zero import share_parameters

Gather = Literal["auto", "model", "layers"]

DEVICE_SHARE = 0.5
"""Share of a device's memory that weights and gradients may take to be gathered whole."""

_PASSES: WeakKeyDictionary[nn.Module, EqualPasses] = WeakKeyDictionary()
"""The models that are gathered layer by layer."""


def list_sharded(model: nn.Module) -> list[Any]:
    """List the modules of a model that FSDP2 shards; empty for a model that is whole."""
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def is_sharded(model: nn.Module) -> bool:
    """Tell whether FSDP2 shards a model."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


def gathers_layers(model: nn.Module) -> bool:
    """Tell whether a model is gathered layer by layer."""
    return model in _PASSES


def shard_model(model: nn.Module, mesh: Any, gather: Gather = "auto", replicas: int = 1) -> None:
    """Shard a model in place, decoder layer by decoder layer, with the weights of rank 0.

    Args:
        model: A transformers causal language model, with LoRA adapters or without. On other ranks
            than 0 its parameters may be on the meta device.
        mesh: The device mesh with the dimensions ``data_parallel`` and ``tensor_parallel``.
        gather: How the model is gathered. ``auto``: layer by layer if its weights and gradients
            take more than ``DEVICE_SHARE`` of a GPU's memory.
        replicas: Number of groups of neighboring ranks that each hold all shards.

    Raises:
        ValueError: The mesh has several tensor-parallel processes, as Lightning's default has.
    """
    from torch.distributed.fsdp import fully_shard

    size = mesh["tensor_parallel"].size()
    if size > 1:
        raise ValueError(
            f"trainer.strategy: tensor_parallel_size={size}, but students are sharded over "
            "data-parallel processes only. Use strategy: fsdp2, or set data_parallel_size to the "
            "number of processes and tensor_parallel_size to 1."
        )
    mesh = mesh["data_parallel"]
    if replicas > 1:
        shape = (replicas, mesh.size() // replicas)
        mesh = init_device_mesh(mesh.device_type, shape, mesh_dim_names=("replicate", "shard"))
    auto = gather == "auto"
    by_layer = gather == "layers" or (auto and not _fits_every_rank(model, mesh.device_type))
    decoder, device = get_causal_lm(model).get_decoder(), _find_device(mesh.device_type)
    for layer in _find_layers(decoder):
        share_parameters(layer, device)
        fully_shard(layer, mesh=mesh)
    share_parameters(model, device)
    fully_shard(model, mesh=mesh)
    # FSDP2 finds its root in the first forward pass, which must be that of the whole model.
    with torch.no_grad():
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device))
    if by_layer:
        _PASSES[model] = EqualPasses(decoder)
    release_parameters(model)


def hold_parameters(model: nn.Module) -> None:
    """Gather the model, or all but its layers, until it is released.

    Gradients of what is held stay local. Does nothing for a model that is whole.
    """
    held = _list_held(model)
    for module in held:
        module.set_reshard_after_forward(False, recurse=False)
        module.set_reshard_after_backward(False, recurse=False)
        module.set_requires_gradient_sync(False, recurse=False)
    for module in held:
        module.unshard()


def release_parameters(model: nn.Module) -> None:
    """Free the gathered parameters; each rank keeps its shard."""
    for module in list_sharded(model):
        module.reshard()


def pad_passes(model: nn.Module) -> Tensor | None:
    """Wait for the forward passes of other ranks if the model is gathered layer by layer.

    Every rank must call it after the same kind of passes: with the same parameters, and either all
    with gradients or all without.

    Returns:
        A zero that must be added to the loss, or None; see :meth:`EqualPasses.pad`.
    """
    return _PASSES[model].pad() if model in _PASSES else None


@contextmanager
def gather_parameters(model: nn.Module) -> Iterator[None]:
    """Gather a model for forward passes without gradients; a whole model is left as it is.

    Every rank must enter the context, but the passes may differ in number.
    """
    hold_parameters(model)
    try:
        yield
        with torch.no_grad():
            pad_passes(model)
    finally:
        release_parameters(model)


def reduce_gradients(model: nn.Module, *, sync: bool) -> None:
    """Finish the backward pass of a micro-batch; reduce its gradients over ranks if wanted.

    FSDP2 reduces in a backward pass of the module. A pass over one token with a gradient of zero
    does it on every rank alike, also on a rank that had nothing to learn from. A model that is
    gathered layer by layer has reduced the gradients of its layers in each backward pass, so that
    no rank holds them whole; it reduces the rest in each micro-batch.

    Args:
        model: The student, held since before the micro-batch.
        sync: Whether this is the last micro-batch of the optimizer step.
    """
    if not is_sharded(model):
        return
    sync = sync or gathers_layers(model)
    for module in _list_held(model):
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


def _list_held(model: nn.Module) -> list[Any]:
    """List the sharded modules that stay gathered between forward passes."""
    return [model] if gathers_layers(model) else list_sharded(model)


def _find_layers(decoder: nn.Module) -> nn.ModuleList:
    """Return a decoder's layers, which architectures store under different names."""
    return next(module for module in decoder.children() if isinstance(module, nn.ModuleList))


def _find_device(device_type: str) -> torch.device:
    """Return this process's device."""
    if device_type == "cuda":
        return torch.device(device_type, torch.cuda.current_device())
    return torch.device(device_type)


def fits_whole(model: nn.Module, memory: float) -> bool:
    """Tell whether weights and gradients, gathered whole, leave enough of a device's memory.

    Args:
        model: The model, with its parameters on any device.
        memory: The device's memory in bytes.
    """
    needed = sum(p.nbytes * (2 if p.requires_grad else 1) for p in model.parameters())
    return needed <= DEVICE_SHARE * memory


def _fits_every_rank(model: nn.Module, device_type: str) -> bool:
    """Tell whether the model, gathered whole, fits the device of every rank; a CPU always fits."""
    if device_type != "cuda":
        return True
    memory = torch.cuda.get_device_properties().total_memory
    fits = torch.tensor(int(fits_whole(model, memory)), device=device_type)
    torch.distributed.all_reduce(fits, torch.distributed.ReduceOp.MIN)
    return bool(fits)
