"""Compare two answers as texts and as numbers."""

from __future__ import annotations

import re
from decimal import Decimal

_NUMBER = re.compile(
    r"([-+]?)((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?"
)
_LONGEST_NUMBER = 400


def normalize_answer(answer: str) -> str:
    """Remove white space at the ends, repeated white space, dollar signs and full stops.

    Example:
        >>> normalize_answer(" $x +  1$. ")
        'x + 1'
    """
    return " ".join(answer.split()).rstrip(".$ ").lstrip("$ ")


def parse_number(text: str) -> Decimal | None:
    """Read a number in decimal notation.

    Args:
        text: A text such as ``18``, ``18.0``, ``1,800`` or ``1.8e3``.

    Returns:
        The exact number, or None if the text is anything else.

    Example:
        >>> parse_number("1,800.50")
        Decimal('1800.50')
        >>> parse_number("1/2") is None
        True
    """
    text = text.strip().replace("\N{MINUS SIGN}", "-")
    match = _NUMBER.fullmatch(text) if len(text) <= _LONGEST_NUMBER else None
    return None if match is None else Decimal(match[0].replace(",", ""))


def canonicalize_answer(answer: str) -> str:
    """Normalize an answer, and write a number without separators and trailing zeros.

    Equal numbers then have equal texts, so that a majority vote counts them together.

    Example:
        >>> canonicalize_answer("$1,800.0")
        '1800'
        >>> canonicalize_answer("-0.50"), canonicalize_answer("x = 1.0")
        ('-0.5', 'x = 1.0')
    """
    text = normalize_answer(answer)
    number = parse_number(text)
    if number is None:
        return text
    written = format(number, "f")
    if "." in written:
        written = written.rstrip("0").rstrip(".")
    return "0" if written in ("-0", "") else written
