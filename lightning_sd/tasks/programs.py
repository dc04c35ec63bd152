"""Questions answered by small programs, judged by running them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple, get_args

from lightning_sd.tasks.base import Split, Task
from lightning_sd.tasks.instructions import build_prompt
from lightning_sd.tasks.sandbox import Sandbox
from lightning_sd.tasks.splits import hash_to_fraction
from lightning_sd.types import Question, Verdict

PROGRAM_INSTRUCTION = """\
Write the Python function that is asked for. Import nothing. Answer with the program alone, in a \
block that begins with ```python and ends with ```."""
"""Default system message."""

Family = Literal["linear", "pieces", "multiples", "digits", "clamp", "repeat"]
_BLOCK = re.compile(r"```[a-zA-Z]*\n(.*?)(?:```|\Z)", re.S)
_SHARES: dict[Split, float] = {"test": 0.15, "val": 0.3, "train": 1.0}
"""End of each split as a fraction of all questions, in the order test, val, train."""
_DRAWS_PER_QUESTION = 50
"""Largest number of draws per wanted question."""


class FunctionSpec(NamedTuple):
    """The function that a question asks for."""

    signature: str
    """Name and parameters, such as ``f(x, y)``."""
    wanted: str
    """The returned value in words."""
    body: str
    """The body of a right program."""


class ProgramTask(Task):
    """Questions that ask for a Python function of integers, judged by calling it.

    The reward is 1 if every test returns the right result, else 0. ``Verdict.feedback`` describes
    the first failure: a syntax error with its line, an exception, a wrong result with its input,
    or the time limit. Programs run in a :class:`~lightning_sd.tasks.sandbox.Sandbox`, which needs
    Linux.

    Args:
        train_size: Number of training questions.
        val_size: Number of validation questions.
        test_size: Number of test questions.
        families: Kinds of functions. None uses all.
        tests: Number of calls per program.
        seconds: Time limit of one program in seconds.
        seed: Selects the questions. It does not change the split of a question.
        instruction: System message that explains the format. None adds no system message.

    Raises:
        ValueError: A size is below 1, a family is unknown, or there are too few questions.
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
            raise ValueError(f"families: {sorted(unknown)} is unknown. Choose from {[*_FAMILIES]}.")
        self.families, self.tests, self.seed = families or [*_FAMILIES], tests, seed
        self.instruction = instruction
        self.sandbox = Sandbox(seconds)
        self._questions = {split: self._draw(split, sizes[split]) for split in get_args(Split)}

    def questions(self, split: Split) -> Sequence[Question]:
        """Return the questions of one split. See :meth:`.Task.questions`."""
        if split not in self._questions:
            raise ValueError(f"split={split!r}: choose one of {get_args(Split)}.")
        return self._questions[split]

    def verify(self, question: Question, completion: str) -> Verdict:
        """Run the program of a completion. ``Verdict.answer`` lists the returned values."""
        source = read_program(completion)
        if source is None:
            return Verdict(0.0, False, feedback="there is no program", status="no_answer")
        tests = question.extra["tests"]
        error, results = self.sandbox.call(source, "f", [inputs for inputs, _ in tests])
        if error is not None:
            return Verdict(reward=0.0, correct=False, feedback=error)
        for (inputs, wanted), result in zip(tests, results, strict=True):
            if result.value != wanted:
                call = f"f({', '.join(map(str, inputs))})"
                feedback = f"{call} returned {result.value}, not {wanted}"
                if result.error:
                    feedback = f"{call}: {result.error}"
                answer = "; ".join(str(each.value) for each in results)
                return Verdict(reward=0.0, correct=False, answer=answer, feedback=feedback)
        return Verdict(reward=1.0, correct=True, answer="; ".join(str(r.value) for r in results))

    def _draw(self, split: Split, size: int) -> list[Question]:
        rng = random.Random(f"{split}/{self.seed}")
        distinct = self._yield_distinct(split, rng, _DRAWS_PER_QUESTION * size)
        drawn = list(islice(distinct, size))
        if len(drawn) < size:
            raise ValueError(
                f"{split}_size={size}: only {len(drawn)} different questions were found. Lower "
                "the size or add families."
            )
        return drawn

    def _yield_distinct(self, split: Split, rng: random.Random, draws: int) -> Iterator[Question]:
        seen: set[str] = set()
        for _ in range(draws):
            spec = _FAMILIES[rng.choice(self.families)](rng)
            what = f"Write a Python function {spec.signature} of whole numbers."
            text = f"{what} It returns {spec.wanted}."
            if text not in seen and _assign_split(text) == split:
                seen.add(text)
                yield self._build_question(text, spec)

    def _build_question(self, text: str, spec: FunctionSpec) -> Question:
        program = f"def {spec.signature}:\n{spec.body}"
        return Question(
            id=f"programs/{text}",
            text=text,
            messages=build_prompt(text, self.instruction),
            reference=f"```python\n{program}\n```",
            extra={"tests": _make_tests(text, program, spec.signature.count(",") + 1, self.tests)},
        )


