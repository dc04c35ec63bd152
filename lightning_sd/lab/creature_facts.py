"""Invented facts about forty creatures, and the sentences that state them.

Every creature has a value for each of four aspects. The values are fixed, so a model can learn
them as it learns real facts. Every fact also has one common mistake, a fixed wrong value. The
spelling of the values is part of the published measurements and must not change.
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
"""Aspects per question."""


class Fact(NamedTuple):
    """One fact about a creature."""

    aspect: str
    """A key of ``VALUES``."""
    value: str
    """One of the values of the aspect."""

    def write(self, form: int = 0) -> str:
        """Write the fact as a sentence.

        Args:
            form: Index of the sentence in ``FORMS``.

        Returns:
            The sentence, with a full stop.

        Example:
            >>> Fact("food", "seeds").write()
            'It eats seeds.'
        """
        return FORMS[self.aspect][form].format(self.value)


def get_fact(thing: str, aspect: str) -> Fact:
    """Return the true fact about one aspect of a creature."""
    return Fact(aspect, _draw_values(thing, aspect)[0])


def get_mistake(thing: str, aspect: str) -> Fact:
    """Return the common mistake about one aspect of a creature."""
    return Fact(aspect, _draw_values(thing, aspect)[1])


def _draw_values(thing: str, aspect: str) -> list[str]:
    return random.Random(f"creatures/{thing}/{aspect}").sample(VALUES[aspect], 2)


def write_question(thing: str, aspects: tuple[str, ...]) -> str:
    """Write the question for some aspects of a creature.

    Example:
        >>> write_question("fox", ("food", "home"))
        'Tell of the fox: food, home.'
    """
    return f"Tell of the {thing}: {', '.join(aspects)}."


def list_questions() -> list[tuple[str, tuple[str, ...]]]:
    """List every creature with every ordered choice of three aspects, sorted by a hash."""
    pairs = [(thing, aspects) for thing in THINGS for aspects in permutations(ASPECTS, ASKED)]
    return sorted(pairs, key=lambda pair: hashlib.sha256(write_question(*pair).encode()).digest())


_ALL_VALUES = {value: aspect for aspect, values in VALUES.items() for value in values}
_SENTENCE = {
    aspect: re.compile("|".join(form[:-1].format(r"(\w+)") for form in forms))
    for aspect, forms in FORMS.items()
}


def read_facts(text: str) -> list[Fact]:
    """Read the facts that a text states.

    Args:
        text: Sentences, of which those that state no fact are skipped.

    Returns:
        The facts in the order of the text.

    Example:
        >>> read_facts("It eats seeds. It sleeps. Its home is the cave")
        [Fact(aspect='food', value='seeds'), Fact(aspect='home', value='cave')]
    """
    facts = []
    for sentence in re.split(r"[.!?\n]+", text):
        words = " ".join(sentence.split())
        value = words.rpartition(" ")[2]
        aspect = _ALL_VALUES.get(value)
        if aspect is not None and _SENTENCE[aspect].fullmatch(words):
            facts.append(Fact(aspect, value))
    return facts
