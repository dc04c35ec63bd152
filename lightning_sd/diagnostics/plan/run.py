"""Plan a run on devices that are not at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_sd.diagnostics.plan.advice import advise
from lightning_sd.diagnostics.plan.choice import choose_strategy
from lightning_sd.diagnostics.plan.hardware import get_card
from lightning_sd.diagnostics.plan.report import PlanReport
from lightning_sd.diagnostics.plan.settings import read_run
from lightning_sd.diagnostics.plan.work import count_flops

if TYPE_CHECKING:
    from lightning_sd.modules.self_distill import SelfDistillModule

DEVICES = (1, 2, 4, 8, 16, 32, 64)


def plan(
    model: SelfDistillModule,
    *,
    batch_size: int,
    hardware: str = "h100",
    devices: Sequence[int] = DEVICES,
    precision: str = "32-true",
    accumulate: int = 1,
    prompt_tokens: int = 256,
    teacher_prompt_tokens: int | None = None,
    answer_tokens: int | None = None,
) -> PlanReport:
    """Plan a run: memory per device and phase, FLOPs and seconds per step, and advice.

    The model is built on the meta device; its weights are neither loaded nor downloaded.

    Args:
        model: The module of the run.
        batch_size: Questions per micro-batch and device.
        hardware: Kind of device: ``h100``, ``rtx4090`` or ``l4``.
        devices: Numbers of devices.
        precision: The trainer's precision.
        accumulate: Micro-batches per optimizer step.
        prompt_tokens: Tokens of a question's prompt.
        teacher_prompt_tokens: Tokens of a teacher's prompt. Default: those of a question and an
            answer, for a context that is as long as an answer.
        answer_tokens: Tokens of a rollout. Default: the sampler's limit.

    Raises:
        ValueError: The model is in memory, the hardware is unknown, or a number is below 1.
        OSError: The model's configuration cannot be read.
    """
    card = get_card(hardware)
    if min(devices, default=0) < 1:
        raise ValueError(f"devices={list(devices)}: give numbers of at least 1.")
    lengths = (prompt_tokens, teacher_prompt_tokens, answer_tokens)
    run = read_run(model, batch_size, precision, accumulate, lengths)
    size = run.measure()
    choices = [choose_strategy(run, size, card, number) for number in devices]
    advice = advise(run, size, card, choices)
    flops = count_flops(size, run.work)
    return PlanReport(run.source.name, card, size, run.work, flops, choices, advice)
