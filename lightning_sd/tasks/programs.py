"""Small programs as answers: judged by running them, which gives real error texts as feedback."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple, get_args

from lightning_sd.tasks.base import Split, Task
from lightning_sd.tasks.instructions import prompt
from lightning_sd.tasks.sandbox import Sandbox
from lightning_sd.tasks.splits import fraction_of
from lightning_sd.types import Question, Verdict

PROGRAM_INSTRUCTION = """\
Write the Python function that is asked for. Import nothing. Answer with the program alone, in a \
block that begins with ```python and ends with ```."""
"""Default system message."""

Family = Literal["linear", "pieces", "multiples", "digits", "clamp", "repeat"]
_BLOCK = re.compile(r"```[a-zA-Z]*\n(.*?)(?:```|\Z)", re.S)
_SHARES: dict[Split, float] = {"test": 0.15, "val": 0.3, "train": 1.0}
"""Up to which fraction of all questions each split reaches."""
_PATIENCE = 50
"""Draws a wanted question, before there are said to be too few different ones."""


class Spec(NamedTuple):
    """What one question asks for."""

    signature: str
    wanted: str
    """What the function returns, in words."""
    body: str
    """A right program's lines below the signature."""


class ProgramTask(Task):
    """Questions for small Python functions of whole numbers, judged by calling them.

    The reward is 1 if every test gives the right result, else 0. ``Verdict.feedback`` says what
    went wrong first, in the interpreter's own words: a syntax error with its line, an exception,
    a wrong result with its input, or that time was up. Programs run in a
    :class:`~lightning_sd.tasks.sandbox.Sandbox`, which needs Linux.

    Args:
        train_size: Questions to train on.
        val_size: Questions to validate on.
        test_size: Questions to test on.
        families: Kinds of functions; none: all.
        tests: Calls by which a program is judged.
        seconds: Longest time of one program.
        seed: Decides which questions are drawn; in which split one is, its text decides.
        instruction: System message that explains the form; none: no system message.

    Raises:
        ValueError: A size below 1, an unknown family, or more questions than there are.
    """

    def __init__(
        self,
        train_size: int = 500,
        val_size: int = 50,
        test_size: int = 100,
        families: list[Family] | None = None,
        tests: int = 8,
        seconds: float = 1.0,
        seed: int = 0,
        instruction: str | None = PROGRAM_INSTRUCTION,
    ) -> None:
        sizes: dict[Split, int] = {"train": train_size, "val": val_size, "test": test_size}
        for name, value in {**{f"{k}_size": v for k, v in sizes.items()}, "tests": tests}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")
        unknown = set(families or ()) - set(_FAMILIES)
        if unknown:
            raise ValueError(f"families: there is no {sorted(unknown)}; choose of {[*_FAMILIES]}.")
        self.families, self.tests, self.seed = families or [*_FAMILIES], tests, seed
        self.instruction = instruction
        self.sandbox = Sandbox(seconds)
        self._questions = {split: self._draw(split, sizes[split]) for split in get_args(Split)}

    def questions(self, split: Split) -> Sequence[Question]:
        """The questions of one split; see :class:`Task`."""
        if split not in self._questions:
            raise ValueError(f"split={split!r}: choose one of {get_args(Split)}.")
        return self._questions[split]

    def verify(self, question: Question, completion: str) -> Verdict:
        """Run the program; see the class. ``answer`` is what it returned, test by test."""
        source = read_program(completion)
        if source is None:
            return Verdict(reward=0.0, correct=False, feedback="there is no program")
        tests = question.extra["tests"]
        error, results = self.sandbox.call(source, "f", [inputs for inputs, _ in tests])
        if error is not None:
            return Verdict(reward=0.0, correct=False, feedback=error)
        for (inputs, wanted), result in zip(tests, results, strict=True):
            if result.value != wanted:
                said = result.error or f"returned {result.value}, not {wanted}"
                call = f"f({', '.join(map(str, inputs))})"
                found = "; ".join(str(each.value) for each in results)
                feedback = f"{call}: {said}" if result.error else f"{call} {said}"
                return Verdict(reward=0.0, correct=False, answer=found, feedback=feedback)
        return Verdict(reward=1.0, correct=True, answer="; ".join(str(r.value) for r in results))

    def _draw(self, split: Split, size: int) -> list[Question]:
        rng = random.Random(f"{split}/{self.seed}")
        drawn = list(islice(self._different(split, rng, _PATIENCE * size), size))
        if len(drawn) < size:
            raise ValueError(
                f"{split}_size={size}: only {len(drawn)} different questions were found; ask for "
                "fewer, or for more families."
            )
        return drawn

    def _different(self, split: Split, rng: random.Random, draws: int) -> Iterator[Question]:
        seen: set[str] = set()
        for _ in range(draws):
            spec = _FAMILIES[rng.choice(self.families)](rng)
            what = f"Write a Python function {spec.signature} of whole numbers."
            text = f"{what} It returns {spec.wanted}."
            if text not in seen and _split_of(text) == split:
                seen.add(text)
                yield self._question(text, spec)

    def _question(self, text: str, spec: Spec) -> Question:
        program = f"def {spec.signature}:\n{spec.body}"
        return Question(
            id=f"programs/{text}",
            text=text,
            messages=prompt(text, self.instruction),
            reference=f"```python\n{program}\n```",
            extra={"tests": _tests(text, program, spec.signature.count(",") + 1, self.tests)},
        )


