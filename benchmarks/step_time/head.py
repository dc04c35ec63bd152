"""Time the operators of an output head alone, at each vocabulary of the growth curve.

    python -m benchmarks.step_time.head

For one thread and 256 hidden units: the products and the JS divergence of one chunk of tokens, with
as many rows as the loss takes by default and with 128, and what a decoding step of 16 rows needs.
Prints processor nanoseconds per logit (for ``pack`` and ``zeros``, which run once per step, per
element of the head), fastest of five runs after a warm-up, and the median of minor page faults.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from benchmarks.step_time.curves import CURVES
from lightning_sd.functional.divergence import divergence_and_grad_
from lightning_sd.functional.divergence_spec import DivergenceSpec
from lightning_sd.functional.linear import CHUNK_ROWS, default_chunk
from lightning_sd.functional.onednn import multiply, multiply_into, pack
from lightning_sd.scoring.scaled import split_rows

WIDTH = 256
DECODED = 16
REPEATS = 5


class Timing(NamedTuple):
    vocab: int
    rows: int
    operator: str
    nanoseconds: float
    faults: float


def count_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measure(
    work: Callable[[], object], prepare: Callable[[], object] = lambda: None
) -> tuple[float, float]:
    """Return the seconds of the fastest run, and the median of the page faults of a run."""
    seconds, faults = [], []
    for _ in range(REPEATS + 1):
        prepare()
        before, begun = count_faults(), time.process_time()
        work()
        seconds.append(time.process_time() - begun)
        faults.append(count_faults() - before)
    return min(seconds[1:]), statistics.median(faults[1:])


def time_chunk(vocab: int, rows: int) -> Iterator[Timing]:
    """Yield the operators of the loss for one chunk of tokens."""
    weight, hidden = torch.randn(vocab, WIDTH) / 16, torch.randn(rows, WIDTH)
    head_grad, hidden_grad = torch.zeros(vocab, WIDTH), torch.empty(rows, WIDTH)
    student, teacher = torch.empty(rows, vocab), torch.empty(rows, vocab)
    ids, spec = torch.zeros(rows, dtype=torch.long), DivergenceSpec("js", beta=0.5)

    def fill() -> None:
        multiply_into(hidden, weight, student)
        multiply_into(hidden * 1.01, weight, teacher)

    def diverge() -> None:
        for block in split_rows(student):
            divergence_and_grad_(student[block], teacher[block], ids[block], spec)

    works: dict[str, Callable[[], object]] = {
        "logits": lambda: multiply_into(hidden, weight, student),
        "gradient of the head": lambda: head_grad.addmm_(student.T, hidden),
        "gradient of the hidden states": lambda: torch.mm(student, weight, out=hidden_grad),
        "divergence": diverge,
    }
    for name, work in works.items():
        seconds, faults = measure(work, fill if name == "divergence" else lambda: None)
        yield Timing(vocab, rows, name, 1e9 * seconds / (rows * vocab), faults)


def time_decoding(vocab: int) -> Iterator[Timing]:
    """Yield what rollouts do with the head, and new zeros of its size."""
    weight, hidden = torch.randn(vocab, WIDTH) / 16, torch.randn(DECODED, WIDTH)
    packed = pack(weight, DECODED)
    logits = multiply(hidden, packed)
    works: dict[str, tuple[Callable[[], object], int]] = {
        "decoding product": (lambda: multiply(hidden, packed), logits.numel()),
        "softmax": (lambda: logits.softmax(-1), logits.numel()),
        "pack": (lambda: pack(weight, DECODED), weight.numel()),
        "zeros": (lambda: torch.zeros_like(weight), weight.numel()),
    }
    for name, (work, elements) in works.items():
        seconds, faults = measure(work)
        yield Timing(vocab, DECODED, name, 1e9 * seconds / elements, faults)


def main() -> None:
    curve = [point["vocab"] for point in CURVES["vocab"]]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, nargs="*", default=curve, help="vocabularies")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| vocabulary | rows | operator | ns per element | page faults |\n" + "|---" * 5 + "|")
    for vocab in parser.parse_args().only:
        chunks = sorted({default_chunk(vocab), CHUNK_ROWS}, reverse=True)
        timings = [timing for rows in chunks for timing in time_chunk(vocab, rows)]
        for timing in (*timings, *time_decoding(vocab)):
            cells = (f"{vocab:,}", timing.rows, timing.operator, f"{timing.nanoseconds:.2f}")
            print(f"| {' | '.join(map(str, cells))} | {timing.faults:.0f} |", flush=True)


if __name__ == "__main__":
    main()
