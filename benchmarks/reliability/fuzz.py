"""Fuzz the answer extractor, the comparison of answers and the step-tag parser.

    python -m benchmarks.reliability.fuzz --cases 1000000

Each case is a random text of tags, braces, numbers, control characters, lone surrogates and plain
words. A case fails if a reader raises or breaks one of its properties. Then each reader reads long
texts of one repeated piece, and the time per character is compared between two lengths: a
quadratic reader takes eight times as long per character for a text that is eight times as long.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from benchmarks.reliability.fuzzing import Subject, find_slowest, fuzz, parse_options, report
from lightning_sd.tasks.judges.answer import are_equal
from lightning_sd.tasks.judges.compare import canonicalize_answer, parse_number
from lightning_sd.tasks.judges.extract import extract_answer, remove_thinking
from lightning_sd.text.steps import parse_steps

FORMATS = ("answer_tag", "boxed", "gsm8k", "answer_is", "last_number", "choice")
PIECES = (
    *("<think>", "</think>", "<answer>", "</answer>", r"\boxed{", r"\boxed  {", "{", "}", r"\frac"),
    *("####", "\n", " ", "answer is ", "Answer:", "option ", "(A)", "B", "7", "1,800", "-", "3.5"),
    *("<step_1>", "</step_1>", "<step_2>", "</step_2>", "<step_", "</", "<", ">", "$", "e5", "^"),
    *("<|im_end|>", "</s>", "\x00", "\x1b[2J", "\ud800", "é", "\u202e", "word ", "\t", "\\", "."),
)
LENGTHS = (125_000, 1_000_000)


def write_text(rng: random.Random) -> str:
    """Draw one text: mostly short, some of thousands of pieces."""
    number = rng.randrange(12) if rng.random() < 0.95 else rng.randrange(400)
    if rng.random() < 0.2:
        return "".join(chr(rng.randrange(0x20000)) for _ in range(number))
    return "".join(rng.choices(PIECES, k=number))


def write_answer(rng: random.Random) -> tuple[str, str]:
    """Draw a text and the format in which its answer is looked for."""
    return write_text(rng), rng.choice(FORMATS)


def check_extraction(value: tuple[str, str]) -> bool:
    text, name = value
    answer = extract_answer(text, [name])
    assert answer is None or answer == answer.strip() != ""
    rest = remove_thinking(text)
    assert "<think>" not in rest
    assert "</think>" not in rest
    assert answer is None or answer in rest
    return True


def check_thinking(text: str) -> bool:
    after = text.partition("</think>")[2]
    assert extract_answer(f"<think>{text}") == extract_answer(after)
    return True


def check_comparison(text: str) -> bool:
    normal = canonicalize_answer(text)
    assert canonicalize_answer(normal) == normal
    assert are_equal(text, text)
    assert parse_number(normal) is None or are_equal(normal, text)
    return True


def check_steps(text: str) -> bool:
    trace = parse_steps(text)
    ends = [0, *(end for _, end in trace.spans)]
    assert len(trace.spans) == len(trace.steps)
    assert all(end <= start for end, (start, _) in zip(ends, trace.spans, strict=False))
    assert all(text[start:end].startswith("<step_") for start, end in trace.spans)
    if trace.well_formed:
        assert not trace.cut_off
        assert trace.answer is not None
    return True


SUBJECTS = {
    "answer extraction": Subject(write_answer, check_extraction),
    "removal of thinking": Subject(write_text, check_thinking),
    "comparison of answers": Subject(write_text, check_comparison),
    "step-tag parser": Subject(write_text, check_steps),
}
READERS: dict[str, Callable[[str], object]] = {
    **{name: lambda text, f=name: extract_answer(text, [f]) for name in FORMATS},
    "canonicalize_answer": canonicalize_answer,
    "parse_steps": parse_steps,
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(__doc__, arguments)
    tallies = fuzz(SUBJECTS, options.cases, options.seed, options.minutes)
    rates = find_slowest(READERS, PIECES, LENGTHS)
    return report("Fuzzing of the text readers", "fuzz", options, tallies, rates, LENGTHS)


if __name__ == "__main__":
    raise SystemExit(main())