def read_program(completion: str) -> str | None:
    r"""The program of a completion: the last block between back quotes, else the whole text.

    Example:
        >>> read_program("So:```python\ndef f(x):\n    return x\n```done")
        'def f(x):\n    return x\n'
    """
    blocks: list[str] = _BLOCK.findall(completion)
    source = blocks[-1] if blocks else completion
    return source if source.strip() else None


def _split_of(text: str) -> Split:
    # Whatever the seed: another one must not train on what was tested before.
    place = fraction_of(text, 0)
    return next(split for split, end in _SHARES.items() if place < end)


def _tests(text: str, program: str, arity: int, number: int) -> list[tuple[list[int], str]]:
    """Inputs that the question's text decides, and what the right program makes of them."""
    space: dict[str, Any] = {}
    exec(program, space)  # our own text, written above
    rng = random.Random(text)
    inputs = [
        [rng.choice([rng.randrange(4), rng.randrange(60)]) for _ in range(arity)]
        for _ in range(number)
    ]
    return [(values, repr(space["f"](*values))) for values in inputs]


def _linear(rng: random.Random) -> Spec:
    a, b, c = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 20)
    return Spec(
        "f(x, y)", f"{a} times x plus {b} times y minus {c}", f"    return {a} * x + {b} * y - {c}"
    )


def _pieces(rng: random.Random) -> Spec:
    limit, a, b = rng.randint(3, 40), rng.randint(2, 9), rng.randint(1, 20)
    return Spec(
        "f(x)",
        f"{a} times x if x is larger than {limit}, otherwise x plus {b}",
        f"    return {a} * x if x > {limit} else x + {b}",
    )


def _multiples(rng: random.Random) -> Spec:
    k, c = rng.randint(2, 9), rng.randint(1, 20)
    return Spec(
        "f(n)",
        f"the sum of the numbers from 1 to n that are divisible by {k}, plus {c}",
        f"    return sum(i for i in range(1, n + 1) if i % {k} == 0) + {c}",
    )


def _digits(rng: random.Random) -> Spec:
    digit, factor = rng.randrange(10), rng.randint(2, 99)
    return Spec(
        "f(n)",
        f"how often the digit {digit} stands in the decimal form of {factor} times n",
        f"    return str({factor} * n).count('{digit}')",
    )


def _clamp(rng: random.Random) -> Spec:
    low = rng.randint(1, 20)
    high, k = low + rng.randint(3, 30), rng.randint(1, 9)
    return Spec(
        "f(x)",
        f"x plus {k}, but at least {low} and at most {high}",
        f"    return max({low}, min({high}, x + {k}))",
    )


def _repeat(rng: random.Random) -> Spec:
    times, a, b, m = rng.randint(2, 6), rng.randint(2, 9), rng.randint(1, 9), rng.randint(11, 50)
    return Spec(
        "f(x)",
        f"what x becomes if it is replaced {times} times by the remainder of {a} times itself plus "
        f"{b}, divided by {m}",
        f"    for _ in range({times}):\n        x = ({a} * x + {b}) % {m}\n    return x",
    )


_FAMILIES: dict[Family, Callable[[random.Random], Spec]] = {
    "linear": _linear,
    "pieces": _pieces,
    "multiples": _multiples,
    "digits": _digits,
    "clamp": _clamp,
    "repeat": _repeat,
}
