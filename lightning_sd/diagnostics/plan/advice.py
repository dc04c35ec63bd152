"""Advise which settings make a run fit, and where its rollouts should be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lightning_sd.diagnostics.plan.choice import Choice, choose_strategy
from lightning_sd.diagnostics.plan.hardware import USABLE, Card
from lightning_sd.diagnostics.plan.settings import Run
from lightning_sd.diagnostics.plan.size import ModelSize
from lightning_sd.models import LoRA

ENGINE_SHARE = 0.4
"""Share of a step's seconds from which a rollout engine is advised."""


def advise(run: Run, size: ModelSize, card: Card, choices: Sequence[Choice]) -> list[str]:
    """Give advice in sentences.

    Args:
        run: The run.
        size: Its model.
        card: The device.
        choices: The run on each number of devices.
    """
    advice = []
    first = next((choice for choice in choices if choice.fits), None)
    smallest = choices[0]
    if first is None:
        advice.append("The run fits on none of these numbers of devices.")
    elif first.strategy != "ddp":
        gather = "layers" if first.strategy == "fsdp2 layers" else "model"
        replicas = f" and replicas={first.replicas}, one per node" if first.replicas > 1 else ""
        advice.append(
            f"From {first.devices} devices on, set trainer.strategy: FSDP2Strategy with "
            f"gather={gather}{replicas}."
        )
    elif first.devices == 1:
        advice.append("Weights, gradients and optimizer fit on one device; more only add speed.")
    if first is None and run.work.max_tokens is not None:
        advice.append(
            "max_score_tokens excludes FSDP2Strategy with gather=layers, which needs the least "
            "memory; leave it out to plan with that."
        )
    if not smallest.fits:
        advice.append(_find_changes(run, card, smallest.devices))
    if first is not None and not run.has_engine:
        advice += _place_engine(run, size, card, first)
    return advice


def _find_changes(run: Run, card: Card, devices: int) -> str:
    """Name the first changes with which the run fits the smallest number of devices."""
    names = []
    for name, changed in list_changes(run):
        names.append(name)
        choice = choose_strategy(changed, changed.measure(), card, devices)
        if choice.fits:
            peak = choice.memory.peak / 2**30
            return f"It fits on {_count(devices)} ({peak:.1f} GiB) with {', '.join(names)}."
    return f"It does not fit on {_count(devices)} even with {', '.join(names)}."


def _count(devices: int) -> str:
    return f"{devices} device{'s' * (devices > 1)}"


def list_changes(run: Run) -> list[tuple[str, Run]]:
    """List changes that save memory, from the one that changes the result least.

    Returns:
        What to set, and the run with it and with all changes before it.
    """
    changes: list[tuple[str, Run]] = []

    def add(name: str, source: dict[str, Any], **settings: Any) -> None:
        last = changes[-1][1] if changes else run
        changes.append((name, replace(last, source=replace(last.source, **source), **settings)))

    work = replace(run.work, checkpointing=True)
    if not run.source.gradient_checkpointing:
        add("gradient_checkpointing: true", {"gradient_checkpointing": True}, work=work)
    if work.questions > 1:
        number = run.accumulate * work.questions
        name = f"batch_size: 1 and accumulate_grad_batches: {number}"
        add(name, {}, work=replace(work, questions=1), accumulate=number)
    if run.source.lora is None:
        add("lora: {r: 16}", {"lora": LoRA()})
    if run.source.quantization is None:
        add("quantization: nf4", {"quantization": "nf4"})
    return changes


def _place_engine(run: Run, size: ModelSize, card: Card, choice: Choice) -> list[str]:
    """Advise an engine if rollouts take long, beside the student if its weights fit there too."""
    share = choice.seconds.rollout / choice.seconds.total
    if share < ENGINE_SHARE and choice.strategy != "fsdp2 layers":
        return []
    text = f"Rollouts take {share:.0%} of a step on {_count(choice.devices)}: "
    if choice.strategy != "ddp" or run.source.quantization is not None:
        return [text + "vLLM serves neither sharded nor quantized students; LoRA saves memory too."]
    if choice.memory.peak + 2 * size.weights / size.item <= USABLE * card.memory:
        return [text + "VLLMSampler fits on the same devices."]
    return [text + "use VLLMServerSampler on other devices, or VLLMSampler with sleep_level: 1."]
