r"""Read the final answer from a completion, in time linear in its length."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

from lightning_sd.text.thinking import extract_response
from lightning_sd.types import Question

AnswerFormat = Literal["answer_tag", "boxed", "gsm8k", "answer_is", "last_number", "choice"]
"""Named formats of a final answer. See :func:`extract_answer`."""
DEFAULT_FORMATS: tuple[AnswerFormat, ...] = ("answer_tag", "boxed", "gsm8k")

_THINKING_OPENED = "thinking_opened"
_LONGEST_PHRASE = 200
_BRACES = re.compile(r"\\boxed\s{0,3}\{|[{}]")
_PHRASE = re.compile(r"\banswer(?:\s{1,5}is\b|\s{0,5}:)\s{0,5}:?", re.I)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n")
_NUMBER = re.compile(r"(?:(?<![\w.)\]}])[-+])?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?")
_CHOICE_PHRASE = re.compile(
    r"\b(?:[Aa]nswer|ANSWER|[Cc]hoice|[Oo]ption)\b\W{0,12}(?:is\b\W{0,12})?([A-J])(?![\w'])"
)
_CHOICE_ALONE = re.compile(r"\W{0,12}(?:(?:text|mathrm)\w{0,2}\{)?([A-J])(?:[).:\s*}\]].*)?", re.S)


def extract_answer(text: str, formats: Sequence[str] = DEFAULT_FORMATS) -> str | None:
    r"""Read the final answer of a completion or of a reference solution.

    Text inside ``<think>`` tags is ignored, including thinking that never ends. The formats are
    tried in order, and the last occurrence of a format counts:

    - ``answer_tag``: ``<answer>7</answer>``.
    - ``boxed``: ``\boxed{7}`` with balanced braces.
    - ``gsm8k``: the rest of the line after ``####``.
    - ``answer_is``: the rest of the sentence after ``answer is`` or ``answer:``.
    - ``last_number``: the last number of the text.
    - ``choice``: a letter from A to J in a tag or box, after ``answer``, ``choice`` or ``option``,
      or alone in the last line.

    Any other format is a regular expression with one group, the answer.

    Args:
        text: A completion or a reference solution.
        formats: Names of formats, or regular expressions.

    Returns:
        The answer without white space at its ends. None if no format occurs with a content.

    Example:
        >>> extract_answer("<step_1>1+1=2</step_1><answer> 2 </answer>")
        '2'
        >>> extract_answer(r"so it is \boxed{\frac{1}{2}}.")
        '\\frac{1}{2}'
        >>> extract_answer("The answer is 7.", ["answer_is"])
        '7'
        >>> extract_answer(r"<think>maybe \boxed{7}") is None
        True
    """
    text = remove_thinking(text)
    for name in formats:
        reader = _READERS.get(name)
        answer = reader(text) if reader is not None else _match_last(name, text)
        if answer is not None and answer.strip():
            return answer.strip()
    return None


def remove_thinking(text: str) -> str:
    r"""Remove everything inside ``<think>`` tags, including a block that is never closed.

    Example:
        >>> remove_thinking("<think>a</think>b<think>c")
        'b'
    """
    if "think>" not in text:
        return text
    text = extract_response(text).partition("<think>")[0]
    return text.rpartition("</think>")[2]


def mark_thinking(question: Question) -> Question:
    """Return the question as a judge gets it if the prompt ends with an opening ``<think>`` tag."""
    return replace(question, extra={**question.extra, _THINKING_OPENED: True})


def restore_thinking(question: Question, completion: str) -> str:
    """Write the opening ``<think>`` tag that the prompt of a completion ends with, if it does.

    Example:
        >>> question = Question(id="1", text="1+1?", messages=())
        >>> restore_thinking(mark_thinking(question), "hm</think>2")
        '<think>hm</think>2'
        >>> restore_thinking(question, "2")
        '2'
    """
    return f"<think>{completion}" if question.extra.get(_THINKING_OPENED) else completion


def check_formats(formats: str | Sequence[str], name: str) -> tuple[str, ...]:
    """Return formats as a tuple.

    Args:
        formats: One format or several.
        name: Name of the option, for the error message.

    Raises:
        ValueError: A format is neither a name nor a regular expression with one group.
    """
    chosen = (formats,) if isinstance(formats, str) else tuple(formats)
    for each in chosen:
        try:
            valid = each in _READERS or re.compile(each).groups == 1
        except re.error:
            valid = False
        if not valid:
            raise ValueError(
                f"{name}={each!r}: it must be one of {get_args(AnswerFormat)} or a regular "
                "expression with exactly one group, the answer, such as '#### (.+)'."
            )
    if not chosen:
        raise ValueError(f"{name}=[]: give at least one format.")
    return chosen


def is_named(formats: Sequence[str]) -> bool:
    """Tell whether all formats are named ones, which are read in linear time."""
    return all(name in _READERS for name in formats)


def _match_last(pattern: str, text: str) -> str | None:
    answer = None
    for match in re.finditer(pattern, text):
        answer = match[1]
    return answer


def _read_tag(text: str) -> str | None:
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    return text[start + len("<answer>") : end] if start >= 0 else None


def _read_boxed(text: str) -> str | None:
    """Return the content of the last box with balanced braces, in one pass over the braces."""
    open_braces: list[int | None] = []  # start of the content of a box, None for another brace
    span = None
    for match in _BRACES.finditer(text):
        if match[0] != "}":
            open_braces.append(None if match[0] == "{" else match.end())
        elif open_braces:
            start = open_braces.pop()
            if start is not None and (span is None or start > span[0]):
                span = start, match.start()
    return None if span is None else text[slice(*span)]


def _read_gsm8k(text: str) -> str | None:
    start = text.rfind("####")
    return text[start + 4 :].lstrip(" \t").partition("\n")[0] if start >= 0 else None


def _read_phrase(text: str) -> str | None:
    start = None
    for match in _PHRASE.finditer(text):
        start = match.end()
    if start is None:
        return None
    rest = text[start : start + _LONGEST_PHRASE].strip()
    end = _SENTENCE_END.search(rest)
    return rest[: end.start()].strip("*_` ") if end else rest.strip("*_` ")


def _read_number(text: str) -> str | None:
    number = None
    for match in _NUMBER.finditer(text):
        number = match[0]
    return number


def _read_choice(text: str) -> str | None:
    for content in (_read_tag(text), _read_boxed(text)):
        alone = _CHOICE_ALONE.fullmatch(content) if content else None
        if alone is not None:
            return alone[1]
    letter = None
    for match in _CHOICE_PHRASE.finditer(text):
        letter = match[1]
    if letter is None:
        last = text.rstrip().rpartition("\n")[2]
        alone = _CHOICE_ALONE.fullmatch(last) if len(last) <= _LONGEST_PHRASE else None
        letter = alone[1] if alone else None
    return letter


_READERS: dict[str, Callable[[str], str | None]] = {
    "answer_tag": _read_tag,
    "boxed": _read_boxed,
    "gsm8k": _read_gsm8k,
    "answer_is": _read_phrase,
    "last_number": _read_number,
    "choice": _read_choice,
}
