"""The self-distillation module. Its training step reads from top to bottom."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_sd._serialize import build, describe_arguments
from lightning_sd.models import ModelSource
from lightning_sd.models.sharding import is_sharded
from lightning_sd.models.trainable import list_trainable
from lightning_sd.modules.bad_steps import describe_step
from lightning_sd.modules.checks import check_composition, check_strategy
from lightning_sd.modules.evidence import get_evidence_source
from lightning_sd.modules.evidence_overlap import gather_while_sampling
from lightning_sd.modules.guards import check_advantages, check_rewards
from lightning_sd.modules.hosting import HostingModule
from lightning_sd.modules.rollout_scorer import RolloutScorer
from lightning_sd.modules.safe_scorer import MemorySafeScorer
from lightning_sd.modules.silence import NO_SIGNAL, SilenceGuard
from lightning_sd.modules.step_report import describe_answers, report_step
from lightning_sd.modules.student import OptimizerCallable, SchedulerCallable
from lightning_sd.objectives import (
    Distillation,
    LossOutput,
    Objective,
    StepState,
    TokenInputs,
    TokenLoss,
    compute_loss,
)
from lightning_sd.objectives.gather import gather_inputs
from lightning_sd.objectives.scored import ScoredRollouts
from lightning_sd.rollout import Sampler, TransformersSampler, encode_stored_attempts
from lightning_sd.teachers import FrozenTeacher, TeacherWeights
from lightning_sd.types import Question, Rollout, StepOutput, TeacherView, link_siblings

SETTINGS = (
    "objective",
    "teacher",
    "sampler",
    "samples",
    "eval_sampler",
    "eval_samples",
    "attempts",
    "overlap",
    "seed",
    "template_kwargs",
    "max_bad_steps",
    "max_silent_steps",
    "check_every",
    "max_score_tokens",
)
"""Arguments that a checkpoint records beside the model source."""


class SelfDistillModule(HostingModule):
    """Self-distillation of a language model on its own rollouts.

    A method is a composition of a :class:`~lightning_sd.contexts.TeacherContext` among the
    trainer's callbacks (what the teacher sees), ``teacher`` (which parameters it has) and
    ``objective`` (how the signal becomes a loss). Questions, verdicts and critiques come from the
    trainer's data module (:class:`~lightning_sd.data.CritiqueDataModule`, or any
    :class:`~lightning_sd.modules.evidence.EvidenceSource`).

    Args:
        model: A source such as :class:`~lightning_sd.models.PretrainedModel`, or its name. A
            module in memory is given as :class:`~lightning_sd.models.LoadedModel`.
        objective: Default: forward KL over the whole vocabulary.
        teacher: Default: the frozen initial policy.
        sampler: Draws the rollouts. Default: up to 256 tokens at temperature 1.
        samples: Rollouts per question (G).
        eval_sampler: Draws answers in validation, test and predict. Default: ``sampler``.
        eval_samples: Answers per question in validation, test and predict (k of Avg@k).
        optimizer: Function from parameters to an optimizer. Default: AdamW, learning rate 1e-5.
        scheduler: Function from the optimizer to a schedule that steps once per optimizer step.
        attempts: ``sampled`` trains on fresh rollouts (on-policy). ``stored`` trains on the
            attempts in the data (offline), one rollout per question.
        overlap: Number of parts in which a batch is sampled; the critic works on one part while
            the next is sampled. It pays with a critic on a server. 1: sample all, then ask.
        seed: Seed of sampling. Default: the seed of ``seed_everything``, or 0.
        template_kwargs: Arguments of the chat template for the student's prompt, such as Qwen3's
            ``{enable_thinking: false}``; the context has its own for the teacher's prompt.
        max_silent_steps: Number of optimizer steps in a row without anything to learn from at which
            training stops with the reasons. 0: never.
        max_bad_steps: Number of optimizer steps in a row with a loss or gradient that is not finite
            at which training stops; see :class:`~lightning_sd.modules.global_mean.GlobalMean`.
        check_every: Compare the sampler's log-probabilities with the scorer's in the first and
            every so many optimizer steps; a gap beyond the precision's is an error. 0: never.
        max_score_tokens: Most tokens, prompts included, that are scored and taken through the
            backward pass together; a micro-batch with more is done in parts, with the same
            gradient. Default: no limit.

    Raises:
        ValueError: ``samples``, ``eval_samples``, ``overlap`` or ``max_score_tokens`` below 1, an
            unknown kind of attempts, or an objective that declares an unknown input.
    """

    rollout_scorer: RolloutScorer

    def __init__(
        self,
        model: ModelSource | str,
        objective: Objective | None = None,
        teacher: TeacherWeights | None = None,
        sampler: Sampler | None = None,
        samples: int = 4,
        eval_sampler: Sampler | None = None,
        eval_samples: int = 12,
        optimizer: OptimizerCallable | None = None,
        scheduler: SchedulerCallable | None = None,
        attempts: Literal["sampled", "stored"] = "sampled",
        overlap: int = 1,
        seed: int | None = None,
        template_kwargs: dict[str, Any] | None = None,
        max_bad_steps: int = 3,
        max_silent_steps: int = 10,
        check_every: int = 100,
        max_score_tokens: int | None = None,
    ) -> None:
        sampler = build(sampler) or TransformersSampler()
        super().__init__(
            model,
            build(teacher) or FrozenTeacher(),
            build(eval_sampler) or sampler,
            eval_samples,
            optimizer=optimizer,
            scheduler=scheduler,
            seed=seed,
            template_kwargs=template_kwargs,
            max_bad_steps=max_bad_steps,
        )
        counts = {"samples": samples, "eval_samples": eval_samples, "overlap": overlap}
        for name, value in {**counts, "max_score_tokens": max_score_tokens}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")
        if attempts not in ("sampled", "stored"):
            raise ValueError(f"attempts={attempts!r}: choose sampled or stored.")
        self.max_silent_steps = max_silent_steps
        self.silence_guard = SilenceGuard(max_silent_steps)
        self.objective: Objective = build(objective) or Distillation()
        self.inputs = self.objective.inputs
        self.sampler: Sampler = sampler
        self.samples, self.attempts, self.overlap = samples, attempts, overlap
        self.check_every, self.max_score_tokens = check_every, max_score_tokens
        self.extra_evidence: frozenset[str] = frozenset()
        settings = {name: getattr(self, name) for name in SETTINGS}
        self.save_hyperparameters(describe_arguments({"model": self.source, **settings}))

    def on_student_ready(self) -> None:
        """Let the teacher copy the student, which is loaded and not trained yet."""
        super().on_student_ready()
        scorer = MemorySafeScorer(self.student, self.memory_limits, self.max_score_tokens)
        self.teacher.setup(self.student)
        self.rollout_scorer = RolloutScorer(self.student, self.teacher, scorer, self.encode)

    def setup(self, stage: str) -> None:
        """Check what can be checked before anything is sampled."""
        if stage == "fit":
            check_strategy(self.trainer.strategy)
            check_composition(self.objective, self.teacher_context, self.sampler, self.attempts)
        if stage in ("fit", "predict"):
            get_evidence_source(self.trainer).check(self.required_evidence)

    def training_step(self, batch: Iterable[Question], batch_idx: int) -> dict[str, Any]:
        """Turn one micro-batch of questions into a summed loss."""
        rollouts = self.gather_rollouts(list(batch))
        rollouts = self.prepare_context(rollouts)
        views = self.write_views(rollouts)
        self.shared_work.help_others()  # contexts of other ranks may still write
        scored = self.rollout_scorer.score(rollouts, views, self.inputs)
        if self.check_every and self.trainer.global_step % self.check_every == 0:
            gap = self.rollout_scorer.check_sampler(scored, self.sampler)
            if gap is not None:
                self.log_mean("sampler_gap", gap, 1)
        tokens = self.make_token_inputs(scored)
        loss = self.compute_loss(scored, tokens)
        return {"loss": loss.total + scored.padding, "step": self.log_step(scored, loss)}

    def gather_rollouts(self, questions: Sequence[Question]) -> list[Rollout]:
        """Sample rollouts, and gather the evidence about them: verdicts, critiques, siblings."""
        evidence = get_evidence_source(self.trainer).evidence

        def judge(rollouts: Sequence[Rollout]) -> list[Rollout]:
            judged = evidence(rollouts, self.required_evidence)
            check_rewards(judged)
            return judged

        if self.attempts == "stored":
            return link_siblings(judge(encode_stored_attempts(questions, self.tokenizer)))
        index, parts = self.trainer.fit_loop.total_batch_idx, itertools.count()

        def sample(some: Sequence[Question]) -> list[Rollout]:
            part = next(parts)
            stage = f"train/{part}" if part else "train"
            return self.sample(some, self.sampler, self.samples, stage, index)

        return link_siblings(gather_while_sampling(sample, judge, questions, self.overlap))

    def make_token_inputs(self, scored: ScoredRollouts) -> TokenInputs:
        """Gather the objective's inputs, and let it say what the loss reads of each token."""
        inputs = gather_inputs(self.objective, scored, self.device)
        state = StepState(self.trainer.global_step, self.tokenizer, self._sum_over_ranks)
        tokens = self.objective.apply_token_weights(inputs, state)
        active = [scored.rollouts[i] for i in scored.active]
        check_advantages(tokens.advantages, active, scored.lengths)
        return tokens

    def compute_loss(self, scored: ScoredRollouts, tokens: TokenInputs) -> LossOutput:
        """Compute the loss of a micro-batch, as a sum with its count."""
        if scored.student is None:
            return self._make_zero_loss()
        target = None
        if scored.teacher is not None and self.inputs.teacher_logits:
            target = self.objective.build_target(scored.teacher, scored.contrasts)
        loss = compute_loss(self.objective, scored.student, target, tokens, scored.lengths)
        return replace(loss, total=self.add_router_loss(loss.total, loss.count, scored.student))

    def log_step(self, scored: ScoredRollouts, loss: LossOutput) -> StepOutput:
        """Log the means of a micro-batch, and return what callbacks read of it."""
        if self.trainer.fit_loop.total_batch_idx == 0:
            rank_zero_info(f"First batch: {describe_answers(scored.rollouts)}")
        if loss.silent:
            rank_zero_warn(NO_SIGNAL)
        self.remember_batch(partial(describe_step, scored.drop_scores(), loss.detach()))
        report = report_step(scored, loss, self.inputs)
        for name, (total, number) in report.means.items():
            self.log_mean(name, total, number)
        for name, value in {**report.sums, **get_evidence_source(self.trainer).counters()}.items():
            if isinstance(value, tuple):
                self.log_mean(name, *value)
            else:
                self.log_sum(name, value)
        return report.output

    def publish_means(self, means: Mapping[str, float]) -> None:
        """Log the means of one optimizer step, and stop a run that learns nothing."""
        super().publish_means(means)
        self.silence_guard.check(means)

    def compute_advantages(
        self, rollouts: Sequence[Rollout], views: Sequence[TeacherView | None]
    ) -> list[tuple[float, ...] | None]:
        """Compute log p_T(y_t) - log p_S(y_t) of each token; see :class:`RolloutScorer`."""
        return self.rollout_scorer.compute_advantages(rollouts, views)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then let the teacher follow, before a checkpoint of this step is written."""
        super().optimizer_step(*args, **kwargs)
        if not self.step_skipped:
            self.teacher.after_step(self.student)

    @torch.no_grad()
    def predict_step(self, batch: Iterable[Question], batch_idx: int) -> StepOutput:
        """Return answers with their evidence, the teacher's views, and per-token advantages."""
        answers = self.sample(
            list(batch), self.eval_sampler, self.eval_samples, "predict", batch_idx
        )
        judged = self.gather_evidence(answers, self.required_evidence | self.extra_evidence)
        # Completions that a context adds for training are not answers of the student.
        rollouts = [r for r in self.prepare_context(judged) if r.origin == "student"]
        views = self.write_views(rollouts)
        advantages: list[tuple[float, ...] | None] = [None] * len(rollouts)
        if any(view and r.ids for r, view in zip(rollouts, views, strict=True)):
            score = partial(self.compute_advantages, rollouts, views)
            advantages = self.shared_work.run("advantages", score)
        return StepOutput(rollouts, views, advantages)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the teacher, and leave out frozen parameters."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["teacher"] = self.teacher.state_dict()

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore the teacher."""
        super().on_load_checkpoint(checkpoint)
        self.teacher.load_state_dict(checkpoint["teacher"])

    def _sum_over_ranks(self, value: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return value
        total = value.detach().to(self.device, copy=True)
        torch.distributed.all_reduce(total)
        return total.to(value.device)

    def _make_zero_loss(self) -> LossOutput:
        """Return a loss of 0 that still reaches every trainable parameter, as DDP needs."""
        zero = torch.zeros((), device=self.device, requires_grad=True)
        if not is_sharded(self.student):  # else `reduce_gradients` reaches them
            zero = torch.stack([p.sum() * 0.0 for _, p in list_trainable(self.student)]).sum()
        none = torch.zeros(0, device=self.device)
        return LossOutput(zero, 0.0, TokenLoss(none, none, none), silent=True)
