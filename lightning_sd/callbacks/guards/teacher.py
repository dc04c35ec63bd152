"""Guard against a teacher that is no better than its student."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_sd.callbacks.guards.base import CollapseGuard
from lightning_sd.modules.self_distill import SelfDistillModule
from lightning_sd.modules.teacher_answers import sample_teacher_answers


class TeacherGuard(CollapseGuard):
    """Guard against a teacher that is no better than its student.

    Every ``every_n_steps`` optimizer steps the teacher answers the questions of the step's last
    micro-batch from the same prompts under which it scored the student. ``guard/teacher_gain`` is
    its mean reward minus the student's, over the rollouts with a teacher on all ranks. Each
    measurement costs about as much as sampling one micro-batch, and asks no critic. It changes
    neither the run's random numbers nor its weights.

    Args:
        low: Smallest gain, in reward.
        every_n_steps: Optimizer steps between measurements.
        window: Number of measurements that are averaged.
        **settings: See :class:`CollapseGuard`.

    Raises:
        ValueError: ``every_n_steps`` is below 1, or the objective uses no teacher.
    """

    meaning = "The teacher answers no better than the student, so it has nothing to teach."
    remedy = "End the run, or choose a context that shows the teacher more (`probe` measures it)."

    def __init__(
        self, low: float = 0.0, every_n_steps: int = 50, window: int = 2, **settings: Any
    ) -> None:
        if every_n_steps < 1:
            raise ValueError(f"TeacherGuard: every_n_steps={every_n_steps}: must be at least 1.")
        super().__init__("guard/teacher_gain", low, window=window, **settings)
        self.every_n_steps = every_n_steps

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module without a teacher."""
        super().setup(trainer, pl_module, stage)
        distills = isinstance(pl_module, SelfDistillModule) and pl_module.inputs.uses_teacher
        if stage == "fit" and not distills:
            raise ValueError(
                "TeacherGuard: this run has no teacher; remove the guard from trainer.callbacks."
            )

    def measure(self, trainer: Trainer, pl_module: LightningModule, outputs: Any) -> float | None:
        """Let the teacher answer, and log its gain."""
        if trainer.global_step % self.every_n_steps:
            return None
        assert isinstance(pl_module, SelfDistillModule)
        output = outputs["step"]
        with torch.no_grad():
            answers = sample_teacher_answers(pl_module, output, trainer.global_step, "guard")
        gains = [
            answer.verdict.reward - rollout.verdict.reward
            for rollout, answer in zip(output.rollouts, answers, strict=True)
            if answer and answer.verdict and rollout.verdict and rollout.origin == "student"
        ]
        counted = torch.tensor([sum(gains), len(gains)], device=pl_module.device)
        total, number = trainer.strategy.reduce(counted, reduce_op="sum").tolist()
        if not number:
            return None
        gain = float(total / number)
        pl_module.log(self.metric, gain, logger=False, rank_zero_only=False)
        for logger in trainer.loggers:
            # `log` would send it again at every later step.
            logger.log_metrics({self.metric: gain}, trainer.global_step - 1)
        return gain
