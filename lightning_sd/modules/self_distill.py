"""The training step, readable top to bottom.

sample G rollouts a question -> gather evidence -> write what the teacher sees
-> score the same tokens under student and teacher -> reduce to a loss
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_sd._serialize import build, describe_arguments
from lightning_sd.contexts.base import TeacherContext
from lightning_sd.models import ModelSource
from lightning_sd.models.trainable import list_trainable
from lightning_sd.modules.answering import AnsweringModule
from lightning_sd.modules.checks import check_composition, check_strategy
from lightning_sd.modules.evidence import evidence_source
from lightning_sd.modules.evidence_overlap import gather_while_sampling
from lightning_sd.modules.step_report import step_means, step_output
from lightning_sd.modules.student import OptimizerCallable, SchedulerCallable
from lightning_sd.objectives import Distillation, Objective
from lightning_sd.objectives.gather import Scored, gather_signals
from lightning_sd.objectives.reduce import LossOutput, objective_loss
from lightning_sd.rollout import Completion, Sampler, TransformersSampler, encode_stored_attempts
from lightning_sd.rollout.seeding import make_batch_generator
from lightning_sd.scoring import LogitsSource, Scorer
from lightning_sd.scoring.statistics import token_facts
from lightning_sd.teachers import FrozenTeacher, TeacherWeights, both_scores, teacher_scores
from lightning_sd.types import (
    Message,
    Question,
    Rollout,
    StepOutput,
    TeacherView,
    link_siblings,
    select_contrast,
)

NO_SIGNAL = (
    "A batch had nothing to learn from: no rollout with a teacher, every token masked, or equal "
    "rewards in every group. Its loss is 0; the share of such batches is logged as train/silent."
)


class SelfDistillModule(AnsweringModule):
    """Self-distillation of a language model on its own rollouts.

    A method is a composition: a :class:`~lightning_sd.contexts.TeacherContext` among the trainer's
    callbacks (what the teacher sees), ``teacher`` (whose weights it has) and ``objective`` (how the
    signal becomes a loss). Questions, verdicts and critiques come from the trainer's data module
    (:class:`~lightning_sd.data.CritiqueDataModule` or any with the same ``evidence`` method).

    Args:
        model: A source such as :class:`~lightning_sd.models.PretrainedModel`; a name means
            ``PretrainedModel(name)``, a module in memory comes as ``LoadedModel``.
        objective: Default: forward KL over the whole vocabulary.
        teacher: Default: the frozen initial policy.
        sampler: Draws the rollouts. Default: up to 256 tokens at temperature 1.
        samples: Rollouts a question (G).
        eval_sampler: Draws answers in validation, test and predict; default: ``sampler``.
        eval_samples: Answers a question there (k of Avg@k).
        optimizer: From parameters to an optimizer. Default: AdamW, learning rate 1e-5.
        scheduler: From the optimizer to a schedule, stepped once an optimizer step.
        attempts: ``sampled``: train on fresh rollouts (on-policy). ``stored``: on the attempts that
            stand with the questions (offline), one rollout a question.
        overlap: Sample a batch in this many parts; while one is sampled, the critic has the one
            before. It pays with a critic on a server; 1: first sample all, then ask.
        seed: Of sampling; default: the seed of ``seed_everything``, or 0.
        template_kwargs: For the chat template of the student's prompt, such as Qwen3's
            ``{enable_thinking: false}``; the context has its own for the teacher's.

    Raises:
        ValueError: Fewer than one sample, or an unknown kind of attempts.
    """

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
    ) -> None:
        sampler = build(sampler) or TransformersSampler()
        super().__init__(
            model,
            build(eval_sampler) or sampler,
            eval_samples,
            optimizer=optimizer,
            scheduler=scheduler,
            seed=seed,
            template_kwargs=template_kwargs,
        )
        for name, value in (
            ("samples", samples),
            ("eval_samples", eval_samples),
            ("overlap", overlap),
        ):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")
        if attempts not in ("sampled", "stored"):
            raise ValueError(f"attempts={attempts!r}: choose sampled or stored.")
        self.objective: Objective = build(objective) or Distillation()
        self.teacher: TeacherWeights = build(teacher) or FrozenTeacher()
        self.sampler: Sampler = sampler
        self.samples, self.attempts, self.overlap = samples, attempts, overlap
        self.teacher_context: TeacherContext | None = None
        self.predict_needs: frozenset[str] = frozenset()
        self.save_hyperparameters(
            describe_arguments(
                {
                    "model": self.source,
                    "objective": self.objective,
                    "teacher": self.teacher,
                    "sampler": self.sampler,
                    "samples": samples,
                    "eval_sampler": self.eval_sampler,
                    "eval_samples": eval_samples,
                    "attempts": attempts,
                    "overlap": overlap,
                    "seed": seed,
                    "template_kwargs": self.template_kwargs,
                }
            )
        )

    def on_student_ready(self) -> None:
        """The student is loaded and still as it came: the teacher may take its copy."""
        self.scorer = Scorer(self.student)
        self.teacher.setup(self.student)

    def setup(self, stage: str) -> None:
        """Check what can be checked before anything is sampled."""
        if stage == "fit":
            check_strategy(self.trainer.strategy)
            check_composition(self.objective, self.teacher_context, self.sampler, self.attempts)
        if stage in ("fit", "predict"):
            evidence_source(self.trainer).check(self.needs)

    @property
    def needs(self) -> frozenset[str]:
        """Evidence that the context asks for beside the verdicts."""
        return frozenset() if self.teacher_context is None else self.teacher_context.needs

    def training_step(self, batch: Iterable[Question], batch_idx: int) -> dict[str, Any]:
        """One micro-batch: questions in, summed loss out."""
        rollouts = self._prepared(link_siblings(self._gathered(list(batch))))
        views = self.views(rollouts)
        loss, active = self.loss(rollouts, views)
        if loss.silent:
            rank_zero_warn(NO_SIGNAL)
        step = step_output(rollouts, views, active, loss.advantages)
        means = step_means(step, loss, uses_teacher=self.objective.uses_teacher)
        for name, (total, number) in means.items():
            self.count(name, total, number)
        for name, value in evidence_source(self.trainer).counters().items():
            self.count(name, value, 1)
        return {"loss": loss.total, "step": step}

    def _gathered(self, questions: Sequence[Question]) -> list[Rollout]:
        """This batch's rollouts with their evidence."""
        evidence = evidence_source(self.trainer).evidence
        if self.attempts == "stored":
            return evidence(encode_stored_attempts(questions, self.tokenizer), self.needs)
        index, parts = self.trainer.fit_loop.total_batch_idx, itertools.count()

        def sample(some: Sequence[Question]) -> list[Rollout]:
            part = next(parts)
            stage = f"train/{part}" if part else "train"
            return self.sample(some, self.sampler, self.samples, stage, index)

        def judge(rollouts: Sequence[Rollout]) -> list[Rollout]:
            return evidence(rollouts, self.needs)

        return gather_while_sampling(sample, judge, questions, self.overlap)

    def _prepared(self, rollouts: list[Rollout]) -> list[Rollout]:
        """Let the context renew what it remembers, write texts, and add completions."""
        return rollouts if self.teacher_context is None else self.teacher_context.prepare(rollouts)

    def views(self, rollouts: Sequence[Rollout]) -> list[TeacherView | None]:
        """Let the context write what the teacher sees of each rollout."""
        if self.teacher_context is None:
            return [None] * len(rollouts)
        return self.teacher_context.views(rollouts)

    def loss(
        self, rollouts: Sequence[Rollout], views: Sequence[TeacherView | None]
    ) -> tuple[LossOutput, list[int]]:
        """Score rollouts under teacher and student, and reduce to what the objective makes of it.

        Args:
            rollouts: A micro-batch; those without a view are left out if the objective needs one.
            views: Theirs.

        Returns:
            The loss, and the numbers of the rollouts that took part.
        """
        objective = self.objective
        active = [i for i, view in enumerate(views) if view or not objective.needs_teacher]
        seen, completions = [views[i] for i in active], [rollouts[i].ids for i in active]
        teacher = self._taught(seen, completions) if objective.uses_teacher else None
        contrasts = self._contrasts(seen, completions) if "contrasts" in objective.reads else []
        prompts = [self.encode(rollouts[i].question.messages) for i in active]
        student = self.scorer.score(prompts, completions) if any(map(len, completions)) else None
        signals = gather_signals(
            objective,
            rollouts,
            views,
            active,
            Scored(student, teacher, contrasts),
            device=self.device,
            step=self.trainer.global_step,
            tokenizer=self.tokenizer,
            total=self._total,
        )
        tokens = objective.prepare(signals)
        if student is None:
            return self._no_loss(), active
        target = None if teacher is None else objective.target(teacher, contrasts)
        lengths = [len(ids) for ids in completions]
        return objective_loss(objective, student, target, tokens, lengths), active

    def _seen(self, view: TeacherView | None) -> list[int] | None:
        return self.encode(view.messages, view.template_kwargs) if view else None

    def _taught(
        self, views: Sequence[TeacherView | None], completions: Sequence[Sequence[int]]
    ) -> LogitsSource | None:
        prompts = [self._seen(view) for view in views]
        return teacher_scores(self.teacher, self.student, self.scorer, prompts, completions)

    def _contrasts(
        self, views: Sequence[TeacherView | None], completions: Sequence[Sequence[int]]
    ) -> list[LogitsSource]:
        """Scores under the k-th contrasting view of each rollout, for each k."""
        number = max((len(view.contrasts) for view in views if view), default=0)
        found = (
            self._taught([select_contrast(v, k) for v in views], completions) for k in range(number)
        )
        return [scores for scores in found if scores is not None]

    def _total(self, value: Tensor) -> Tensor:
        """Sum over ranks."""
        if self.trainer.world_size == 1:
            return value
        total = value.detach().to(self.device, copy=True)
        torch.distributed.all_reduce(total)
        return total.to(value.device)

    def advantages(
        self, rollouts: Sequence[Rollout], views: Sequence[TeacherView | None]
    ) -> list[tuple[float, ...] | None]:
        """Log p_T(y_t) - log p_S(y_t) of each token, at temperature 1.

        Args:
            rollouts: Any.
            views: What the teacher sees of each.

        Returns:
            One a rollout; None where there is no view or no token.
        """
        active = [i for i, view in enumerate(views) if view is not None and rollouts[i].ids]
        found: list[tuple[float, ...] | None] = [None] * len(rollouts)
        completions = [rollouts[i].ids for i in active]
        if not active:
            return found
        student, teacher = both_scores(
            self.teacher,
            self.student,
            self.scorer,
            [self.encode(rollouts[i].question.messages) for i in active],
            [self._seen(views[i]) or [] for i in active],
            completions,
        )
        ids = torch.tensor([i for row in completions for i in row], device=self.device)
        gap = token_facts(teacher, ids, 1.0)[0] - token_facts(student, ids, 1.0)[0]
        lengths = [len(row) for row in completions]
        for i, part in zip(active, gap.split(lengths), strict=True):
            found[i] = tuple(part.tolist())
        return found

    @torch.no_grad()
    def write(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        sampler: Sampler,
        teacher: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[Completion]:
        """One text for each prompt, for contexts that need more than what stands with the data.

        Args:
            prompts: Chat messages, ending with a user's turn.
            sampler: With what settings. Prompts of one batch of training draw the same random
                numbers in each call, so that a resumed run writes what the unbroken one did.
            teacher: With the teacher's weights instead of the student's.
            template_kwargs: For the chat template; None: the student's.
        """
        encoded = [self.encode(messages, template_kwargs) for messages in prompts]
        trainer = self.trainer
        index = (
            trainer.predict_loop.batch_progress.current.ready
            if trainer.predicting
            else trainer.fit_loop.total_batch_idx
        )
        generator = make_batch_generator(self.seed, "write", index, self.global_rank, self.device)
        with self.teacher.weights(self.student) if teacher else nullcontext():
            return sampler.sample(
                self.student,
                encoded,
                samples=1,
                stop_ids=self.stop_ids,
                generator=generator,
            )

    def _no_loss(self) -> LossOutput:
        """Nothing to learn from: a zero that still reaches every weight, as DDP needs."""
        zero = torch.stack([p.sum() * 0.0 for _, p in list_trainable(self.student)])
        none = torch.zeros(0, device=self.device)
        return LossOutput(zero.sum(), 0.0, none, none, none, none, silent=True)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then let the teacher follow (before any checkpoint of this step is written)."""
        super().optimizer_step(*args, **kwargs)
        self.teacher.after_step(self.student)

    @torch.no_grad()
    def predict_step(self, batch: Iterable[Question], batch_idx: int) -> StepOutput:
        """Answers with their evidence, the teacher's view, and the advantage of each token."""
        rollouts = self.sample(
            list(batch), self.eval_sampler, self.eval_samples, "predict", batch_idx
        )
        judged = self.gather(rollouts, self.needs | self.predict_needs)
        # What a context adds to train on is no answer of the student's.
        rollouts = [r for r in self._prepared(judged) if r.origin == "student"]
        views = self.views(rollouts)
        return StepOutput(rollouts, views, self.advantages(rollouts, views))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the teacher with the student, and frozen weights out."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["teacher"] = self.teacher.state_dict()

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Take the teacher back."""
        self.teacher.load_state_dict(checkpoint["teacher"])
