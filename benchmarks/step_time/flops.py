"""Count the FLOPs of our forward and backward passes and of TRL's.

    python -m benchmarks.step_time.flops

The output is relative to the minimum. With N parameters in the linear layers, D in the head, P
prompt tokens, P_t tokens of the teacher's prompt, C distinct teacher's prompts and G completions of
R tokens per group, the minimum is

    student 6 N (P + G R) + 6 D G R,   teacher 2 N (C P_t + G R) + 2 D G R.

Attention's products and all operations other than matrix products are excluded from both.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.step_time import ours, peer
from benchmarks.step_time.clock import emit, set_threads
from benchmarks.step_time.shapes import SHAPES, Context, Shape, load_model

COUNTED: list[tuple[Context, dict[str, int]]] = [
    ("column", {"samples": 1, "teacher_prompt": 160}),
    ("column", {"samples": 8, "teacher_prompt": 160}),
    ("column", {"samples": 1, "teacher_prompt": 2048}),
    ("column", {"samples": 8, "teacher_prompt": 2048}),
    ("own", {"samples": 8, "teacher_prompt": 160}),
    ("own", {"samples": 8, "teacher_prompt": 2048}),
]
COUNTED_SHAPE = replace(SHAPES["random32k"], prompts=2, prompt=128, completion=64)


def count_minimum(shape: Shape, kind: Context) -> float:
    """Return the FLOPs of one step's forward and backward passes by the formula above."""
    tokens, n, d = shape.completion * shape.samples, shape.body, shape.head
    teacher = shape.contexts(kind) * shape.teacher_tokens(kind)
    student = 6 * n * (shape.prompt + tokens) + 6 * d * tokens
    return float(shape.prompts * (student + 2 * n * (teacher + tokens) + 2 * d * tokens))


def count_own(shape: Shape, kind: Context) -> float:
    """Count the FLOPs of the matrix products in our forward and backward passes."""
    module = ours.make_module(shape, "js", load_model(shape))
    module.configure_model()
    generator = torch.Generator().manual_seed(0)
    size = (shape.rows, shape.completion)
    completions = torch.randint(shape.vocab, size, generator=generator).tolist()
    rollouts = ours.make_rollouts(module, shape, completions)
    ours.compute_loss(module, rollouts, kind, shape)  # finds the head, once per module
    with make_counter() as counter:
        ours.compute_loss(module, rollouts, kind, shape).total.backward()
    return sum_products(counter)


def count_peer(shape: Shape) -> float:
    """Count the same FLOPs in one step of TRL's SDFTTrainer."""
    with tempfile.TemporaryDirectory() as folder:
        shared = peer.settings(shape, 1, folder, checkpointing=False)
        trainer = peer.make_trainer("sdft", shape, "js", 1, shared)
        found = []

        def watch(function: Any) -> Any:
            def inside(*args: Any, **kwargs: Any) -> Any:
                with make_counter() as counter:
                    result = function(*args, **kwargs)
                found.append(sum_products(counter))
                return result

            return inside

        trainer.compute_loss = watch(trainer.compute_loss)
        trainer.accelerator.backward = watch(trainer.accelerator.backward)
        trainer.train()
    return sum(found)


def make_counter() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _addmm})


def sum_products(counter: FlopCounterMode) -> float:
    """Sum the products with weights; products in attention kernels are excluded."""
    kinds = counter.get_flop_counts()["Global"]
    return float(sum(n for op, n in kinds.items() if "mm" in str(op)))


def _addmm(self_shape: Any, a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    """Count in-place ``addmm``, which the counter does not know."""
    return int(2 * a[0] * a[1] * b[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="use a tiny model")
    args = parser.parse_args()
    set_threads()
    peer.quiet()
    rows = []
    for kind, changes in COUNTED:
        shape = replace(COUNTED_SHAPE, **changes)
        if args.tiny:
            shape = replace(shape, width=32, inner=64, heads=2, kv_heads=2, layers=2, vocab=300)
        found, minimum = count_own(shape, kind), count_minimum(shape, kind)
        facts = {"context": kind, **changes, "counted": found, "least": minimum}
        facts["ratio"] = round(found / minimum, 4)
        if kind == "column":
            facts["ratio_trl"] = round(count_peer(shape) / minimum, 4)
        rows.append(facts)
        print(rows[-1], flush=True)
    emit({"flops": rows})


if __name__ == "__main__":
    main()
