"""Make texts from outside safe: no characters that crash or control, no passwords in URLs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from lightning_sd.types import Question

# C0 and C1 controls and DEL except tab, line feed and carriage return, and all surrogates: in a
# Python string every surrogate is a lone one.
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_CREDENTIALS = re.compile(r"(?<=://)[^/\s'\"]*@")
_LONE_RETURN = re.compile(r"\r(?!\n)")

T = TypeVar("T")


def clean_text(text: str) -> str:
    r"""Make a text from outside safe to encode, store and print.

    Lone surrogates cannot be encoded as UTF-8: tokenizers, SQLite and files refuse them. NUL ends
    strings in C. ESC and the other control characters can move a terminal's cursor or erase its
    lines. Each is replaced by U+FFFD and not removed, so that no new tag or special token appears
    where it was. A carriage return without a line feed becomes a line feed.

    Args:
        text: Text of any source, such as a data set, a program's output, a critic or a model.

    Returns:
        A text of the same length that UTF-8 can encode. A clean text is returned unchanged.

    Example:
        >>> clean_text("7\x1b[2J + 5\n")
        '7�[2J + 5\n'
        >>> clean_text("<ans\x00wer>") == "<ans\ufffdwer>"
        True
    """
    if _UNSAFE.search(text) is not None:
        text = _UNSAFE.sub("\ufffd", text)
    return _LONE_RETURN.sub("\n", text) if "\r" in text else text


def clean_value(value: T) -> T:
    """Apply :func:`clean_text` to every string in nested mappings, lists and tuples.

    Args:
        value: Plain data. Other objects are returned as they are.

    Returns:
        The cleaned value. If nothing had to be changed, it is the same object.
    """
    cleaned: T = _clean(value)
    return cleaned


def hide_credentials(text: str) -> str:
    """Replace the user and password of each URL in a text.

    Example:
        >>> hide_credentials("no answer from http://me:secret@host/v1")
        'no answer from http://***@host/v1'
    """
    return _CREDENTIALS.sub("***@", text)


def clean_question(question: Question) -> Question:
    """Apply :func:`clean_text` to every text of a question, those in ``extra`` included.

    Returns:
        The cleaned question. If nothing had to be changed, it is the same object.
    """
    names = ("id", "text", "messages", "reference", "answer", "attempt", "extra")
    cleaned = {name: _clean(getattr(question, name)) for name in names}
    changed = {name: new for name, new in cleaned.items() if new is not getattr(question, name)}
    return replace(question, **changed) if changed else question


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Mapping):
        items = {_clean(key): _clean(item) for key, item in value.items()}
        same = all(items.get(key) is item for key, item in value.items())
        return value if same else items
    if type(value) in (list, tuple):
        if value and isinstance(value[0], (int, float)):
            return value  # numbers, such as the samples of a sound
        cleaned = [_clean(item) for item in value]
        same = all(new is old for new, old in zip(cleaned, value, strict=True))
        return value if same else type(value)(cleaned)
    return value
