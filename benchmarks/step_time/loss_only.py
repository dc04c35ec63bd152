"""Measure the loss alone: hidden states in, gradients of hidden states and head out.

    python -m benchmarks.step_time.loss_only --how ours --kind js --vocab 152000 --tokens 1024
    python -m benchmarks.step_time.loss_only --check

``ours`` is :func:`lightning_sd.objectives.reduce.compute_loss`, ``dense`` log-softmax of full
logits with autograd, ``sdpo`` the dense loss of TRL's SDPOTrainer, ``chunked`` TRL's
ChunkedDivergenceFunction. Memory is the peak growth of the process, with gradients and without
inputs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.step_time.clock import emit, peak_mib, read_clock, set_threads

KINDS = ("js", "forward_kl", "reverse_kl")
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Inputs:
    """Student and teacher: ``[tokens, width]`` and ``[vocab, width]`` each."""

    hidden: Tensor
    head: Tensor
    teacher_hidden: Tensor
    teacher_head: Tensor
    ids: Tensor

    @classmethod
    def random(cls, tokens: int, width: int, vocab: int) -> Inputs:
        generator = torch.Generator().manual_seed(0)

        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=generator)

        hidden, head = normal(tokens, width), normal(vocab, width).mul_(2 * width**-0.5)
        teacher = hidden + 0.3 * normal(tokens, width)
        ids = torch.randint(vocab, (tokens,), generator=generator)
        other = head.clone()  # a copy, as a frozen teacher has
        return cls(hidden.requires_grad_(), head.requires_grad_(), teacher, other, ids)


def ours(kind: Any, x: Inputs) -> Tensor:
    from lightning_sd.objectives import Distillation, TokenInputs
    from lightning_sd.objectives.reduce import compute_loss
    from lightning_sd.scoring import Head, Scores

    student = Scores(x.hidden, Head(x.head))
    teacher = Scores(x.teacher_hidden, Head(x.teacher_head))
    lengths = [len(x.ids)]
    return compute_loss(
        Distillation(kind=kind), student, teacher, TokenInputs(x.ids), lengths
    ).total


def dense(kind: str, x: Inputs) -> Tensor:
    """Compute the divergence from full logits, with as little memory as autograd allows."""
    logs = torch.log_softmax(x.hidden @ x.head.T, -1)
    with torch.no_grad():
        logt = torch.log_softmax(x.teacher_hidden @ x.teacher_head.T, -1)
    if kind == "forward_kl":
        return (logt.exp() * (logt - logs)).sum()
    if kind == "reverse_kl":
        return (logs.exp() * (logs - logt)).sum()
    mixture = ((logs.exp() + logt.exp()) / 2).log()
    return (logt.exp() * (logt - mixture) + logs.exp() * (logs - mixture)).sum() / 2


def sdpo(kind: str, x: Inputs) -> Tensor:
    from trl.experimental.sdpo.loss_utils import compute_full_logit_self_distillation_loss

    with torch.no_grad():
        teacher = x.teacher_hidden @ x.teacher_head.T
    return compute_full_logit_self_distillation_loss(
        x.hidden @ x.head.T, teacher, distillation_alpha=ALPHA[kind]
    ).sum()


def chunked(kind: str, x: Inputs) -> Tensor:
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    heads = (x.hidden, x.head, None, x.teacher_hidden, x.teacher_head, None)
    per_token, _ = ChunkedDivergenceFunction.apply(*heads, ALPHA[kind])
    return per_token.sum()


ALPHA = {"js": 0.5, "forward_kl": 0.0, "reverse_kl": 1.0}
WAYS: dict[str, Callable[[Any, Inputs], Tensor]] = {
    "ours": ours,
    "dense": dense,
    "sdpo": sdpo,
    "chunked": chunked,
}


def once(how: str, kind: str, x: Inputs) -> Tensor:
    """Compute the loss, and store the gradients in the inputs."""
    x.hidden.grad = x.head.grad = None
    loss = WAYS[how](kind, x)
    loss.backward()
    return loss.detach()


def measure(how: str, kind: str, x: Inputs, repeats: int) -> dict[str, Any]:
    once(how, kind, Inputs.random(4, x.hidden.shape[1], 50))  # imports
    before, times = peak_mib(), []
    for _ in range(repeats + 1):
        begun = read_clock()
        once(how, kind, x)
        times.append(read_clock() - begun)
    return {
        "seconds": round(statistics.median(times[1:]), 4),
        "times": [round(t, 4) for t in times],
        "grown_mib": round(peak_mib() - before, 1),
        "peak_mib": round(peak_mib(), 1),
    }


def check(tokens: int, width: int, vocab: int) -> None:
    """Verify that all ways give the same loss and gradients."""
    x, worst = Inputs.random(tokens, width, vocab), 0.0
    for kind in KINDS:
        found = {}
        for how in WAYS:
            loss = once(how, kind, x)
            found[how] = [loss, x.hidden.grad, x.head.grad]
        for how in WAYS:
            off = [
                float((a - b).abs().max() / b.abs().max())
                for a, b in zip(found[how], found["dense"], strict=True)
            ]
            worst = max(worst, *off)
            print(kind, how, "loss, hidden, head differ by", *(f"{o:.1e}" for o in off))
    if not worst < TOLERANCE:
        sys.exit(f"The largest relative difference is {worst:.1e}, above {TOLERANCE:.0e}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--how", default="ours", choices=list(WAYS))
    parser.add_argument("--kind", default="js", choices=KINDS)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--vocab", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="compare all ways, measure nothing")
    args = parser.parse_args()
    set_threads()
    if args.check:
        return check(args.tokens, args.width, args.vocab)
    x = Inputs.random(args.tokens, args.width, args.vocab)
    emit(measure(args.how, args.kind, x, args.repeats))


if __name__ == "__main__":
    main()
