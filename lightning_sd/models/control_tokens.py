"""Encode text so that no part of it becomes a control token.

Questions, critiques, feedback and attempts may hold the text of a control token, such as
``<|im_end|>`` in a question about chat templates. A tokenizer would encode it as the token itself,
which ends the turn. Here a marker splits such text, and the marker's own tokens are dropped.
"""

from __future__ import annotations

import re
from typing import Any
from weakref import WeakKeyDictionary

_PRIVATE_USE = [chr(code) for code in range(0xE000, 0xE010)]
_PATTERNS: WeakKeyDictionary[Any, dict[Any, re.Pattern[str] | None]] = WeakKeyDictionary()


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Encode text that a model wrote or should write, without special tokens.

    Tokens that are not special, such as a reasoning model's ``<think>`` or step tags, stay tokens.

    Args:
        tokenizer: The model's tokenizer.
        text: An attempt, or the target of supervised training.
    """
    marker = choose_marker(text)
    marked = mark_control_tokens(tokenizer, text, marker, template=False)
    return encode_marked(tokenizer, marked, marker)


def mark_control_tokens(tokenizer: Any, text: str, marker: str, *, template: bool = True) -> str:
    """Insert a marker into each control token that a text spells out.

    Args:
        tokenizer: The model's tokenizer.
        text: Any text.
        marker: A character that the text does not hold.
        template: Whether the added tokens that the chat template writes count as control tokens,
            such as ``<think>`` and ``<tool_call>``, or special tokens only.
    """
    pattern = _find_pattern(tokenizer, template)
    if pattern is None:
        return text
    while True:
        marked = pattern.sub(lambda match: match[0][0] + marker + match[0][1:], text)
        if marked == text:
            return text
        text = marked


def encode_marked(tokenizer: Any, text: str, marker: str) -> list[int]:
    """Encode a text, and drop the tokens of the marker.

    Args:
        tokenizer: The model's tokenizer.
        text: A text, in which special tokens count unless they are marked.
        marker: The marker.
    """
    if marker not in text:
        return list(tokenizer.encode(text, add_special_tokens=False))
    if not tokenizer.is_fast:
        parts = [tokenizer.encode(part, add_special_tokens=False) for part in text.split(marker)]
        return [int(token) for part in parts for token in part]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    return [
        int(token) for token, (start, end) in pairs if text[start:end].strip(marker) or start == end
    ]


def choose_marker(text: str) -> str:
    """Choose a private-use character that a text does not hold.

    Raises:
        ValueError: The text holds all sixteen of them.
    """
    for marker in _PRIVATE_USE:
        if marker not in text:
            return marker
    raise ValueError("A text holds all characters from U+E000 to U+E00F; remove one of them.")


def _find_pattern(tokenizer: Any, template: bool) -> re.Pattern[str] | None:
    chat_template = str(getattr(tokenizer, "chat_template", None) or "")
    known = _PATTERNS.setdefault(tokenizer, {})
    key = (template, chat_template)
    if key not in known:
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        words = {
            token.content
            for token in added
            if len(token.content) > 1
            and (token.special or (template and token.content in chat_template))
        }
        words |= {word for word in tokenizer.all_special_tokens if len(word) > 1}
        longest_first = sorted(words, key=len, reverse=True)
        known[key] = re.compile("|".join(map(re.escape, longest_first))) if words else None
    return known[key]
