"""Load a model on rank 0 alone, and send its structure and its weights to the other ranks.

Other ranks build the model with parameters on the meta device, which take no memory. They get the
values just before these are sharded, decoder layer by decoder layer, so that only rank 0 holds the
whole model.
"""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

log = logging.getLogger(__name__)


def load_on_rank_zero(load: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
    """Load a model and its tokenizer on rank 0; every rank must call it.

    Other ranks get copies of both, with parameters on the meta device and with the values of
    buffers. A model that cannot be sent (quantized weights, or parts that cannot be pickled) is
    loaded by every rank.

    Args:
        load: Loads both.

    Raises:
        RuntimeError: Rank 0 could not load them; rank 0 itself raises its own error.
    """
    message: list[Any] = [None]
    if torch.distributed.get_rank() == 0:
        try:
            loaded = load()
        except Exception as error:
            torch.distributed.broadcast_object_list([str(error)])
            raise
        message = [_pack(loaded)]
    torch.distributed.broadcast_object_list(message)
    if torch.distributed.get_rank() == 0:
        return loaded
    if isinstance(message[0], str):
        raise RuntimeError(f"Rank 0 could not load the model: {message[0]}")
    if message[0] is not None:
        try:
            model, tokenizer = pickle.loads(message[0])
        except Exception as error:  # such as code of the hub that this process has not imported
            log.info("The model's structure cannot be read (%r): this rank loads it.", error)
        else:
            return model, tokenizer
    return load()


@torch.no_grad()
def share_parameters(module: nn.Module, device: torch.device) -> None:
    """Give every rank the parameters of rank 0; every rank must call it.

    Parameters on the meta device get memory on ``device``; tied ones stay tied. Parameters that
    are sharded already are passed over.

    Args:
        module: A model or a part of it, with the same structure on every rank.
        device: A device on which the process group communicates.
    """
    made: dict[nn.Parameter, nn.Parameter] = {}
    for parameter in module.parameters():
        if isinstance(parameter, DTensor):
            continue
        if not parameter.is_meta:
            value = parameter.detach().to(device, copy=True)
            torch.distributed.broadcast(value, src=0)
            parameter.copy_(value)
            continue
        value = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
        torch.distributed.broadcast(value, src=0)
        made[parameter] = nn.Parameter(value, requires_grad=parameter.requires_grad)
    for part in module.modules():
        for name, own in part._parameters.items():
            if own in made:
                part._parameters[name] = made[own]


class _StructurePickler(pickle.Pickler):
    """Pickles parameters without their values."""

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, nn.Parameter):
            return NotImplemented
        if type(value) is not nn.Parameter:
            raise pickle.PicklingError(f"{type(value).__name__} has parts beside its values")
        return _make_meta_parameter, (tuple(value.shape), value.dtype, value.requires_grad)


def _make_meta_parameter(
    shape: tuple[int, ...], dtype: torch.dtype, requires_grad: bool
) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, dtype=dtype, device="meta"), requires_grad)


def _pack(loaded: tuple[Any, Any]) -> bytes | None:
    """Pickle a model without its weights; None if that is not possible."""
    buffer = io.BytesIO()
    try:
        _StructurePickler(buffer, pickle.HIGHEST_PROTOCOL).dump(loaded)
    except Exception as error:
        log.info("The model's structure cannot be sent (%r): every rank loads it.", error)
        return None
    return buffer.getvalue()
