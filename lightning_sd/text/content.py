"""Read a chat message's content, and a question with its earlier turns, as text."""

from __future__ import annotations

from typing import Any

from lightning_sd.types import Question


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


def render_question(question: Question) -> str:
    """Return the text of a question, with the earlier turns of its conversation if it has any.

    ``question.text`` is the last user turn alone, which means little without the turns before it.
    System turns are left out.

    Example:
        >>> turns = ({"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"})
        >>> last = {"role": "user", "content": "Sure?"}
        >>> print(render_question(Question("1", "Sure?", (*turns, last))))
        User: 1+1?
        <BLANKLINE>
        Assistant: 2
        <BLANKLINE>
        User: Sure?
    """
    earlier = [message for message in question.messages[:-1] if message["role"] != "system"]
    if not earlier:
        return question.text
    turns = [f"{m['role'].capitalize()}: {render_content(m['content'])}" for m in earlier]
    return "\n\n".join([*turns, f"User: {question.text}"])
