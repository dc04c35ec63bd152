"""Remove the reasoning that a model writes in ``<think>`` tags before its answer."""

from __future__ import annotations

import re

THINK_TAG = re.compile(r"</?think>")
"""Matches an opening or closing thinking tag."""

_OPEN, _CLOSE = "<think>", "</think>"


def strip_thinking(text: str, *, opened: bool = False) -> str:
    """Remove ``<think>...</think>`` blocks from a text.

    Args:
        text: The model's output.
        opened: Whether the chat template already wrote ``<think>``, so that the text begins inside
            a block.

    Returns:
        The remaining text, without white space at its ends. A block that is never closed leaves an
        empty string if ``opened``, and its opening tag otherwise.

    Example:
        >>> strip_thinking("<think>7+5 is 2</think> <answer>2</answer>")
        '<answer>2</answer>'
        >>> strip_thinking("so it is 2</think><answer>2</answer>", opened=True)
        '<answer>2</answer>'
        >>> strip_thinking("so it is", opened=True)
        ''
    """
    if opened and not text.lstrip().startswith("<think>"):
        text = "<think>" + text
    text = _remove_blocks(text).strip()
    return "" if opened and text.startswith("<think>") else text


def extract_response(text: str) -> str:
    """Return the part of a model's output that follows its thinking.

    The opening tag may be missing, because some chat templates write it into the prompt.

    Args:
        text: The model's output, with or without thinking.

    Returns:
        The output without its thinking; an empty string if the thinking was never closed.

    Example:
        >>> extract_response("2*3 is 6</think><answer>6</answer>")
        '<answer>6</answer>'
        >>> extract_response("<think>hm")
        ''
    """
    began_inside = "</think>" in text and "<think>" not in text
    return strip_thinking(text, opened=began_inside or text.lstrip().startswith("<think>"))


def _remove_blocks(text: str) -> str:
    """Remove closed blocks, in linear time also for many opening tags without a closing one."""
    kept: list[str] = []
    position = 0
    while (start := text.find(_OPEN, position)) >= 0 and (end := text.find(_CLOSE, start)) >= 0:
        kept.append(text[position:start])
        position = end + len(_CLOSE)
    return "".join([*kept, text[position:]])
