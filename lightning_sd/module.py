"""The training step, readable top to bottom.

sample G rollouts a question -> gather evidence -> write what the teacher sees
-> score the same tokens under student and teacher -> reduce to a loss
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch

from lightning_sd.checks import check_composition, check_strategy
from lightning_sd.contexts.base import TeacherContext
from lightning_sd.data.chat import encode_prompt
from lightning_sd.evidence import evidence_source
from lightning_sd.hparams import build, describable
from lightning_sd.loss import LossOutput, objective_loss
from lightning_sd.metrics import answer_metrics, update_answers
from lightning_sd.models import ModelSource
from lightning_sd.objectives import Distillation, Objective, Tokens
from lightning_sd.rollout import Sampler, TransformersSampler, stored_attempts
from lightning_sd.rollout.seeding import batch_generator
from lightning_sd.scoring import Scorer, Scores
from lightning_sd.step_report import step_means, step_output
from lightning_sd.student import OptimizerCallable, SchedulerCallable, StudentModule
from lightning_sd.teachers import FrozenTeacher, TeacherWeights, trainable
from lightning_sd.types import Question, Rollout, StepOutput, TeacherView, with_siblings


class SelfDistillModule(StudentModule):
    """Self-distillation of a language model on its own rollouts.

    A method is a composition: a :class:`~lightning_sd.contexts.TeacherContext` among the trainer's
    callbacks (what the teacher sees), ``teacher`` (whose weights it has) and ``objective`` (how the
    signal becomes a loss). Questions, verdicts and critiques come from the trainer's data module
    (:class:`~lightning_sd.data.CritiqueDataModule` or any with the same ``evidence`` method).

    Args:
        model: A source such as :class:`~lightning_sd.models.PretrainedModel`; a name stands for
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
        seed: Of sampling; default: the seed of ``seed_everything``, or 0.

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
        seed: int | None = None,
    ) -> None:
        super().__init__(model, optimizer, scheduler)
        for name, value in (("samples", samples), ("eval_samples", eval_samples)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")
        if attempts not in ("sampled", "stored"):
            raise ValueError(f"attempts={attempts!r}: choose sampled or stored.")
        self.objective: Objective = build(objective) or Distillation()
        self.teacher: TeacherWeights = build(teacher) or FrozenTeacher()
        self.sampler: Sampler = build(sampler) or TransformersSampler()
        self.eval_sampler: Sampler = build(eval_sampler) or self.sampler
        self.samples, self.eval_samples, self.seed = samples, eval_samples, seed
        self.attempts = attempts
        self.teacher_context: TeacherContext | None = None
        self.predict_needs: frozenset[str] = frozenset()
        self.answer_metrics = answer_metrics(eval_samples)
        self.save_hyperparameters(
            describable(
                {
                    "model": self.source,
                    "objective": self.objective,
                    "teacher": self.teacher,
                    "sampler": self.sampler,
                    "samples": samples,
                    "eval_sampler": self.eval_sampler,
                    "eval_samples": eval_samples,
                    "attempts": attempts,
                    "seed": seed,
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
        index = self.trainer.fit_loop.total_batch_idx
        if self.attempts == "stored":
            rollouts = stored_attempts(list(batch), self.tokenizer)
        else:
            rollouts = self.sample(list(batch), self.sampler, self.samples, "train", index)
        rollouts = self.gather(rollouts, self.needs)
        views = self.views(rollouts)
        active = [i for i, view in enumerate(views) if view or not self.objective.needs_teacher]
        loss = self.loss([rollouts[i] for i in active], [views[i] for i in active], rollouts)
        means = step_means(rollouts, views, loss, needs_teacher=self.objective.needs_teacher)
        for name, (total, number) in means.items():
            self.count(name, total, number)
        for name, value in evidence_source(self.trainer).counters().items():
            self.count(name, value, 1)
        return {"loss": loss.total, "step": step_output(rollouts, views, active, loss.advantages)}

    def sample(
        self, questions: Sequence[Question], sampler: Sampler, samples: int, stage: str, index: int
    ) -> list[Rollout]:
        """Let the student answer.

        Args:
            questions: A batch.
            sampler: With what settings.
            samples: Answers a question.
            stage: With ``index`` and the rank it decides the random numbers, so that a resumed
                run draws what the unbroken one would have, and ranks draw different ones.
            index: Number of the batch in its stage.

        Returns:
            ``samples`` rollouts of question 0, then of question 1, and so on.
        """
        completions = sampler.sample(
            self.student,
            [encode_prompt(self.tokenizer, question.messages) for question in questions],
            samples=samples,
            stop_ids=self.stop_ids,
            generator=batch_generator(self.seed, stage, index, self.global_rank, self.device),
        )
        return [
            Rollout(
                question=questions[completion.prompt],
                ids=completion.ids,
                text=self.tokenizer.decode(completion.ids, skip_special_tokens=True),
                group=completion.prompt,
                finished=completion.finished,
                logprobs=completion.logprobs,
            )
            for completion in completions
        ]

    def gather(self, rollouts: Sequence[Rollout], needs: frozenset[str]) -> list[Rollout]:
        """Add the evidence: verdicts, what the context asks for, and the siblings."""
        return with_siblings(evidence_source(self.trainer).evidence(rollouts, needs))

    def views(self, rollouts: Sequence[Rollout]) -> list[TeacherView | None]:
        """Let the context write what the teacher sees of each rollout."""
        if self.teacher_context is None:
            return [None] * len(rollouts)
        return self.teacher_context.views(rollouts)

    def loss(
        self,
        active: Sequence[Rollout],
        views: Sequence[TeacherView | None],
        rollouts: Sequence[Rollout],
    ) -> LossOutput:
        """Score the active rollouts under teacher and student, and reduce.

        Args:
            active: Those that take part.
            views: Theirs.
            rollouts: All of the micro-batch: advantages compare a rollout with its siblings.
        """
        completions = [rollout.ids for rollout in active]
        if not sum(map(len, completions)):
            return self._no_loss()
        teacher = self._teacher_scores(views, completions) if self.objective.needs_teacher else None
        prompts = [encode_prompt(self.tokenizer, r.question.messages) for r in active]
        student = self.scorer.score(prompts, completions)
        lengths = [len(ids) for ids in completions]
        return objective_loss(
            self.objective, student, teacher, self._tokens(active, rollouts), lengths
        )

    @torch.no_grad()
    def _teacher_scores(
        self, views: Sequence[TeacherView | None], completions: Sequence[Sequence[int]]
    ) -> Scores:
        prompts = [encode_prompt(self.tokenizer, view.messages) for view in views if view]
        with self.teacher.weights(self.student):
            return self.scorer.score(prompts, completions)

    def _tokens(self, active: Sequence[Rollout], rollouts: Sequence[Rollout]) -> Tokens:
        ids = torch.tensor([i for r in active for i in r.ids], device=self.device)
        old = None
        if self.objective.needs_old_logprobs:
            known = [value for rollout in active for value in rollout.logprobs or ()]
            old = torch.tensor(known, dtype=torch.float32, device=self.device)
        # By name: `bf16-true` sets the default dtype to bfloat16.
        earned = [r.verdict.reward if r.verdict else 0.0 for r in rollouts]
        rewards = torch.tensor(earned, dtype=torch.float32)
        groups = torch.tensor([rollout.group for rollout in rollouts])
        advantages = self.objective.advantages(rewards, groups)
        if advantages is None:
            return Tokens(ids, old)
        of = {id(rollout): a for rollout, a in zip(rollouts, advantages.tolist(), strict=True)}
        spread = [of[id(rollout)] for rollout in active for _ in rollout.ids]
        values = torch.tensor(spread, dtype=torch.float32, device=self.device)
        return Tokens(ids, old, values)

    def _no_loss(self) -> LossOutput:
        """Nothing to learn from: a zero that still reaches every weight, as DDP needs."""
        zero = torch.stack([p.sum() * 0.0 for _, p in trainable(self.student)])
        none = torch.zeros(0, device=self.device)
        return LossOutput(zero.sum(), 0.0, none, none, none, none)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then let the teacher follow (before any checkpoint of this step is written)."""
        super().optimizer_step(*args, **kwargs)
        self.teacher.after_step(self.student)

    def validation_step(self, batch: Iterable[Question], batch_idx: int) -> None:
        """Sample k answers a question and count the right ones."""
        self._evaluate(batch, batch_idx)

    def test_step(self, batch: Iterable[Question], batch_idx: int) -> None:
        """The same on the test questions."""
        self._evaluate(batch, batch_idx)

    def answer(self, batch: Iterable[Question], index: int, stage: str) -> list[Rollout]:
        """Sample ``eval_samples`` judged answers a question, the same for the same weights."""
        rollouts = self.sample(list(batch), self.eval_sampler, self.eval_samples, stage, index)
        return self.gather(rollouts, frozenset())

    def _evaluate(self, batch: Iterable[Question], index: int) -> None:
        rollouts = self.answer(batch, index, "eval")
        update_answers(self.answer_metrics, rollouts, self.eval_samples)

    def on_validation_epoch_end(self) -> None:
        """Log Avg@k, Pass@k, Maj@k and length of the validation questions."""
        self._log_answers("val")

    def on_test_epoch_end(self) -> None:
        """Log them of the test questions."""
        self._log_answers("test")

    def _log_answers(self, stage: str) -> None:
        for name, value in self.answer_metrics.compute().items():
            self.log(f"{stage}/{name}", value.float(), prog_bar=name.startswith("avg"))
        self.answer_metrics.reset()

    @torch.no_grad()
    def predict_step(self, batch: Iterable[Question], batch_idx: int) -> StepOutput:
        """Answers with their evidence, the teacher's view, and the advantage of each token."""
        rollouts = self.sample(
            list(batch), self.eval_sampler, self.eval_samples, "predict", batch_idx
        )
        rollouts = self.gather(rollouts, self.needs | self.predict_needs)
        views = self.views(rollouts)
        active = [i for i, view in enumerate(views) if view is not None and rollouts[i].ids]
        if not active:
            return StepOutput(rollouts, views, [None] * len(rollouts))
        chosen = [rollouts[i] for i in active]
        completions = [rollout.ids for rollout in chosen]
        teacher = self._teacher_scores([views[i] for i in active], completions)
        prompts = [encode_prompt(self.tokenizer, r.question.messages) for r in chosen]
        student = self.scorer.score(prompts, completions)
        ids = torch.tensor([i for row in completions for i in row], device=self.device)
        lengths = [len(row) for row in completions]
        # Any objective that compares the two gives the advantages; the cheapest one will do.
        loss = objective_loss(Distillation(top_k=1), student, teacher, Tokens(ids), lengths)
        return step_output(rollouts, views, active, loss.advantages)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the teacher with the student, and frozen weights out."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["teacher"] = self.teacher.state_dict()

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Take the teacher back."""
        self.teacher.load_state_dict(checkpoint["teacher"])
