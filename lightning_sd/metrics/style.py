"""Measure style drift: how much of the signal falls on the wording instead of the content.

A teacher that has seen a solution also writes in another style: RLCSD reports a mean abs(A_t) of
0.263 on words such as "Wait" and "Therefore" and on newlines, and 0.083 on the other tokens. The
signal on such tokens teaches the student a style.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lightning_sd.metrics.spans import Pieces

TokenClass = Literal["style", "math", "other"]

STYLE_WORDS = (
    *("wait", "therefore", "so", "thus", "hence", "then", "now", "first", "next", "finally"),
    *("hmm", "okay", "ok", "alright", "well", "let's", "let", "actually", "however", "but"),
    *("maybe", "perhaps", "alternatively", "because", "since", "again"),
)
"""Words that connect the parts of a solution, in any case."""

_TAG = re.compile(r"</?(?:step_[0-9]+|answer|think)>")
_MATH = re.compile(r"(?=.*[0-9+\-*/=^%×÷·±√≤≥≈])[0-9+\-*/=^%×÷·±√≤≥≈\s.,:()\[\]{}$\\]+", re.S)


def classify_tokens(pieces: Pieces, words: Sequence[str] = STYLE_WORDS) -> tuple[TokenClass, ...]:
    r"""Classify tokens as style, mathematics or other.

    ``style``: any part of a style word, or a newline. ``math``: digits and operators, with brackets
    and periods in the same token. ``other``: all other tokens, including step tags and special
    tokens. Task tokens are the ``math`` and ``other`` tokens.

    Args:
        pieces: The completion, from :func:`.spans.split_tokens`.
        words: Style words; only whole words match, however the tokenizer splits them.

    Returns:
        One class per token.

    Example:
        >>> classify_tokens(Pieces(("So", " 7+5", "\n"), ((0, 2), (2, 6), (6, 7)), (None,) * 3))
        ('style', 'math', 'style')
    """
    text = pieces.text
    style = _mark_matches(text, re.compile(rf"\n|{_list_words(words)}" if words else r"\n", re.I))
    tags = _mark_matches(text, _TAG)
    classes: list[TokenClass] = []
    for start, end in pieces.spans:
        if any(style[start:end]):
            classes.append("style")
        elif not any(tags[start:end]) and _MATH.fullmatch(text[start:end]):
            classes.append("math")
        else:
            classes.append("other")
    return tuple(classes)


def count_style_words(text: str, words: Sequence[str] = STYLE_WORDS) -> tuple[int, int]:
    """Count the style words of a text, and all its words.

    Args:
        text: The text.
        words: Style words, in any case; at least one.

    Example:
        >>> count_style_words("So 7+5 is 2. Let's go on.")
        (2, 8)
    """
    style = len(re.findall(_list_words(words), text, re.I))
    return style, len(re.findall(r"[\w']+", text))


@dataclass(frozen=True)
class ClassMass:
    """Signal on the tokens of one class, of one rollout or several."""

    mass: float
    """Sum of absolute values, in nats."""
    tokens: int


@dataclass(frozen=True)
class StyleMass:
    """Signal on each class of tokens."""

    style: ClassMass
    math: ClassMass
    other: ClassMass

    @property
    def task(self) -> ClassMass:
        """``math`` and ``other`` together."""
        return ClassMass(self.math.mass + self.other.mass, self.math.tokens + self.other.tokens)

    @property
    def total(self) -> ClassMass:
        """All tokens."""
        return ClassMass(self.style.mass + self.task.mass, self.style.tokens + self.task.tokens)


def sum_style_mass(values: Sequence[float], classes: Sequence[TokenClass]) -> StyleMass:
    """Sum the absolute signal over the tokens of each class.

    Args:
        values: Advantage or KL divergence of each token, in nats; signs are dropped.
        classes: Class of each token, from :func:`classify_tokens`.

    Raises:
        ValueError: ``values`` and ``classes`` differ in length.

    Example:
        >>> masses = sum_style_mass([-3.0, 0.5, 0.5], ["style", "math", "other"])
        >>> masses.style.mass / masses.total.mass
        0.75
    """
    if len(values) != len(classes):
        raise ValueError(f"classes: {len(classes)} for {len(values)} values; give one per value.")

    def sum_class(wanted: TokenClass) -> ClassMass:
        own = [abs(value) for value, kind in zip(values, classes, strict=True) if kind == wanted]
        return ClassMass(sum(own), len(own))

    return StyleMass(sum_class("style"), sum_class("math"), sum_class("other"))


def _list_words(words: Sequence[str]) -> str:
    """Return the pattern of any of these words."""
    listed = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return rf"(?<!\w)(?:{listed})(?!\w)"


def _mark_matches(text: str, pattern: re.Pattern[str]) -> list[bool]:
    marks = [False] * len(text)
    for match in pattern.finditer(text):
        marks[match.start() : match.end()] = [True] * (match.end() - match.start())
    return marks
