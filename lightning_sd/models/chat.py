"""Encode chat messages as token ids, and as further inputs of a multimodal model."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch.utilities import rank_zero_warn

from lightning_sd.models.control_tokens import (
    choose_marker,
    encode_marked,
    mark_control_tokens,
)
from lightning_sd.models.media import MediaPrompt
from lightning_sd.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A processor takes milliseconds per sound, and a step encodes a prompt once per rollout.
_RECENT: OrderedDict[tuple[Any, ...], tuple[Any, list[int]]] = OrderedDict()
_MOST_RECENT = 128
_TODAY = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")
_SYSTEM = "lightning-sd-system"
_SYSTEM_ROLES: WeakKeyDictionary[Any, dict[str, bool]] = WeakKeyDictionary()

_TAG_TOKENS = 8
"""Largest number of tokens of a ``<think>`` tag and the white space after it."""

TEMPLATE_DATE = "2026-01-01"
"""The date that chat templates see by default instead of today's."""


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[int]:
    """Render messages with the chat template, up to the start of the assistant's answer.

    Only prompts are encoded. Student and teacher append the ids that were sampled, because decoding
    and encoding a completion again may give other tokens.

    Control tokens that a message spells out, such as ``<|im_end|>``, are encoded as plain text. A
    template that writes today's date gets the model source's ``template_date``, so that prompts do
    not change between runs. If the template has no system role, the system message is put before
    the user's text.

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
    messages = _merge_system(tokenizer, messages)
    kwargs = {**_fix_date(tokenizer), **(template_kwargs or {})}
    if not all(isinstance(message["content"], str) for message in messages):
        return _encode_parts(tokenizer, messages, kwargs)
    marker = choose_marker("".join(message["content"] for message in messages))
    marked = [_mark(tokenizer, message, marker) for message in messages]
    text = tokenizer.apply_chat_template(
        marked, add_generation_prompt=True, tokenize=False, **kwargs
    )
    return encode_marked(tokenizer, str(text), marker)


def opens_thinking(tokenizer: Any, prompt: Sequence[int]) -> bool:
    """Tell whether a prompt ends with an opening ``<think>`` tag of the chat template.

    Args:
        tokenizer: The tokenizer.
        prompt: Token ids of the prompt.

    Returns:
        Whether the model's text starts inside its thinking.
    """
    end: str = tokenizer.decode(list(prompt[-_TAG_TOKENS:]))
    return end.rstrip().endswith("<think>")


def _mark(tokenizer: Any, message: Message, marker: str) -> dict[str, str]:
    """Mark the control tokens in a message; an assistant's message may think and call tools."""
    role = message["role"]
    text = mark_control_tokens(tokenizer, message["content"], marker, template=role != "assistant")
    return {"role": role, "content": text}


def _fix_date(tokenizer: Any) -> dict[str, Any]:
    """Return template arguments in which the source's date replaces today's."""
    template = _get_template(tokenizer)
    if "strftime_now(" not in template:
        return {}
    day = date.fromisoformat(getattr(tokenizer, "template_date", TEMPLATE_DATE))
    fixed = _TODAY.sub(lambda call: repr(day.strftime(call[2])), template)
    if "strftime_now(" in fixed:
        rank_zero_warn(
            "The chat template formats today's date in a way that cannot be fixed: prompts, and "
            "the keys of cached critiques, change daily. Give PretrainedModel(chat_template=...)."
        )
    return {"chat_template": fixed}


def _merge_system(tokenizer: Any, messages: Sequence[Message]) -> Sequence[Message]:
    """Put a system message before the user's text if the template has no system role."""
    first, *rest = messages
    if first["role"] != "system" or not rest or _has_system_role(tokenizer):
        return messages
    rank_zero_warn(
        "The chat template has no system role: the system message is put before the user's text."
    )
    system, user = first["content"], rest[0]["content"]
    if isinstance(system, str) and isinstance(user, str):
        merged: Any = f"{system}\n\n{user}"
    else:
        merged = [*_to_parts(system), *_to_parts(user)]
    return [{"role": rest[0]["role"], "content": merged}, *rest[1:]]


def _has_system_role(tokenizer: Any) -> bool:
    """Return whether the template writes system messages; some raise an error, some drop them."""
    template = _get_template(tokenizer)
    known = _SYSTEM_ROLES.setdefault(tokenizer, {})
    if template not in known:
        probe = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": "q"}]
        renderer = getattr(tokenizer, "processor", tokenizer)
        try:
            known[template] = _SYSTEM in renderer.apply_chat_template(probe, tokenize=False)
        except Exception:  # jinja2's TemplateError, or whatever the template's own error is
            known[template] = False
    return known[template]


def _get_template(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "chat_template", None) or "")


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
        [{"role": m["role"], "content": _check_parts(tokenizer, m)} for m in messages],
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


def _check_parts(tokenizer: Any, message: Message) -> Any:
    """Return a message's parts, and refuse control tokens in their text."""
    parts = _to_parts(message["content"])
    for part in parts:
        text = part.get("text", "") if part.get("type") == "text" else ""
        if mark_control_tokens(tokenizer, text, choose_marker(text)) != text:
            raise ValueError(
                f"The text {text[:80]!r} beside a sound or an image spells out a control token of "
                "the model: remove it from the data."
            )
    return parts


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
