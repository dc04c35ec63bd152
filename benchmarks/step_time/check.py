"""Verify that ours and TRL compute the same loss and gradients from the same completions.

    python -m benchmarks.step_time.check

TRL takes one step on a tiny model. Our module scores its completions with the same weights of
student and teacher (which differ, so that no loss is near zero). Both losses and all gradients are
compared.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from typing import Any

import torch

from benchmarks.step_time import ours, peer
from benchmarks.step_time.clock import emit, set_threads
from benchmarks.step_time.shapes import Shape, add_arguments, chosen, load_model

CASES = [
    *[("sdpo", loss) for loss in peer.LOSSES],
    *[("sdft", loss) for loss in peer.LOSSES],
    *[("stable", loss) for loss in ("js", "forward_kl", "reverse_kl")],
]
TOLERANCE = 1e-5


def add_noise(model: Any, seed: int, size: float) -> Any:
    """Add noise to every weight, determined by the seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return model


def run_peer_step(kind: str, shape: Shape, loss: str) -> tuple[list[list[int]], float, list[Any]]:
    """Run one step of TRL and return its completions, loss and gradients."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        shared = peer.settings(shape, 1, folder, checkpointing=False) | {"max_grad_norm": 0.0}
        trainer = peer.make_trainer(kind, shape, loss, 1, shared)
        add_noise(trainer.teacher_model, 1, 0.3)
        add_noise(add_noise(trainer.model, 1, 0.3), 2, 0.1)
        compute, backward = trainer.compute_loss, trainer.accelerator.backward

        def record_inputs(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            found["ids"] = inputs["completion_ids"].tolist()
            found["prompts"] = inputs["prompt_ids"].tolist()
            value = compute(model, inputs, *args, **kwargs)
            found["loss"] = value.item()
            return value

        def record_gradients(*args: Any, **kwargs: Any) -> None:
            backward(*args, **kwargs)
            found["grads"] = [p.grad.clone() for p in trainer.model.parameters()]

        trainer.compute_loss, trainer.accelerator.backward = record_inputs, record_gradients
        trainer.train()
    if kind == "stable":  # This trainer shuffles the rows of a step.
        order = sorted(range(shape.rows), key=lambda row: _question(shape, found["prompts"][row]))
        found["ids"] = [found["ids"][row] for row in order]
    return found["ids"], found["loss"], found["grads"]


def _question(shape: Shape, prompt: list[int]) -> int:
    asked = " ".join(f"w{i}" for i in prompt)
    questions = ours.Words(shape, shape.prompts).questions("train")
    return [question.text for question in questions].index(asked)


def run_own_step(
    kind: str, shape: Shape, loss: str, completions: list[list[int]]
) -> tuple[float, list[Any]]:
    """Return our loss and gradients on given completions."""
    module = ours.make_module(shape, loss, add_noise(load_model(shape), 1, 0.3))
    module.configure_model()
    add_noise(module.student, 2, 0.1)
    rollouts = ours.make_rollouts(module, shape, completions)
    result = ours.compute_loss(module, rollouts, peer.context_of(kind), shape)
    value = result.total / result.count
    value.backward()
    return value.item(), [p.grad for p in module.student.parameters()]


def compare(kind: str, shape: Shape, loss: str) -> tuple[float, float, float]:
    """Return TRL's loss and the relative differences of loss and gradients."""
    completions, value, grads = run_peer_step(kind, shape, loss)
    own_value, own_grads = run_own_step(kind, shape, loss, completions)
    largest = max(grad.abs().max().item() for grad in grads)
    apart = max((a - b).abs().max().item() for a, b in zip(grads, own_grads, strict=True))
    return value, abs(value - own_value) / abs(value), apart / largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    args = parser.parse_args()
    set_threads()
    peer.quiet()
    shape, worst = chosen(args), 0.0
    print("| TRL trainer | loss | its value | ours differs by | gradients differ by |")
    print("|---|---|---|---|---|")
    for kind, loss in CASES:
        value, loss_off, grad_off = compare(kind, shape, loss)
        worst = max(worst, loss_off, grad_off)
        print(f"| {kind} | {loss} | {value:.6f} | {loss_off:.1e} | {grad_off:.1e} |", flush=True)
    if not worst < TOLERANCE:
        sys.exit(f"The largest relative difference is {worst:.1e}, above {TOLERANCE:.0e}.")
    emit({"cases": len(CASES), "worst": worst})


if __name__ == "__main__":
    main()
