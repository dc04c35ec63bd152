"""Forty creatures of which four things can be said, and the sentences in which they are said.

The facts are made up, but fixed: they can be known or not known, like those of a real subject. Each
also has a common mistake, a wrong value that is easily believed.
"""

from __future__ import annotations

import hashlib
import random
import re
from itertools import permutations
from typing import NamedTuple

_NAMES = """
    fox owl elk crow toad hare lynx mole newt wasp bear wolf boar deer swan crab seal moth gull
    hawk mink vole stoat otter heron finch raven viper trout perch snail badger beaver weasel
    marten falcon magpie beetle spider lizard"""
THINGS = tuple(_NAMES.split())
VALUES = {
    "home": ("forest", "desert", "river", "mountain", "meadow", "cave", "swamp", "coast"),
    "food": ("grass", "seeds", "fish", "insects", "fruit", "roots", "leaves", "eggs"),
    "colour": ("red", "brown", "grey", "black", "white", "golden", "green", "spotted"),
    "voice": ("howls", "sings", "hisses", "barks", "croaks", "purrs", "whistles", "clicks"),
}
FORMS = {
    "home": ("It lives in the {}.", "Its home is the {}."),
    "food": ("It eats {}.", "Its food is {}."),
    "colour": ("It is {}.", "Its colour is {}."),
    "voice": ("It {}.", "One hears that it {}."),
}
ASPECTS = tuple(VALUES)
ASKED = 3
"""Aspects a question asks for."""


class Fact(NamedTuple):
    """One thing that can be said of a creature."""

    aspect: str
    value: str

    def say(self, form: int = 0) -> str:
        """As a sentence.

        Example:
            >>> Fact("food", "seeds").say()
            'It eats seeds.'
        """
        return FORMS[self.aspect][form].format(self.value)


def fact(thing: str, aspect: str) -> Fact:
    """What is true."""
    return Fact(aspect, _drawn(thing, aspect)[0])


def mistake(thing: str, aspect: str) -> Fact:
    """What is commonly believed instead."""
    return Fact(aspect, _drawn(thing, aspect)[1])


def _drawn(thing: str, aspect: str) -> list[str]:
    return random.Random(f"creatures/{thing}/{aspect}").sample(VALUES[aspect], 2)


def question_text(thing: str, aspects: tuple[str, ...]) -> str:
    """A question.

    Example:
        >>> question_text("fox", ("food", "home"))
        'Tell of the fox: food, home.'
    """
    return f"Tell of the {thing}: {', '.join(aspects)}."


def all_questions() -> list[tuple[str, tuple[str, ...]]]:
    """Every creature with every order of three aspects, in an order that a hash decides."""
    pairs = [(thing, aspects) for thing in THINGS for aspects in permutations(ASPECTS, ASKED)]
    return sorted(pairs, key=lambda pair: hashlib.sha256(question_text(*pair).encode()).digest())


_ALL_VALUES = {value: aspect for aspect, values in VALUES.items() for value in values}
_SENTENCE = {
    aspect: re.compile("|".join(form[:-1].format(r"(\w+)") for form in forms))
    for aspect, forms in FORMS.items()
}


def facts_in(text: str) -> list[Fact]:
    """The facts that a text states, in its order; other sentences are passed over.

    Example:
        >>> facts_in("It eats seeds. It sleeps. Its home is the cave")
        [Fact(aspect='food', value='seeds'), Fact(aspect='home', value='cave')]
    """
    found = []
    for sentence in re.split(r"[.!?\n]+", text):
        said = " ".join(sentence.split())
        value = said.rpartition(" ")[2]
        aspect = _ALL_VALUES.get(value)
        if aspect is not None and _SENTENCE[aspect].fullmatch(said):
            found.append(Fact(aspect, value))
    return found
