"""Remove the reasoning that a model writes before its answer."""

from __future__ import annotations

import re

_THOUGHT = re.compile(r"<think>.*?</think>", re.S)


_THINK_TAG = re.compile(r"</?think>")


def strip_thinking(text: str, *, opened: bool = False) -> str:
    """Remove what a reasoning model thought before it answered.

    Args:
        text: What it wrote.
        opened: Whether the chat template had opened the thinking already, so that the text begins
            inside it.

    Returns:
        The rest, stripped. Thinking that never ends leaves nothing, or its opening tag.

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
    text = _THOUGHT.sub("", text).strip()
    return "" if opened and text.startswith("<think>") else text


def without_thinking(text: str) -> str:
    """What a model said after it had thought, if it thought in tags; "" if it never got that far.

    The opening tag may be missing, because chat templates write it into the prompt.

    Example:
        >>> without_thinking("2*3 is 6</think><answer>6</answer>")
        '<answer>6</answer>'
        >>> without_thinking("<think>hm")
        ''
    """
    began_inside = "</think>" in text and "<think>" not in text
    return strip_thinking(text, opened=began_inside or text.lstrip().startswith("<think>"))
