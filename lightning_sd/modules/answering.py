"""Sample answers from a student and judge them, for training and evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from lightning_sd.metrics import build_answer_metrics, update_answers
from lightning_sd.models import ModelSource
from lightning_sd.models.chat import encode_prompt, opens_thinking
from lightning_sd.models.sharding import gather_parameters
from lightning_sd.modules.evidence import get_evidence_source
from lightning_sd.modules.guards import check_rewards
from lightning_sd.modules.memory import sample_within_memory
from lightning_sd.modules.shared_work import SharedWork
from lightning_sd.modules.student import OptimizerCallable, SchedulerCallable, StudentModule
from lightning_sd.rollout import Completion, Sampler
from lightning_sd.rollout.seeding import make_batch_generator
from lightning_sd.types import Message, Question, Rollout, StepOutput, link_siblings


class AnsweringModule(StudentModule):
    """A student that answers questions, which the trainer's data module judges.

    Args:
        model: A model source, or the name of a pretrained model.
        eval_sampler: Draws answers in validation and test.
        eval_samples: Answers per question in validation and test (k of Avg@k).
        optimizer: Function from parameters to an optimizer.
        scheduler: Function from the optimizer to a schedule.
        seed: Seed of sampling. Default: the seed of ``seed_everything``, or 0.
        template_kwargs: Arguments of the chat template for the student's prompt.
        max_bad_steps: See :class:`~lightning_sd.modules.global_mean.GlobalMean`.
    """

    shared_work: SharedWork

    def __init__(
        self,
        model: ModelSource | str,
        eval_sampler: Sampler,
        eval_samples: int,
        *,
        optimizer: OptimizerCallable | None = None,
        scheduler: SchedulerCallable | None = None,
        seed: int | None = None,
        template_kwargs: dict[str, Any] | None = None,
        max_bad_steps: int = 3,
    ) -> None:
        super().__init__(model, optimizer, scheduler, max_bad_steps)
        self.eval_sampler, self.eval_samples, self.seed = eval_sampler, eval_samples, seed
        self.template_kwargs = template_kwargs or {}
        self.answer_metrics = build_answer_metrics(eval_samples)

    def encode(
        self, messages: Sequence[Message], template_kwargs: Mapping[str, Any] | None = None
    ) -> list[int]:
        """Encode chat messages as a prompt; by default with the student's template arguments."""
        chosen = self.template_kwargs if template_kwargs is None else template_kwargs
        return encode_prompt(self.tokenizer, messages, chosen)

    def sample(
        self, questions: Sequence[Question], sampler: Sampler, samples: int, stage: str, index: int
    ) -> list[Rollout]:
        """Sample the student's answers.

        Args:
            questions: A batch.
            sampler: How to sample.
            samples: Answers per question.
            stage: Together with ``index`` and the rank it determines the random numbers: a resumed
                run draws what the unbroken run drew, and each rank draws its own.
            index: Number of the batch in its stage.

        Returns:
            ``samples`` rollouts of question 0, then of question 1, and so on.
        """
        prompts = [self.encode(question.messages) for question in questions]
        opened = [opens_thinking(self.tokenizer, prompt) for prompt in prompts]

        def draw() -> list[Completion]:
            with gather_parameters(self.student):
                return sample_within_memory(
                    sampler,
                    self.student,
                    prompts,
                    samples=samples,
                    stop_ids=self.stop_ids,
                    make_generator=lambda part: self.make_generator(stage + part, index),
                    limits=self.memory_limits,
                )

        return [
            Rollout(
                question=questions[completion.prompt],
                ids=completion.ids,
                text=self.tokenizer.decode(completion.ids, skip_special_tokens=True),
                group=completion.prompt,
                finished=completion.finished,
                logprobs=completion.logprobs,
                thinking_opened=opened[completion.prompt],
            )
            for completion in self.shared_work.run("student", draw)
        ]

    def make_generator(self, stage: str, index: int) -> torch.Generator:
        """Make this rank's random generator of one batch of a stage."""
        return make_batch_generator(self.seed, stage, index, self.global_rank, self.device)

    def gather_evidence(self, rollouts: Sequence[Rollout], needs: frozenset[str]) -> list[Rollout]:
        """Add the evidence: verdicts, the evidence named by ``needs``, and siblings."""
        judged = get_evidence_source(self.trainer).evidence(rollouts, needs)
        check_rewards(judged)
        return link_siblings(judged)

    def validation_step(self, batch: Iterable[Question], batch_idx: int) -> dict[str, Any]:
        """Sample k answers per question and judge them."""
        return self._evaluate(batch, batch_idx)

    def test_step(self, batch: Iterable[Question], batch_idx: int) -> dict[str, Any]:
        """Sample k answers per test question and judge them."""
        return self._evaluate(batch, batch_idx)

    def answer(self, batch: Iterable[Question], index: int, stage: str) -> list[Rollout]:
        """Sample ``eval_samples`` judged answers per question; equal weights give equal answers."""
        rollouts = self.sample(list(batch), self.eval_sampler, self.eval_samples, stage, index)
        return self.gather_evidence(rollouts, frozenset())

    def _evaluate(self, batch: Iterable[Question], index: int) -> dict[str, Any]:
        rollouts = self.answer(batch, index, "eval")
        update_answers(self.answer_metrics, rollouts, self.eval_samples)
        none = [None] * len(rollouts)
        return {"step": StepOutput(rollouts, none, none)}

    def on_validation_epoch_end(self) -> None:
        """Log Avg@k, Pass@k, Maj@k, reward and length over the validation questions."""
        self._log_answers("val")

    def on_test_epoch_end(self) -> None:
        """Log the same over the test questions."""
        self._log_answers("test")

    def on_predict_epoch_end(self) -> None:
        """Wait for ranks that have one batch more."""
        self.shared_work.help_others()

    def _log_answers(self, stage: str) -> None:
        self.shared_work.help_others()  # other ranks may have one batch more
        for name, value in self.answer_metrics.compute().items():
            # Equal on all ranks already; without `sync_dist` Lightning warns about each value.
            shown = name.startswith("avg")
            self.log(f"{stage}/{name}", value.float(), prog_bar=shown, sync_dist=True)
        self.answer_metrics.reset()
