"""Prompts that hold token ids and further inputs of the model, such as sound or images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class MediaPrompt(list[int]):
    """A list of token ids with further inputs of the model, such as a sound's features.

    The ids hold one placeholder for each vector that the model computes from the sound or image. A
    prompt of text alone is a plain list.

    Args:
        ids: Token ids, placeholders included.
        inputs: Further arguments of the model by name, such as ``input_features``
            ``[sounds, bins, frames]``. The first dimension counts the pieces, in the order of their
            placeholders; batches are concatenated along it.
    """

    def __init__(self, ids: Iterable[int], inputs: Mapping[str, Tensor]) -> None:
        super().__init__(ids)
        self.inputs = dict(inputs)


def has_media(prompts: Iterable[Any]) -> bool:
    """Return whether any prompt has inputs beside its ids."""
    return any(isinstance(prompt, MediaPrompt) for prompt in prompts)


def collect_media_inputs(prompts: Sequence[Any], device: torch.device) -> dict[str, Tensor]:
    """Concatenate the inputs of a batch beside its ids; empty for prompts of text alone.

    Args:
        prompts: The prompts, in the order of the rows.
        device: The device of the result.

    Returns:
        The pieces of all rows, one after another, by argument name.

    Raises:
        ValueError: The pieces have different sizes, because the processor did not pad them.
    """
    pieces: dict[str, list[Tensor]] = {}
    for prompt in prompts:
        if isinstance(prompt, MediaPrompt):
            for name, value in prompt.inputs.items():
                pieces.setdefault(name, []).append(value)
    for name, values in pieces.items():
        shapes = {tuple(value.shape[1:]) for value in values}
        if len(shapes) > 1:
            raise ValueError(
                f"{name}: pieces of one batch have the shapes {sorted(shapes)}; give them one "
                "size, or let the processor pad them (such as padding='max_length')."
            )
    return {name: torch.cat(values).to(device) for name, values in pieces.items()}
