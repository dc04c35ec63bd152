"""Time the matrix products that a step cannot avoid, and nothing else.

    python -m benchmarks.step_time.floor --shape random32k

Each linear layer of the model is applied to as many tokens as a step needs: every distinct prompt
once, completions without their last token, the head at completion tokens only. All results go to
preallocated memory. Attention, norms, softmax, sampling, loss and optimizer are excluded. The
products of attention (``attention``) and decoding with weights reordered for oneDNN (``packed``,
which no other trainer known to us does) are timed separately and are not part of the sum.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.step_time.clock import emit, read_clock, set_threads
from benchmarks.step_time.shapes import Context, Shape, add_arguments, chosen, load_model

HEAD_BYTES = (2**25, 2**26, 2**28)
"""Tried sizes of a chunk of logits, in bytes; the fastest counts."""


class Products:
    """The matrix products of a model's linear layers, in sequence."""

    def __init__(self, model: Any) -> None:
        head = model.get_output_embeddings()
        linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
        self.body = [m.weight.detach() for m in linear]
        self.head = head.weight.detach()
        self._memory: dict[tuple[str, int], Tensor] = {}

    def memory(self, name: str, rows: int, columns: int) -> Tensor:
        """Return the buffer of a name and row size, allocated on first use."""
        found = self._memory.get((name, columns))
        if found is None or len(found) < rows:
            # Written at once: its pages must be mapped before the clock starts.
            self._memory[name, columns] = found = torch.zeros(rows, columns).normal_()
        return found[:rows]

    def forward(self, tokens: int) -> None:
        for weight in self.body:
            out, width = weight.shape
            torch.mm(self.memory("x", tokens, width), weight.T, out=self.memory("y", tokens, out))

    def backward(self, tokens: int) -> None:
        for weight in self.body:
            out, width = weight.shape
            x, grad = self.memory("x", tokens, width), self.memory("y", tokens, out)
            torch.mm(grad, weight, out=self.memory("dx", tokens, width))
            torch.mm(grad.T, x, out=self.memory("dw", out, width))

    def packed(self, rows: int, steps: int) -> None:
        """Decode in oneDNN's layout, including the reordering; results are new memory."""
        pack = torch.ops.mkldnn._reorder_linear_weight
        weights = [pack(weight, rows) for weight in (*self.body, self.head)]
        widths = [weight.shape[1] for weight in (*self.body, self.head)]
        for _ in range(steps):
            for weight, width in zip(weights, widths, strict=True):
                x = self.memory("x", rows, width)
                torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")

    def decode(self, rows: int, steps: int) -> None:
        vocab, width = self.head.shape
        x, logits = self.memory("x", rows, width), self.memory("logits", rows, vocab)
        for _ in range(steps):
            self.forward(rows)
            torch.mm(x, self.head.T, out=logits)

    def heads(self, tokens: int, chunk: int) -> None:
        """Compute both logits, and the gradients of the student's hidden states and head."""
        vocab, width = self.head.shape
        for start in range(0, tokens, chunk):
            rows = min(chunk, tokens - start)
            x, dx = self.memory("x", rows, width), self.memory("dx", rows, width)
            logits = self.memory("logits", rows, vocab)
            torch.mm(x, self.head.T, out=self.memory("teacher", rows, vocab))
            torch.mm(x, self.head.T, out=logits)
            torch.mm(logits, self.head, out=dx)
            self.memory("dhead", vocab, width).addmm_(logits.T, x)


def fastest(work: Callable[[], None], repeats: int) -> float:
    """Return the seconds of the fastest run after a warm-up run."""
    times = []
    for _ in range(repeats + 1):
        begun = read_clock()
        work()
        times.append(read_clock() - begun)
    return min(times[1:])


def attention(shape: Shape, kind: Context, repeats: int) -> float:
    """Return the seconds of q k^T and p v: causal halves, each prompt once per group."""
    size, heads = shape.width // shape.heads, shape.heads

    def products(groups: int, queries: int, keys: int) -> float:
        batch = groups * heads
        q, k = torch.randn(batch, queries, size), torch.randn(batch, keys, size)
        p, out = torch.zeros(batch, queries, keys), torch.zeros(batch, queries, size)

        def both() -> None:
            torch.bmm(q, k.mT, out=p)
            torch.bmm(p, k, out=out)

        return shape.layers * fastest(both, repeats)

    later, half = shape.completion - 1, shape.completion // 2
    teacher, distinct = shape.teacher_tokens(kind), shape.prompts * shape.contexts(kind)
    passes = {"student": (shape.prompts, shape.prompt), "teacher": (distinct, teacher)}
    seconds = dict.fromkeys(passes, 0.0)
    for who, (groups, prompt) in passes.items():
        seconds[who] += products(groups, prompt, max(1, prompt // 2))
        seconds[who] += products(shape.rows, later, prompt + half)
    decoding = later * products(shape.rows, 1, shape.prompt + half)
    # A backward pass multiplies twice as much as a forward pass.
    return 3 * seconds["student"] + seconds["teacher"] + decoding


def measure(shape: Shape, kind: Context, repeats: int) -> dict[str, Any]:
    """Return the seconds of each part and their sum."""
    work = Products(load_model(shape))
    rows, later, vocab = shape.rows, shape.completion - 1, shape.vocab
    distinct = shape.prompts * shape.contexts(kind)
    student = shape.prompts * shape.prompt + rows * later
    teacher = distinct * shape.teacher_tokens(kind) + rows * later
    chunks = {max(1, size // (4 * vocab)) for size in HEAD_BYTES}
    parts = {
        "prefill": fastest(lambda: work.forward(shape.prompts * shape.prompt), repeats),
        "decode": fastest(lambda: work.decode(rows, later), repeats),
        "teacher": fastest(lambda: work.forward(teacher), repeats),
        "student": fastest(lambda: work.forward(student), repeats),
        "backward": fastest(lambda: work.backward(student), repeats),
        "heads": min(fastest(lambda c=c: work.heads(shape.tokens, c), repeats) for c in chunks),
    }
    return {
        "floor": round(sum(parts.values()), 4),
        "parts": {name: round(seconds, 4) for name, seconds in parts.items()},
        "attention": round(attention(shape, kind, repeats), 4),
        "packed": round(fastest(lambda: work.packed(rows, later), repeats), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument(
        "--context", default="sibling", choices=["sibling", "column", "own", "same"]
    )
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    set_threads()
    with torch.no_grad():
        emit(measure(chosen(args), args.context, args.repeats))


if __name__ == "__main__":
    main()
