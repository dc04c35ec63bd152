"""Encode chat messages as token ids, and as further inputs of a multimodal model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from lightning_sd.models.media import MediaPrompt
from lightning_sd.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A processor takes milliseconds per sound, and a step encodes a prompt once per rollout.
_RECENT: OrderedDict[tuple[Any, ...], tuple[Any, list[int]]] = OrderedDict()
_MOST_RECENT = 128


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[int]:
    """Render messages with the chat template, up to the start of the assistant's answer.

    Only prompts are encoded. Student and teacher append the ids that were sampled, because decoding
    and encoding a completion again may give other tokens.

    A message's content is a string, or a list of parts in transformers' multimodal format, such as
    ``{"type": "audio", "audio": samples}`` and ``{"type": "text", "text": ...}``. Parts need a
    model with a processor.

    Args:
        tokenizer: A tokenizer with a chat template; with ``.processor`` for prompts with parts.
        messages: The prompt; its last message must not be the assistant's.
        template_kwargs: Arguments of the chat template, such as Qwen3's ``enable_thinking``.

    Returns:
        Token ids, including special tokens and the opening of the assistant's turn. Messages with
        sound or images give a :class:`~lightning_sd.models.media.MediaPrompt`, which is a list of
        ids too. Recent ones are kept, and the same parts give the same object again.

    Raises:
        ValueError: There are no messages, the last one is the assistant's, or there are parts but
            no processor.
    """
    if not messages:
        raise ValueError("A prompt needs at least one message; messages is empty.")
    if messages[-1]["role"] == "assistant":
        raise ValueError(
            "A prompt must end before the assistant's turn, but the last of "
            f"{len(messages)} messages has role 'assistant'; drop it."
        )
    if not all(isinstance(message["content"], str) for message in messages):
        return _encode_parts(tokenizer, messages, template_kwargs or {})
    ids: Any = tokenizer.apply_chat_template(
        [{"role": message["role"], "content": message["content"]} for message in messages],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,  # transformers 5 would give a BatchEncoding
        **(template_kwargs or {}),
    )
    return [int(token) for token in ids]


def _encode_parts(
    tokenizer: Any, messages: Sequence[Message], template_kwargs: Mapping[str, Any]
) -> list[int]:
    processor = getattr(tokenizer, "processor", None)
    if processor is None:
        raise ValueError(
            "A message's content is a list of parts, but the model has no processor: load a "
            "multimodal model, or pass LoadedModel(model, processor)."
        )
    key = (id(tokenizer), _make_key(messages), _make_key(template_kwargs))
    if key in _RECENT:
        _RECENT.move_to_end(key)
        return _RECENT[key][1]
    encoded = processor.apply_chat_template(
        [{"role": m["role"], "content": _to_parts(m["content"])} for m in messages],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        **template_kwargs,
    )
    prompt = _build_prompt(dict(encoded))
    # The key holds ids of objects; they are kept alive so that no new object gets the same id.
    _RECENT[key] = ((tokenizer, messages, template_kwargs), prompt)
    while len(_RECENT) > _MOST_RECENT:
        _RECENT.popitem(last=False)
    return prompt


def _build_prompt(encoded: dict[str, Any]) -> list[int]:
    """Build a prompt from a processor's batch of one."""
    ids = encoded.pop("input_ids")
    encoded.pop("attention_mask", None)
    inputs = {name: value for name, value in encoded.items() if isinstance(value, torch.Tensor)}
    per_token = [name for name in inputs if name.endswith("token_type_ids")]
    if per_token:
        raise ValueError(
            f"The model's processor returns {per_token} (one entry per token), which prompts with "
            "parts do not support yet. Models such as Qwen2-Audio do not need them."
        )
    tokens = [int(token) for token in ids[0]]
    return MediaPrompt(tokens, inputs) if inputs else tokens


def _to_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _make_key(value: Any) -> Any:
    """Make a hashable key: strings are compared by value, sounds and images by object."""
    if isinstance(value, Mapping):
        return tuple((key, _make_key(value[key])) for key in value)
    if isinstance(value, (list, tuple)) and len(value) < 1000:
        return tuple(map(_make_key, value))
    return value if isinstance(value, (str, int, float, bool, type(None))) else id(value)
