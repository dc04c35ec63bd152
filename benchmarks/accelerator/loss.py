"""Measure the loss alone at a vocabulary of 152,000: ours, dense, and Liger's fused JS.

python -m benchmarks.accelerator.loss --small
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.accelerator.device import emit, get_device, read_peak, reset_peak, time_call
from benchmarks.step_time.loss_only import Inputs, dense, ours

TOKENS, WIDTH, VOCAB = 4096, 2048, 151_936


def liger(kind: str, x: Inputs) -> Tensor:
    """Return the sum over tokens, as the other ways do; Liger returns the mean."""
    from liger_kernel.transformers import LigerFusedLinearJSD

    assert kind == "js"
    loss = LigerFusedLinearJSD(jsd_beta=0.5)
    return loss(x.hidden, x.head, x.teacher_hidden, x.teacher_head) * len(x.ids)


WAYS: dict[str, Callable[[Any, Inputs], Tensor]] = {"dense": dense, "ours": ours, "liger": liger}


def make_inputs(tokens: int, width: int, vocab: int) -> Inputs:
    """Draw inputs on the device, in bfloat16 on a GPU."""
    device = get_device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    x = Inputs.random(tokens, width, vocab)
    moved = [t.detach().to(device, dtype) for t in (x.hidden, x.head)]
    teacher = [t.to(device, dtype) for t in (x.teacher_hidden, x.teacher_head)]
    return Inputs(*(t.requires_grad_() for t in moved), *teacher, x.ids.to(device))


def measure(how: str, x: Inputs) -> dict[str, Any]:
    """Return time, memory, loss and the norm of the gradients of one way."""

    def once() -> Tensor:
        x.hidden.grad = x.head.grad = None
        loss = WAYS[how]("js", x)
        loss.backward()
        return loss.detach()

    try:
        value = float(once())
        before = reset_peak()
        seconds = time_call(once, 3)
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        return {"way": how, "ran": False, "reason": f"{type(error).__name__}: {first[:200]}"}
    norms = [float(t.grad.float().norm()) for t in (x.hidden, x.head) if t.grad is not None]
    return {
        "way": how,
        "ran": True,
        "seconds": seconds,
        "grown_mib": read_peak() - before,
        "loss": value,
        "gradient_norms": norms,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    sizes = (32, 16, 300) if args.small else (TOKENS, WIDTH, VOCAB)
    x = make_inputs(*sizes)
    emit({"tokens": sizes[0], "vocab": sizes[2], "rows": [measure(how, x) for how in WAYS]})


if __name__ == "__main__":
    main()