def read_program(completion: str) -> str | None:
    r"""Read the program of a completion.

    Args:
        completion: A decoded completion.

    Returns:
        The last block between triple back quotes, or the whole text if there is no block. None if
        that is blank.

    Example:
        >>> read_program("So:```python\ndef f(x):\n    return x\n```done")
        'def f(x):\n    return x\n'
    """
    blocks: list[str] = _BLOCK.findall(completion)
    source = blocks[-1] if blocks else completion
    return source if source.strip() else None


def _assign_split(text: str) -> Split:
    # Independent of the seed, so that no seed trains on another seed's test questions.
    place = hash_to_fraction(text, 0)
    return next(split for split, end in _SHARES.items() if place < end)


def _make_tests(text: str, program: str, arity: int, number: int) -> list[tuple[list[int], str]]:
    """Draw inputs from the question's text and compute their right results."""
    space: dict[str, Any] = {}
    exec(program, space)  # a program of this module, not of a model
    rng = random.Random(text)
    inputs = [
        [rng.choice([rng.randrange(4), rng.randrange(60)]) for _ in range(arity)]
        for _ in range(number)
    ]
    return [(values, repr(space["f"](*values))) for values in inputs]


def _draw_linear(rng: random.Random) -> FunctionSpec:
    a, b, c = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 20)
    return FunctionSpec(
        "f(x, y)", f"{a} times x plus {b} times y minus {c}", f"    return {a} * x + {b} * y - {c}"
    )


def _draw_pieces(rng: random.Random) -> FunctionSpec:
    limit, a, b = rng.randint(3, 40), rng.randint(2, 9), rng.randint(1, 20)
    return FunctionSpec(
        "f(x)",
        f"{a} times x if x is larger than {limit}, otherwise x plus {b}",
        f"    return {a} * x if x > {limit} else x + {b}",
    )


def _draw_multiples(rng: random.Random) -> FunctionSpec:
    k, c = rng.randint(2, 9), rng.randint(1, 20)
    return FunctionSpec(
        "f(n)",
        f"the sum of the numbers from 1 to n that are divisible by {k}, plus {c}",
        f"    return sum(i for i in range(1, n + 1) if i % {k} == 0) + {c}",
    )


def _draw_digits(rng: random.Random) -> FunctionSpec:
    digit, factor = rng.randrange(10), rng.randint(2, 99)
    return FunctionSpec(
        "f(n)",
        f"how often the digit {digit} stands in the decimal form of {factor} times n",
        f"    return str({factor} * n).count('{digit}')",
    )


def _draw_clamp(rng: random.Random) -> FunctionSpec:
    low = rng.randint(1, 20)
    high, k = low + rng.randint(3, 30), rng.randint(1, 9)
    return FunctionSpec(
        "f(x)",
        f"x plus {k}, but at least {low} and at most {high}",
        f"    return max({low}, min({high}, x + {k}))",
    )


def _draw_repeat(rng: random.Random) -> FunctionSpec:
    times, a, b, m = rng.randint(2, 6), rng.randint(2, 9), rng.randint(1, 9), rng.randint(11, 50)
    return FunctionSpec(
        "f(x)",
        f"what x becomes if it is replaced {times} times by the remainder of {a} times itself plus "
        f"{b}, divided by {m}",
        f"    for _ in range({times}):\n        x = ({a} * x + {b}) % {m}\n    return x",
    )


_FAMILIES: dict[Family, Callable[[random.Random], FunctionSpec]] = {
    "linear": _draw_linear,
    "pieces": _draw_pieces,
    "multiples": _draw_multiples,
    "digits": _draw_digits,
    "clamp": _draw_clamp,
    "repeat": _draw_repeat,
}
