"""The work of a step, counted: FLOPs of our forward and backward passes, and of TRL's.

    python -m benchmarks.step_time.flops

prints them against the least that there is: with N
parameters in the linear layers, D in the head, P prompt tokens, P_t of the teacher's prompt, C
distinct ones of these and G completions of R tokens a group,

    student 6 N (P + G R) + 6 D G R,   teacher 2 N (C P_t + G R) + 2 D G R.

Attention's own products and everything that is not a matrix product are in neither number.
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


def least(shape: Shape, kind: Context) -> float:
    """Work of one step's forward and backward passes by the formula above, in FLOPs."""
    tokens, n, d = shape.completion * shape.samples, shape.body, shape.head
    teacher = shape.contexts(kind) * shape.teacher_tokens(kind)
    student = 6 * n * (shape.prompt + tokens) + 6 * d * tokens
    return float(shape.prompts * (student + 2 * n * (teacher + tokens) + 2 * d * tokens))


def counted(shape: Shape, kind: Context) -> float:
    """FLOPs of the matrix products in our forward and backward passes."""
    module = ours.make_module(shape, "js", load_model(shape))
    module.configure_model()
    generator = torch.Generator().manual_seed(0)
    size = (shape.rows, shape.completion)
    completions = torch.randint(shape.vocab, size, generator=generator).tolist()
    rollouts = ours.rollouts_of(module, shape, completions)
    ours.given_loss(module, rollouts, kind, shape)  # the head is looked for only once
    with counting() as counter:
        ours.given_loss(module, rollouts, kind, shape).total.backward()
    return total(counter)


def counted_of_trl(shape: Shape) -> float:
    """The same of TRL's SDFTTrainer, in one step of its own."""
    with tempfile.TemporaryDirectory() as folder:
        shared = peer.settings(shape, 1, folder, checkpointing=False)
        trainer = peer.make_trainer("sdft", shape, "js", 1, shared)
        found = []

        def watched(function: Any) -> Any:
            def inside(*args: Any, **kwargs: Any) -> Any:
                with counting() as counter:
                    result = function(*args, **kwargs)
                found.append(total(counter))
                return result

            return inside

        trainer.compute_loss = watched(trainer.compute_loss)
        trainer.accelerator.backward = watched(trainer.accelerator.backward)
        trainer.train()
    return sum(found)


def counting() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _addmm})


def total(counter: FlopCounterMode) -> float:
    """Products with weights: what attention's kernel multiplies is not counted."""
    kinds = counter.get_flop_counts()["Global"]
    return float(sum(n for op, n in kinds.items() if "mm" in str(op)))


def _addmm(self_shape: Any, a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    """The counter knows ``addmm`` but not its form in place."""
    return int(2 * a[0] * a[1] * b[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a tiny model instead")
    args = parser.parse_args()
    set_threads()
    peer.quiet()
    rows = []
    for kind, changes in COUNTED:
        shape = replace(COUNTED_SHAPE, **changes)
        if args.tiny:
            shape = replace(shape, width=32, inner=64, heads=2, kv_heads=2, layers=2, vocab=300)
        found, minimum = counted(shape, kind), least(shape, kind)
        facts = {"context": kind, **changes, "counted": found, "least": minimum}
        facts["ratio"] = round(found / minimum, 4)
        if kind == "column":
            facts["ratio_trl"] = round(counted_of_trl(shape) / minimum, 4)
        rows.append(facts)
        print(rows[-1], flush=True)
    emit({"flops": rows})


if __name__ == "__main__":
    main()
