"""Log how a run proceeds: rate, gradient, speed, seconds per phase, memory, spread of rewards."""

from __future__ import annotations

import functools
import math
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_sd.types import Rollout, StepOutput

PHASES = ("rollout", "evidence", "context", "scoring", "loss", "backward", "optimizer")


class StepMonitor(Callback):
    """Log measurements of each optimizer step under ``monitor/``.

    - ``lr``: learning rate of the first parameter group.
    - ``grad_norm``: 2-norm of the gradient of the global mean, before clipping.
    - ``tokens_per_second``: sampled tokens divided by the seconds of the step.
    - ``step_seconds`` and ``seconds/PHASE``: ``rollout`` (sampling), ``evidence`` (judge and
      critic), ``context`` (the teacher's prompts), ``scoring`` (hidden states of teacher and
      student), ``loss`` (logits and loss), ``backward`` and ``optimizer``. With ``overlap`` above 1
      rollout and evidence run at the same time, so their sum exceeds the step.
    - ``peak_memory_mib``: maximum since the start, allocated on the GPU, or resident on the CPU.
    - ``reward_std``: standard deviation of the rewards within a question, mean over questions.
    - ``no_answer``: share of rollouts in which the judge found no answer.
    - ``advantage_correct``, ``advantage_wrong``: mean advantage per token of correct and of wrong
      rollouts, in nats.

    Values are of rank 0. On a GPU the phases are separated by synchronization.
    """

    def __init__(self) -> None:
        self.phase = ""
        """The phase that runs now; empty between phases."""
        self._seconds: dict[str, float] = defaultdict(float)
        self._wrapped: list[tuple[Any, str]] = []
        self._start = self._mark = 0.0
        self._step = 0
        self._grad_norm = math.nan
        self._rollouts: list[Rollout] = []
        self._advantages: list[tuple[float, ...] | None] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to time the parts of the training step."""
        data = getattr(trainer, "datamodule", None)
        parts = [
            (pl_module, "sample", "rollout"),
            (data, "evidence", "evidence"),
            (pl_module, "prepare_context", "context"),
            (pl_module, "write_views", "context"),
            (getattr(pl_module, "rollout_scorer", None), "score", "scoring"),
            (pl_module, "make_token_inputs", "loss"),
            (pl_module, "compute_loss", "loss"),
        ]
        for owner, name, phase in parts:
            if hasattr(owner, name):
                self._wrap(owner, name, self._time(getattr(owner, name), phase))
        self._wrap(
            pl_module,
            "configure_gradient_clipping",
            self._measure_norm(pl_module.configure_gradient_clipping),
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._step = trainer.global_step
        self._reset()

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor
    ) -> None:
        """Start to time the backward pass."""
        self.phase, self._mark = "backward", _now()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop to time the backward pass."""
        self._seconds["backward"] += _now() - self._mark
        self.phase = ""

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        """Start to time the optimizer."""
        self.phase, self._mark = "optimizer", _now()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log after the last micro-batch of an optimizer step."""
        output: StepOutput | None = outputs.get("step") if isinstance(outputs, dict) else None
        if output is not None:
            self._rollouts += output.rollouts
            self._advantages += output.advantages
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if self.phase == "optimizer":
            self._seconds["optimizer"] += _now() - self._mark
            self.phase = ""
        seconds = _now() - self._start
        values = {
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "grad_norm": self._grad_norm,
            "step_seconds": seconds,
            "tokens_per_second": sum(len(r.ids) for r in self._rollouts) / seconds,
            "peak_memory_mib": measure_peak_memory(pl_module.device),
            **{f"seconds/{phase}": self._seconds[phase] for phase in PHASES},
            **summarize_rollouts(self._rollouts, self._advantages),
        }
        for name, value in values.items():
            if not math.isnan(value):
                pl_module.log(f"monitor/{name}", float(value), rank_zero_only=True)
        self._reset()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop to time the parts."""
        self._unwrap()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop to time the parts."""
        self._unwrap()

    def _time(self, function: Callable[..., Any], phase: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start, self.phase = _now(), phase
            try:
                return function(*args, **kwargs)
            finally:
                self._seconds[phase] += _now() - start
                self.phase = ""

        return timed

    def _measure_norm(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def clip(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            grads = [
                p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None
            ]
            self._grad_norm = float(torch.nn.utils.get_total_norm(grads)) if grads else math.nan
            return function(optimizer, *args, **kwargs)

        return clip

    def _wrap(self, owner: Any, name: str, function: Callable[..., Any]) -> None:
        vars(owner)[name] = function  # also for frozen dataclasses
        self._wrapped.append((owner, name))

    def _unwrap(self) -> None:
        for owner, name in self._wrapped:
            vars(owner).pop(name, None)  # the method of the class is visible again
        self._wrapped = []

    def _reset(self) -> None:
        self._seconds.clear()
        self._rollouts, self._advantages = [], []
        self._start = _now()


def summarize_rollouts(
    rollouts: Sequence[Rollout], advantages: Sequence[tuple[float, ...] | None]
) -> dict[str, float]:
    """Summarize the rewards and advantages of one optimizer step.

    Args:
        rollouts: Judged rollouts.
        advantages: Advantages of each rollout, in nats; None without a teacher.

    Returns:
        ``reward_std``, ``no_answer``, ``advantage_correct`` and ``advantage_wrong``; nan where
        there is nothing to average.
    """
    groups: dict[str, list[float]] = defaultdict(list)
    tokens: dict[bool, list[float]] = {True: [], False: []}
    answers = []
    for rollout, values in zip(rollouts, advantages, strict=True):
        verdict = rollout.verdict
        if verdict is None or rollout.origin != "student":
            continue
        groups[rollout.question.id].append(verdict.reward)
        answers.append(verdict.answer is None)
        tokens[verdict.correct] += values or ()
    spreads = [statistics.pstdev(rewards) for rewards in groups.values()]
    return {
        "reward_std": _mean(spreads),
        "no_answer": _mean(answers),
        "advantage_correct": _mean(tokens[True]),
        "advantage_wrong": _mean(tokens[False]),
    }


def measure_peak_memory(device: torch.device) -> float:
    """Return the maximum memory since the start of the process, in MiB.

    Args:
        device: A GPU: memory allocated by torch. The CPU: resident memory of the process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _now() -> float:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()
