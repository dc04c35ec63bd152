"""Print and save a plan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lightning_sd.diagnostics.plan.choice import Choice
from lightning_sd.diagnostics.plan.hardware import (
    DECODE_EFFICIENCY,
    GIB,
    TRAIN_EFFICIENCY,
    USABLE,
    Card,
)
from lightning_sd.diagnostics.plan.size import ModelSize
from lightning_sd.diagnostics.plan.work import Flops, Workload, lay_out


@dataclass(frozen=True)
class PlanReport:
    """What :func:`~lightning_sd.plan` computed."""

    model: str
    card: Card
    size: ModelSize
    work: Workload
    """One micro-batch of one device."""
    flops: Flops
    """Those of the micro-batch."""
    choices: Sequence[Choice]
    """The run on each number of devices."""
    advice: Sequence[str]

    def show(self) -> None:
        """Print the table and the advice."""
        print("\n".join(self.format_lines()))

    def format_lines(self) -> list[str]:
        """Format the table and the advice."""
        work, flops, size = self.work, self.flops, self.size
        usable = USABLE * self.card.memory / GIB
        return [
            f"{self.model}: weights {size.weights / GIB:.2f} GiB, trained {size.trained / GIB:.2f} "
            f"GiB, {size.layers} layers, vocabulary {size.vocab}",
            f"micro-batch per device: {work.questions} questions x {work.samples} rollouts of "
            f"{work.answer} tokens; prompts of {work.prompt}, the teacher's of "
            f"{work.teacher_prompt} tokens{_describe_budget(work)}",
            f"TFLOP per micro-batch: rollout {flops.rollout / 1e12:.3g}, teacher "
            f"{flops.teacher / 1e12:.3g}, student {flops.student / 1e12:.3g}",
            f"{self.card.name}, {usable:.1f} GiB usable. Seconds are arithmetic, not measured: "
            f"training at {TRAIN_EFFICIENCY:.0%} of the peak, decoding at {DECODE_EFFICIENCY:.0%} "
            "of the bandwidth.",
            "",
            f"{'':7}  {'':21}{'GiB per device':^42}{'seconds per optimizer step':>34}",
            f"{'devices':7}  {'strategy':12}{'replicas':>9}{'rollout':>8}{'teacher':>8}"
            f"{'student':>8}{'optimizer':>10}{'fits':>8}{'rollout':>9}{'training':>9}{'network':>8}"
            f"{'rollouts/s':>11}",
            *map(_format_choice, self.choices),
            "",
            *self.advice,
        ]

    def save(self, path: str | Path) -> None:
        """Write all numbers to a JSON file; its folder is created."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def _describe_budget(work: Workload) -> str:
    if work.max_tokens is None:
        return ""
    parts = [len(lay_out(work, teacher=teacher)) for teacher in (False, True)]
    return (
        f"; at most {work.max_tokens} tokens are scored together: {parts[0]} parts of the "
        f"student's, {parts[1]} of the teacher's"
    )


def _format_choice(choice: Choice) -> str:
    memory, seconds = choice.memory, choice.seconds
    phases = (memory.rollout, memory.teacher, memory.student)
    sizes = "".join(f"{phase / GIB:8.2f}" for phase in phases)
    replicas = "" if choice.strategy == "ddp" else choice.replicas
    return (
        f"{choice.devices:7}  {choice.strategy:12}{replicas:9}{sizes}"
        f"{memory.optimizer / GIB:10.2f}"
        f"{'yes' if choice.fits else 'no':>8}{seconds.rollout:9.3g}{seconds.training:9.3g}"
        f"{seconds.network:8.2g}{choice.rollouts / seconds.total:11.3g}"
    )
