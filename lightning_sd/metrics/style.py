"""Style drift: how much of the signal falls on how a solution is told and not on what it says.

Teachers that saw a solution also write in another manner: RLCSD measures a mean abs(A_t) of 0.263
on words such as "Wait" and "Therefore" and on newlines, against 0.083 on the other tokens. Signal
there teaches the student a tone of voice.
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
"""Words that move a solution along without being part of it; case does not matter."""

_TAG = re.compile(r"</?(?:step_[0-9]+|answer|think)>")
_MATH = re.compile(r"(?=.*[0-9+\-*/=^%×÷·±√≤≥≈])[0-9+\-*/=^%×÷·±√≤≥≈\s.,:()\[\]{}$\\]+", re.S)


def token_classes(pieces: Pieces, words: Sequence[str] = STYLE_WORDS) -> tuple[TokenClass, ...]:
    r"""Sort tokens into style, mathematics and the rest.

    ``style``: any part of one of the words, or a newline. ``math``: digits and operators, with
    whatever brackets and points stand in the same token. ``other``: all else, the tags of the step
    form and special tokens included. Task tokens are those that are not style.

    Args:
        pieces: A completion.
        words: The style words. They count as whole words, however the tokenizer splits them.

    Returns:
        One class a token.

    Example:
        >>> token_classes(Pieces(("So", " 7+5", "\n"), ((0, 2), (2, 6), (6, 7)), (None,) * 3))
        ('style', 'math', 'style')
    """
    text = pieces.text
    listed = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    styled = re.compile(rf"\n|(?<!\w)(?:{listed})(?!\w)" if listed else r"\n", re.I)
    style = _marked(text, styled)
    tags = _marked(text, _TAG)
    classes: list[TokenClass] = []
    for start, end in pieces.spans:
        if any(style[start:end]):
            classes.append("style")
        elif not any(tags[start:end]) and _MATH.fullmatch(text[start:end]):
            classes.append("math")
        else:
            classes.append("other")
    return tuple(classes)


@dataclass(frozen=True)
class ClassMass:
    """The signal on the tokens of one class, of one rollout or of many."""

    mass: float
    """Sum of absolute values."""
    tokens: int


@dataclass(frozen=True)
class StyleMass:
    """The signal on each class; sums over rollouts are taken field by field."""

    style: ClassMass
    math: ClassMass
    other: ClassMass

    @property
    def task(self) -> ClassMass:
        """Mathematics and the rest together."""
        return ClassMass(self.math.mass + self.other.mass, self.math.tokens + self.other.tokens)

    @property
    def total(self) -> ClassMass:
        """All tokens."""
        return ClassMass(self.style.mass + self.task.mass, self.style.tokens + self.task.tokens)


def style_mass(values: Sequence[float], classes: Sequence[TokenClass]) -> StyleMass:
    """Sum the signal over the classes.

    Args:
        values: A_t of each token, or its KL divergence; signs are dropped.
        classes: As :func:`token_classes` gives them.

    Raises:
        ValueError: Not one class a value.

    Example:
        >>> found = style_mass([-3.0, 0.5, 0.5], ["style", "math", "other"])
        >>> found.style.mass / found.total.mass
        0.75
    """
    if len(values) != len(classes):
        raise ValueError(f"{len(values)} values, but {len(classes)} classes: one each is needed.")

    def of(wanted: TokenClass) -> ClassMass:
        own = [abs(value) for value, kind in zip(values, classes, strict=True) if kind == wanted]
        return ClassMass(sum(own), len(own))

    return StyleMass(of("style"), of("math"), of("other"))


def _marked(text: str, pattern: re.Pattern[str]) -> list[bool]:
    marks = [False] * len(text)
    for match in pattern.finditer(text):
        marks[match.start() : match.end()] = [True] * (match.end() - match.start())
    return marks
