"""Read a chat message's content as text."""

from __future__ import annotations

from typing import Any


def render_content(content: Any) -> str:
    """Return a message's content as one string, with parts other than text named in brackets.

    Args:
        content: The ``content`` of a :class:`~lightning_sd.types.Message`.

    Example:
        >>> render_content([{"type": "audio", "audio": [0.0]}, {"type": "text", "text": "What?"}])
        '[audio]What?'
    """
    if isinstance(content, str):
        return content
    return "".join(
        part["text"] if part.get("type") == "text" else f"[{part.get('type')}]" for part in content
    )
