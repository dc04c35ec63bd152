"""Chat messages to token ids, and to whatever else the model reads of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from lightning_sd.models.media import MediaPrompt
from lightning_sd.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A processor takes milliseconds a sound, and a step asks for the same prompt once a rollout.
_RECENT: OrderedDict[tuple[Any, ...], tuple[Any, list[int]]] = OrderedDict()
_MOST_RECENT = 128


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[int]:
    """Render messages through the chat template, up to where the assistant's answer begins.

    Completions never pass through here: student and teacher append the very ids that were sampled,
    because decoding and encoding them again may give other tokens.

    A message's content is a text, or a list of parts in transformers' multimodal form, such as
    ``{"type": "audio", "audio": samples}`` and ``{"type": "text", "text": ...}``. Parts need a
    model whose tokenizer is a processor.

    Args:
        tokenizer: A tokenizer with a chat template; with ``.processor`` for prompts with parts.
        messages: The prompt, ending with a user's turn.
        template_kwargs: Handed to the chat template, such as Qwen3's ``enable_thinking``.

    Returns:
        Token ids, special tokens and the assistant's opening included. With sounds or images in
        the messages a :class:`~lightning_sd.models.media.MediaPrompt`, which is a list of ids too;
        the same object for the same parts, while it is remembered.

    Raises:
        ValueError: No messages, the last one is the assistant's, or parts without a processor.
    """
    if not messages:
        raise ValueError("A prompt needs at least one message; messages is empty.")
    if messages[-1]["role"] == "assistant":
        raise ValueError(
            "A prompt must end before the assistant's turn, but the last of "
            f"{len(messages)} messages has role 'assistant'; drop it."
        )
    if not all(isinstance(message["content"], str) for message in messages):
        return _with_parts(tokenizer, messages, template_kwargs or {})
    ids: Any = tokenizer.apply_chat_template(
        [{"role": message["role"], "content": message["content"]} for message in messages],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,  # transformers 5 would give a BatchEncoding
        **(template_kwargs or {}),
    )
    return [int(token) for token in ids]


def _with_parts(
    tokenizer: Any, messages: Sequence[Message], template_kwargs: Mapping[str, Any]
) -> list[int]:
    processor = getattr(tokenizer, "processor", None)
    if processor is None:
        raise ValueError(
            "A message's content is a list of parts, but the model's tokenizer is no processor: "
            "load a model that takes more than text, or give LoadedModel(model, processor)."
        )
    key = (id(tokenizer), _identity(messages), _identity(template_kwargs))
    if key in _RECENT:
        _RECENT.move_to_end(key)
        return _RECENT[key][1]
    encoded = processor.apply_chat_template(
        [{"role": m["role"], "content": _parts(m["content"])} for m in messages],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        **template_kwargs,
    )
    prompt = _prompt(dict(encoded))
    # What the key was made of is kept with it: a freed object's id may come again.
    _RECENT[key] = ((tokenizer, messages, template_kwargs), prompt)
    while len(_RECENT) > _MOST_RECENT:
        _RECENT.popitem(last=False)
    return prompt


def _prompt(encoded: dict[str, Any]) -> list[int]:
    """A processor's batch of one as a prompt."""
    ids = encoded.pop("input_ids")
    encoded.pop("attention_mask", None)
    inputs = {name: value for name, value in encoded.items() if isinstance(value, torch.Tensor)}
    per_token = [name for name in inputs if name.endswith("token_type_ids")]
    if per_token:
        raise ValueError(
            f"The model's processor gives {per_token}, one entry a token, which prompts with parts "
            "do not carry yet. Qwen2-Audio and its like do without."
        )
    tokens = [int(token) for token in ids[0]]
    return MediaPrompt(tokens, inputs) if inputs else tokens


def _parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _identity(value: Any) -> Any:
    """Something hashable that differs if the value may: texts by their words, sounds by object."""
    if isinstance(value, Mapping):
        return tuple((key, _identity(value[key])) for key in value)
    if isinstance(value, (list, tuple)) and len(value) < 1000:
        return tuple(map(_identity, value))
    return value if isinstance(value, (str, int, float, bool, type(None))) else id(value)
