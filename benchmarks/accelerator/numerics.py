"""Compare loss and gradients on the device with float64 on the CPU.

python -m benchmarks.accelerator.numerics --small
"""

from __future__ import annotations

import argparse
import copy
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from benchmarks.accelerator.device import SHAPES, build_model, emit, get_device
from benchmarks.step_time.shapes import Shape
from lightning_sd.objectives import Distillation, Objective, SampledToken, TokenInputs
from lightning_sd.objectives.reduce import compute_loss
from lightning_sd.scoring import Scorer

MODEL = Shape("random", 4, 512, 1536, 4, 2, 32_000, 4, 4, 64, 64, 128)
LOSSES: dict[str, Objective] = {
    "forward_kl": Distillation(kind="forward_kl"),
    "js": Distillation(kind="js"),
    "top100 js": Distillation(kind="js", top_k=100),
    "sampled": SampledToken(),
}
LIMITS = {"float32": 1e-3, "bf16 autocast": 0.1, "bf16": 0.2}
"""Largest relative error of the gradient; rounding gives about a tenth of it."""


def compute_gradient(
    model: Any, shape: Shape, objective: Objective, *, autocast: bool
) -> tuple[float, Tensor]:
    """Return the loss of one micro-batch, and the gradient of all weights in one row."""
    generator = torch.Generator().manual_seed(1)

    def draw(rows: int, tokens: int) -> list[list[int]]:
        return torch.randint(shape.vocab, (rows, tokens), generator=generator).tolist()

    prompts, views = draw(shape.rows, shape.prompt), draw(shape.rows, shape.teacher_prompt)
    # Completions of several lengths, so that padding takes part.
    lengths = [shape.completion - i % (shape.completion // 2) for i in range(shape.rows)]
    completions = [draw(1, length)[0] for length in lengths]
    scorer, device = Scorer(model), next(model.parameters()).device
    model.zero_grad()
    context = torch.autocast(device.type, torch.bfloat16) if autocast else nullcontext()
    with context:
        with torch.no_grad():
            teacher = scorer.score(views, completions)
        student = scorer.score(prompts, completions)
        ids = torch.tensor([token for row in completions for token in row], device=device)
        loss = compute_loss(objective, student, teacher, TokenInputs(ids), lengths).total
    loss.backward()
    grads = [p.grad.detach().double().cpu().flatten() for p in model.parameters()]
    return loss.item(), torch.cat(grads)


def compare(shape: Shape) -> list[dict[str, Any]]:
    """Return one row per loss and precision."""
    torch.backends.cuda.matmul.allow_tf32 = False
    model = build_model(shape)
    exact = copy.deepcopy(model).cpu().double()
    modes = {
        "float32": (model, False),
        "bf16 autocast": (model, True),
        "bf16": (copy.deepcopy(model).bfloat16(), False),
    }
    rows = []
    for name, objective in LOSSES.items():
        loss, gradient = compute_gradient(exact, shape, objective, autocast=False)
        for mode, (other, autocast) in modes.items():
            own, found = compute_gradient(other, shape, objective, autocast=autocast)
            error = float((found - gradient).norm() / gradient.norm())
            rows.append(
                {
                    "loss": name,
                    "precision": mode,
                    "loss_error": abs(own - loss) / abs(loss),
                    "gradient_error": error,
                    "ok": error < LIMITS[mode],
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    emit({"device": get_device().type, "rows": compare(SHAPES["tiny"] if args.small else MODEL)})


if __name__ == "__main__":
    main()
