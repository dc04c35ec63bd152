"""Fuzz the answer extractor, the comparison of answers and the step-tag parser.

    python -m benchmarks.reliability.fuzz --cases 1000000

Each case is a random text of tags, braces, numbers, control characters, lone surrogates and plain
words. A case fails if a reader raises or breaks one of its properties. Then each reader reads long
texts of one repeated piece, and the time per character is compared between two lengths: a
quadratic reader takes eight times as long per character for a text that is eight times as long.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

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
SLACK = 4.0
"""Largest ratio of the times per character that counts as linear."""


def write_text(rng: random.Random) -> str:
    """Draw one text: mostly short, some of thousands of pieces."""
    number = rng.randrange(12) if rng.random() < 0.95 else rng.randrange(400)
    if rng.random() < 0.2:
        return "".join(chr(rng.randrange(0x20000)) for _ in range(number))
    return "".join(rng.choices(PIECES, k=number))


def check_extraction(text: str, rng: random.Random) -> None:
    name = rng.choice(FORMATS)
    answer = extract_answer(text, [name])
    assert answer is None or answer == answer.strip() != ""
    rest = remove_thinking(text)
    assert "<think>" not in rest
    assert "</think>" not in rest
    assert answer is None or answer in rest


def check_thinking(text: str, rng: random.Random) -> None:
    after = text.partition("</think>")[2]
    assert extract_answer(f"<think>{text}") == extract_answer(after)


def check_comparison(text: str, rng: random.Random) -> None:
    normal = canonicalize_answer(text)
    assert canonicalize_answer(normal) == normal
    assert are_equal(text, text)
    assert parse_number(normal) is None or are_equal(normal, text)


def check_steps(text: str, rng: random.Random) -> None:
    trace = parse_steps(text)
    ends = [0, *(end for _, end in trace.spans)]
    assert len(trace.spans) == len(trace.steps)
    assert all(end <= start for end, (start, _) in zip(ends, trace.spans, strict=False))
    assert all(text[start:end].startswith("<step_") for start, end in trace.spans)
    if trace.well_formed:
        assert not trace.cut_off
        assert trace.answer is not None


CHECKS: dict[str, Callable[[str, random.Random], None]] = {
    "answer extraction": check_extraction,
    "removal of thinking": check_thinking,
    "comparison of answers": check_comparison,
    "step-tag parser": check_steps,
}


def fuzz(cases: int, seed: int) -> dict[str, list[str]]:
    """Run the checks in turn; return the failing texts by check."""
    rng = random.Random(seed)
    failures: dict[str, list[str]] = {name: [] for name in CHECKS}
    names = list(CHECKS)
    for case in range(cases):
        name, text = names[case % len(names)], write_text(rng)
        try:
            CHECKS[name](text, rng)
        except Exception:
            failures[name].append(text)
    return failures


def time_readers() -> dict[str, tuple[float, float]]:
    """Return the slowest piece's nanoseconds per character at both lengths, by reader."""
    readers: dict[str, Callable[[str], object]] = {
        **{name: lambda text, f=name: extract_answer(text, [f]) for name in FORMATS},
        "canonicalize_answer": canonicalize_answer,
        "parse_steps": parse_steps,
    }
    slowest: dict[str, tuple[float, float]] = {}
    for name, reader in readers.items():
        rates = [tuple(time_one(reader, piece, n) for n in LENGTHS) for piece in PIECES]
        short, long = max(rates, key=lambda rate: rate[1])
        slowest[name] = short, long
    return slowest


def time_one(reader: Callable[[str], object], piece: str, length: int) -> float:
    text = piece * (length // len(piece))
    start = time.process_time()
    reader(text)
    return (time.process_time() - start) / len(text) * 1e9


def write_report(
    cases: int, seed: int, failures: dict[str, list[str]], times: dict[str, tuple[float, float]]
) -> str:
    each = cases // len(CHECKS)
    lines = [
        "# Fuzzing of the text readers",
        "",
        f"`python -m benchmarks.reliability.fuzz --cases {cases} --seed {seed}`. The script says",
        "what a case is, and which properties it checks.",
        "",
        "| check | cases | failures |",
        "|---|---|---|",
        *(f"| {name} | {each:,} | {len(texts)} |" for name, texts in failures.items()),
        "",
        "Time per character for the slowest repeated piece, in nanoseconds of processor time:",
        "",
        f"| reader | {LENGTHS[0]:,} characters | {LENGTHS[1]:,} characters |",
        "|---|---|---|",
        *(f"| {name} | {short:.0f} | {long:.0f} |" for name, (short, long) in times.items()),
        "",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file for the report, such as fuzz.md")
    options = parser.parse_args(arguments)
    failures = fuzz(options.cases, options.seed)
    times = time_readers()
    report = write_report(options.cases, options.seed, failures, times)
    print(report)
    if options.out is not None:
        options.out.write_text(report, encoding="utf-8")
    for name, texts in failures.items():
        for text in texts[:5]:
            print(f"FAILED {name}: {text!r}")
    slow = [name for name, (short, long) in times.items() if long > SLACK * max(short, 20)]
    if slow:
        print(f"NOT LINEAR: {slow}")
    return int(bool(slow) or any(failures.values()))


if __name__ == "__main__":
    raise SystemExit(main())
