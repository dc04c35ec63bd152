"""Read chat messages from a cell, and take the prompt or the last reply from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_sd.tasks.cells import Cell, parse_json
from lightning_sd.types import Message

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
"""Roles of the OpenAI and the ShareGPT format, and the chat template's role for each."""

_KEYS = (("role", "content"), ("from", "value"))


def read_messages(cell: Cell) -> tuple[Message, ...] | None:
    """Return the chat messages in a cell; None if it holds no messages.

    Read are lists of mappings with ``role`` and ``content`` (OpenAI, TRL, verl) or with ``from``
    and ``value`` (ShareGPT), the same list as JSON text, and a mapping of two lists, which older
    versions of ``datasets`` make of it.

    Raises:
        ValueError: A message has an unknown role, a tool call, or content other than text.
    """
    value = cell.value
    if isinstance(value, str):
        if value.lstrip().startswith(("[{'role'", "[{'from'")):
            raise cell.refuse(
                "the Python repr of messages. Save the messages themselves, or as JSON."
            )
        value = parse_json(value)
    if isinstance(value, Mapping):
        value = _split_columns(value)
    if not isinstance(value, (list, tuple)) or not value or not all(map(_is_message, value)):
        return None
    return tuple(_read_message(message, cell) for message in value)


def take_prompt(messages: Sequence[Message], cell: Cell) -> tuple[Message, ...]:
    """Return the messages up to the last user turn, without the reply that follows it.

    Raises:
        ValueError: The last turn before the reply is not a user's.
    """
    end = len(messages)
    while end > 0 and messages[end - 1]["role"] == "assistant":
        end -= 1
    if end == 0 or messages[end - 1]["role"] != "user":
        raise cell.refuse("messages without a user turn at the end of the prompt.")
    return tuple(messages[:end])


def take_reply(messages: Sequence[Message], cell: Cell) -> str:
    """Return the text of the assistant's turn that ends the messages.

    Raises:
        ValueError: The last turn is not the assistant's.
    """
    if messages[-1]["role"] != "assistant":
        raise cell.refuse(f"messages that end with the turn of {messages[-1]['role']!r}.")
    return str(messages[-1]["content"])


def add_instruction(messages: Sequence[Message], instruction: str | None) -> tuple[Message, ...]:
    """Add an instruction to the system turn, behind the text that is already there.

    Example:
        >>> add_instruction([Message(role="user", content="1+1?")], "Be brief.")[0]
        {'role': 'system', 'content': 'Be brief.'}
    """
    if not instruction:
        return tuple(messages)
    if messages and messages[0]["role"] == "system":
        content = f"{messages[0]['content']}\n\n{instruction}"
        return (Message(role="system", content=content), *messages[1:])
    return (Message(role="system", content=instruction), *messages)


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and any(
        role in value and content in value for role, content in _KEYS
    )


def _split_columns(value: Mapping[str, Any]) -> Any:
    """Turn a mapping of lists into a list of mappings; one message becomes a list of one."""
    for role, content in _KEYS:
        roles, contents = value.get(role), value.get(content)
        if isinstance(roles, list) and isinstance(contents, list) and len(roles) == len(contents):
            return [{role: r, content: c} for r, c in zip(roles, contents, strict=True)]
    return [value]


def _read_message(message: Mapping[str, Any], cell: Cell) -> Message:
    role_key, content_key = next(keys for keys in _KEYS if set(keys) <= set(message))
    role = message[role_key]
    if message.get("tool_calls") or role not in _ROLES:
        raise cell.refuse(
            f"a message with the role {role!r}{' and tool calls' * bool(message.get('tool_calls'))}"
            f", which cannot be read. Roles are {', '.join(_ROLES)}."
        )
    return Message(role=_ROLES[role], content=_read_content(message[content_key], cell))


def _read_content(content: Any, cell: Cell) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, (list, tuple)):
        kinds = {part.get("type") if isinstance(part, Mapping) else None for part in content}
        if kinds <= {"text"}:
            return "".join(part["text"] for part in content)
        named = ", ".join(sorted(map(str, kinds - {"text"})))
        raise cell.refuse(f"a message with a part of type {named}. Only text is read.")
    raise cell.refuse(f"a message with content of type {type(content).__name__}.")
