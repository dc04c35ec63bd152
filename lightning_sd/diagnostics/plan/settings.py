"""What a plan reads of a run's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_sd.diagnostics.plan.memory import Layout, Strategy
from lightning_sd.diagnostics.plan.meta import measure_source
from lightning_sd.diagnostics.plan.size import ModelSize
from lightning_sd.diagnostics.plan.work import Workload
from lightning_sd.models import PretrainedModel
from lightning_sd.rollout import TransformersSampler
from lightning_sd.teachers import FrozenTeacher, LiveTeacher, TrustRegionTeacher

if TYPE_CHECKING:
    from lightning_sd.modules.self_distill import SelfDistillModule


@dataclass(frozen=True)
class Run:
    """A run, without its devices."""

    source: PretrainedModel
    work: Workload
    """One micro-batch of one device."""
    copies: bool
    """Whether the teacher is a copy of the trained parameters, if all of them are trained."""
    copies_adapters: bool
    """Whether it is a copy if only adapters are trained."""
    has_engine: bool
    """Whether the rollouts come from an engine."""
    precision: str = "32-true"
    accumulate: int = 1
    """Micro-batches per optimizer step."""

    def measure(self) -> ModelSize:
        """Measure the model; its weights are not loaded."""
        half = "16" in self.precision and self.precision.endswith("true")
        return measure_source(self.source, half=half)

    def lay_out(self, devices: int, strategy: Strategy, replicas: int = 1) -> Layout:
        """Return the layout of the run on some devices."""
        copies = self.copies if self.source.lora is None else self.copies_adapters
        mixed = self.precision.endswith("mixed")
        return Layout(devices, strategy, replicas, int(copies), mixed, self.accumulate)


def read_run(
    model: SelfDistillModule,
    batch_size: int,
    precision: str,
    accumulate: int,
    lengths: tuple[int, int | None, int | None],
) -> Run:
    """Read a run from its module.

    Args:
        model: The module.
        batch_size: Questions per micro-batch and device.
        precision: The trainer's precision.
        accumulate: Micro-batches per optimizer step.
        lengths: Tokens of the student's prompt, of the teacher's prompt, and of a rollout; None
            for the last two: see :func:`~lightning_sd.diagnostics.plan.run.plan`.

    Raises:
        ValueError: The model is in memory, or a number is below 1.
    """
    source, teacher = model.source, model.teacher
    if not isinstance(source, PretrainedModel):
        raise ValueError("model: it is in memory; plan reads the name of a PretrainedModel.")
    prompt, teacher_prompt, answer = lengths
    if answer is None:
        answer = getattr(model.sampler, "max_new_tokens", 256)
    if teacher_prompt is None:
        teacher_prompt = prompt + answer
    numbers = {"batch_size": batch_size, "prompt_tokens": prompt, "answer_tokens": answer}
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name}={number}: must be at least 1.")
    if teacher_prompt < prompt:
        raise ValueError(
            f"teacher_prompt_tokens={teacher_prompt}: the teacher's prompt holds the question's; "
            f"set at least prompt_tokens={prompt}."
        )
    policies = 2 if isinstance(teacher, TrustRegionTeacher) else 1
    return Run(
        source,
        Workload(
            questions=batch_size,
            samples=model.samples,
            prompt=prompt,
            teacher_prompt=teacher_prompt,
            answer=answer,
            policies=policies if model.inputs.uses_teacher else 0,
            checkpointing=source.gradient_checkpointing,
            max_tokens=model.max_score_tokens,
        ),
        copies=not isinstance(teacher, LiveTeacher),
        copies_adapters=not isinstance(teacher, (FrozenTeacher, LiveTeacher)),
        has_engine=not isinstance(model.sampler, TransformersSampler),
        precision=precision,
        accumulate=accumulate,
    )
