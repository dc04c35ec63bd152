"""Compare two answers as formulas, with math-verify."""

from __future__ import annotations

import importlib.util
import logging
import re
from typing import Any

# Longer answers are prose, which sympy reads slowly and without result.
_LONGEST_FORMULA = 200
_LARGEST_EXPONENT = 999
# Factorials of anything but a small number, sums, products, binomials of large or raised numbers.
_EXPENSIVE = re.compile(
    r"(?<![0-9])[0-9]{4,}\s*!|[^0-9\s]\s*!|!\s*!|\\(sum|prod)|binom.*(\^|[0-9]{4})", re.S
)


def require_math_verify() -> None:
    """Check that math-verify is installed.

    Raises:
        ImportError: It is not.
    """
    if importlib.util.find_spec("math_verify") is None:
        raise ImportError('judge="math" needs math-verify: pip install "lightning_sd[math]"')


def are_equal_formulas(gold: str, answer: str) -> bool:
    """Tell whether two formulas have the same value.

    The evaluation of a formula has no time limit. Call it in a worker process.

    Args:
        gold: The right answer, in LaTeX or plain notation.
        answer: The answer of a completion.

    Returns:
        Whether math-verify takes them for equal. False if it cannot read one of them.

    Example:
        >>> are_equal_formulas("1/2", "0.5")
        True
    """
    import math_verify

    # Its own time limits need the main thread. The worker process has a deadline instead, and the
    # warning about absent limits is off.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    try:
        wanted, given = _parse(math_verify, gold), _parse(math_verify, answer)
        return bool(math_verify.verify(wanted, given, timeout_seconds=None))
    except MemoryError:
        raise
    except Exception:  # sympy raises almost any error on a model's text
        return False


def _parse(math_verify: Any, text: str) -> Any:
    # LaTeX is only recognized inside a box, a plain number or expression also without one.
    parsed = math_verify.parse(f"\\boxed{{{text}}}", parsing_timeout=None)
    return parsed or math_verify.parse(text, parsing_timeout=None)


def is_expensive(formula: str) -> bool:
    """Tell whether the evaluation of a formula is known to take long, such as 9^(9^9) or 5000!.

    Such answers are compared as text only, which saves the time until the deadline.

    Example:
        >>> is_expensive("2^{10}"), is_expensive("9^{9^9}"), is_expensive("e^{x^2}")
        (False, True, False)
    """
    if len(formula) > _LONGEST_FORMULA or _EXPENSIVE.search(formula):
        return True
    powers = formula.replace("**", "^")
    product = 1
    for sign in re.finditer(r"\^", powers):
        exponent = _read_exponent(powers, sign.end())
        if re.search(r"[0-9][})]*\s*\^", exponent):
            return True
        product *= max([1, *(int(n) for n in re.findall(r"[0-9]+", exponent))])
        if product > _LARGEST_EXPONENT:
            return True
    return False


def _read_exponent(powers: str, start: int) -> str:
    """Return the exponent after a power sign: a group in braces, or the text up to an operator."""
    rest = powers[start:].lstrip()
    if rest[:1] in ("{", "("):
        body = _read_group(rest.replace("(", "{").replace(")", "}") if rest[0] == "(" else rest)
        return rest if body is None else body + _read_chain(rest[len(body) + 2 :])
    number = re.match(r"-?\w+", rest)
    return rest[:1] if number is None else number[0] + _read_chain(rest[number.end() :])


def _read_group(text: str) -> str | None:
    """Return the text between the first brace and the brace that closes it."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[1:i]
    return None


def _read_chain(rest: str) -> str:
    """Return a further exponent that follows at once, as in 9^9^9."""
    return rest if rest.lstrip().startswith("^") else ""
