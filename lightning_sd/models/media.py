"""Prompts with more than text in them: token ids, and the model's other inputs beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class MediaPrompt(list[int]):
    """Token ids that stand with further inputs of the model, such as a sound's features.

    Wherever ids are expected it is a list of ids: where it says "sound here" it has as many
    placeholders as the model makes vectors of the sound. A prompt of text alone is a plain list.

    Args:
        ids: Token ids, placeholders included.
        inputs: What the model takes beside them, by argument name, such as ``input_features``
            ``[sounds, bins, frames]``. The first dimension counts pieces, in the order in which
            their placeholders stand; a batch is put together along it.
    """

    def __init__(self, ids: Iterable[int], inputs: Mapping[str, Tensor]) -> None:
        super().__init__(ids)
        self.inputs = dict(inputs)


def has_media(prompts: Iterable[Any]) -> bool:
    """Whether any of the prompts has inputs beside its ids."""
    return any(isinstance(prompt, MediaPrompt) for prompt in prompts)


def media_inputs(prompts: Sequence[Any], device: torch.device) -> dict[str, Tensor]:
    """The inputs of a batch beside its ids; empty for prompts of text alone.

    Args:
        prompts: In the order of the rows.
        device: Where the tensors go.

    Returns:
        By argument name, pieces of all rows one after another.

    Raises:
        ValueError: Pieces of different sizes, which the model's processor did not pad.
    """
    found: dict[str, list[Tensor]] = {}
    for prompt in prompts:
        if isinstance(prompt, MediaPrompt):
            for name, value in prompt.inputs.items():
                found.setdefault(name, []).append(value)
    for name, values in found.items():
        shapes = {tuple(value.shape[1:]) for value in values}
        if len(shapes) > 1:
            raise ValueError(
                f"{name}: pieces of one batch have the shapes {sorted(shapes)}; bring them to one "
                "size, or let the processor pad them (such as padding='max_length')."
            )
    return {name: torch.cat(values).to(device) for name, values in found.items()}


def text_of(content: Any) -> str:
    """A message's content as text, other parts named in brackets.

    Example:
        >>> text_of([{"type": "audio", "audio": [0.0]}, {"type": "text", "text": "What is it?"}])
        '[audio]What is it?'
    """
    if isinstance(content, str):
        return content
    return "".join(
        part["text"] if part.get("type") == "text" else f"[{part.get('type')}]" for part in content
    )
