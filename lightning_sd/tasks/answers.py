"""Reading the final answer out of a completion, and judging it."""

from __future__ import annotations

import logging
import re
from typing import Any, Literal, get_args

from lightning_sd.types import Verdict

Judge = Literal["exact", "math"]

_BOXED = "\\boxed{"
# Longer answers are prose; sympy would spend minutes on them and understand nothing.
_LONGEST_FORMULA = 200
_LARGEST_EXPONENT = 999
# Factorials of anything but a small number, sums, products, binomials of large or raised numbers.
_HUGE_COUNT = re.compile(
    r"(?<![0-9])[0-9]{4,}\s*!|[^0-9\s]\s*!|!\s*!|\\(sum|prod)|binom.*(\^|[0-9]{4})", re.S
)


def extract_answer(text: str) -> str | None:
    r"""Read the final answer out of a solution.

    Args:
        text: A completion or a reference solution.

    Returns:
        What stands in the last closed ``<answer>...</answer>``, else in the last ``\boxed{...}``
        whose braces close; stripped. None: neither is there, or it is empty.

    Example:
        >>> extract_answer("<step_1>1+1=2</step_1><answer> 2 </answer>")
        '2'
        >>> extract_answer(r"so it is \boxed{\frac{1}{2}}.")
        '\\frac{1}{2}'
    """
    tagged = _last_tagged(text)
    return tagged if tagged is not None else _last_boxed(text)


def judge(gold: str, completion: str, method: Judge = "exact") -> Verdict:
    """Judge a completion by its final answer. Never raises over what the completion holds.

    Args:
        gold: The right answer.
        completion: A completion; its answer is read by :func:`extract_answer`.
        method: ``exact`` compares the normalised text; ``math`` asks math-verify as well, which
            knows that 1/2 and 0.5 are one number.

    Returns:
        Reward 1 and ``correct`` if it is right. ``answer`` is the gold answer then, so that a
        majority vote counts all ways to write it as one; else it is what was read.

    Raises:
        ImportError: ``math`` without math-verify.
        ValueError: An unknown method.

    Example:
        >>> judge("7", "<answer>7.</answer>").correct
        True
    """
    if method not in get_args(Judge):
        raise ValueError(f"judge={method!r}: choose one of {get_args(Judge)}.")
    found = extract_answer(completion)
    if found is None:
        return Verdict(reward=0.0, correct=False)
    answer, gold = normalize_answer(found), normalize_answer(gold)
    correct = answer == gold or (method == "math" and _same_mathematics(gold, answer))
    return Verdict(reward=float(correct), correct=correct, answer=gold if correct else answer)


def normalize_answer(answer: str) -> str:
    """Take away what does not change an answer: outer white space, dollar signs, a full stop.

    Example:
        >>> normalize_answer(" $x +  1$. ")
        'x + 1'
    """
    return " ".join(answer.split()).rstrip(".").strip("$").strip()


def _last_tagged(text: str) -> str | None:
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    return (text[start + len("<answer>") : end].strip() or None) if start >= 0 else None


def _last_boxed(text: str) -> str | None:
    start = text.rfind(_BOXED)
    while start >= 0:
        body = _braced(text, start + len(_BOXED) - 1)
        if body is not None:
            return body.strip() or None
        start = text.rfind(_BOXED, 0, start)
    return None


def _braced(text: str, opening: int) -> str | None:
    """The text between the brace at ``opening`` and the one that closes it."""
    depth = 0
    for i in range(opening, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[opening + 1 : i]
    return None


def _same_mathematics(gold: str, answer: str) -> bool:
    math_verify = _math_verify()
    if is_explosive(answer) or is_explosive(gold):
        return False
    try:
        # Its time limits work by SIGALRM, which only the main thread may set: off the main thread
        # every answer would count as wrong. is_explosive keeps out what would run for ever.
        wanted = _parse(math_verify, gold)
        given = _parse(math_verify, answer)
        return bool(math_verify.verify(wanted, given, timeout_seconds=None))
    except Exception:  # whatever sympy makes of a model's text, the answer is not right
        return False


def _parse(math_verify: Any, text: str) -> Any:
    # Bare LaTeX is only recognised inside a box; a bare number or expression also without.
    found = math_verify.parse(f"{_BOXED}{text}}}", parsing_timeout=None)
    return found or math_verify.parse(text, parsing_timeout=None)


def _math_verify() -> Any:
    try:
        import math_verify
    except ImportError as error:
        raise ImportError(
            'judge="math" needs math-verify: pip install "lightning_sd[tasks]"'
        ) from error
    # It warns about the absent time limit, which is on purpose here.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return math_verify


def is_explosive(formula: str) -> bool:
    """Whether evaluating a formula could take for ever: 9^(9^9), 10^100000, 5000!, long prose.

    Such answers are compared as text only. Sympy has no time limit of its own.

    Example:
        >>> is_explosive("2^{10}"), is_explosive("9^{9^9}"), is_explosive("e^{x^2}")
        (False, True, False)
    """
    if len(formula) > _LONGEST_FORMULA or _HUGE_COUNT.search(formula):
        return True
    powers = formula.replace("**", "^")
    product = 1
    for sign in re.finditer(r"\^", powers):
        exponent = _exponent(powers, sign.end())
        if re.search(r"[0-9][})]*\s*\^", exponent):
            return True
        product *= max([1, *(int(n) for n in re.findall(r"[0-9]+", exponent))])
        if product > _LARGEST_EXPONENT:
            return True
    return False


def _exponent(powers: str, start: int) -> str:
    """What stands over the base: a braced group, or the run up to the next operator."""
    rest = powers[start:].lstrip()
    if rest.startswith("{"):
        body = _braced(rest, 0)
        return rest if body is None else body + _chained(rest[len(body) + 2 :])
    if rest.startswith("("):
        body = _braced(rest.replace("(", "{").replace(")", "}"), 0)
        return rest if body is None else body + _chained(rest[len(body) + 2 :])
    number = re.match(r"-?\w+", rest)
    return rest[:1] if number is None else number[0] + _chained(rest[number.end() :])


def _chained(rest: str) -> str:
    """A further exponent that follows at once: 9^9^9."""
    return rest if rest.lstrip().startswith("^") else ""
