"""The data module: batches of questions, and verdicts and critiques for sampled rollouts."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from lightning_sd._serialize import build, describe_arguments
from lightning_sd.critique.base import Critic, CritiqueRequest
from lightning_sd.critique.cache.location import open_cache
from lightning_sd.critique.cache.prefill import PrefillReport, prefill
from lightning_sd.critique.cache.service import CritiqueService, OnRefusal
from lightning_sd.data.gatherer import AskAbout, CritiqueGatherer
from lightning_sd.data.loader import PlannedLoader, build_training_loader
from lightning_sd.data.plan import EvalPlan
from lightning_sd.data.requests import (
    build_rollout_request,
    build_stored_request,
    judge_rollouts,
)
from lightning_sd.data.resumable import ResumableLoader, collect_batch
from lightning_sd.tasks.base import Split, Task
from lightning_sd.tasks.judges.verdicts import check_judge
from lightning_sd.tasks.stream import StreamTask
from lightning_sd.text.cleaning import clean_question
from lightning_sd.types import Critique, Question, Rollout

Evidence = Literal["critique"]


class CritiqueDataModule(LightningDataModule):
    """Questions of a task, verdicts on rollouts, and critiques through a cache on disk.

    Any LightningModule can use it. The loaders yield batches of :class:`Question`, and
    ``trainer.datamodule.evidence(rollouts, needs)`` judges sampled rollouts and obtains critiques.
    The critic is not part of the LightningModule, so it is in no checkpoint.

    Args:
        task: Task with the questions and the judge of the answers.
        critic: Critic that writes critiques. None gives verdicts only.
        cache_dir: Folder of the critique cache, on a local disk; ``{node}`` stands for the name of
            the machine. Several runs may share it. Or the URL of ``critique serve``.
        batch_size: Training questions per step and process.
        eval_batch_size: Maximum number of questions per batch in validation, test and predict.
        num_workers: Number of threads that load questions ahead.
        seed: Seed of the order of the training questions.
        on_refusal: Treatment of a critique that must not be used. ``drop`` leaves the rollout
            without a teacher. ``reference`` uses the reference solution instead. ``retry`` tells
            the critic the reason and asks once more; a second refusal is treated as ``drop``.
        ask_about: ``all`` sends every attempt to the critic. ``failed`` does not send correct
            attempts in step form: such an attempt is its own critique (case A), at no cost.
        ask_every: Ask the critic only in every n-th optimizer step. In the other steps only cached
            critiques are used; rollouts without one have no teacher, or the reference solution if
            ``on_refusal`` says so.
        bucket_by_length: Put questions of similar length into one batch, for less padding.
        repeat_batches: How many times in a row each training batch is returned, each time with
            new rollouts (K inner iterations of RESD: 4). An epoch has as many times more batches.
        critic_timeout: Seconds without a new critique after which the critic is given up for this
            step. The open requests count as ``critique_timed_out`` and ``critique_failed``, and the
            step goes on without them. The default is below the 1800 s after which other processes
            stop waiting for this one. None waits forever.

    Raises:
        ValueError: An option is out of range.
    """

    predict_split: Split = "test"
    """The split that ``predict`` answers."""

    def __init__(
        self,
        task: Task,
        critic: Critic | None = None,
        cache_dir: str = ".cache/critiques",
        batch_size: int = 8,
        eval_batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        on_refusal: OnRefusal = "drop",
        ask_about: AskAbout = "all",
        ask_every: int = 1,
        bucket_by_length: bool = False,
        repeat_batches: int = 1,
        critic_timeout: float | None = 1200.0,
    ) -> None:
        super().__init__()
        self.task: Task = build(task)
        self.critic: Critic | None = build(critic)
        self.cache_dir = cache_dir
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.on_refusal: OnRefusal = on_refusal
        self.ask_about: AskAbout = ask_about
        self.ask_every = ask_every
        self.bucket_by_length = bucket_by_length
        self.repeat_batches = repeat_batches
        self.critic_timeout = critic_timeout
        self._service: CritiqueService | None = None
        self._gatherer = CritiqueGatherer(ask_about)
        self._check_options()
        names = inspect.signature(CritiqueDataModule).parameters
        arguments = {name: getattr(self, name) for name in names}
        self.save_hyperparameters(describe_arguments(arguments), logger=False)

    def setup(self, stage: str) -> None:
        """Show the critic its task and open the cache. Repeated calls do nothing.

        Raises:
            TypeError: The critic cannot work with this task.
        """
        if self.critic is not None and self._service is None:
            self.critic.setup(self.task)
            cache = open_cache(self.cache_dir)
            self._service = CritiqueService(
                self.critic, cache, self.on_refusal, deadline=self.critic_timeout
            )

    @property
    def train_questions(self) -> Sequence[Question]:
        """The training questions, in the task's order."""
        return self.task.questions("train")

    def train_dataloader(self) -> ResumableLoader:
        """Return shuffled batches. Checkpoints hold the position within the epoch."""
        rank, world_size = self._get_rank()
        return build_training_loader(
            self.task,
            batch_size=self.batch_size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            num_workers=self.num_workers,
            shuffle=not getattr(self.trainer, "overfit_batches", 0),
            bucket_by_length=self.bucket_by_length,
            repeat=self.repeat_batches,
            limit=self.trainer.limit_train_batches if self.trainer else None,
        )

    def val_dataloader(self) -> PlannedLoader:
        """Return each validation question once, on one of the processes."""
        return self._build_eval_loader("val")

    def test_dataloader(self) -> PlannedLoader:
        """Return each test question once, on one of the processes."""
        return self._build_eval_loader("test")

    def predict_dataloader(self) -> DataLoader[Question]:
        """Return each question of ``predict_split`` once.

        This is a plain DataLoader: Lightning splits it between the processes without repeats, and
        tells prediction writers which rows a batch holds.
        """
        return DataLoader(
            self.task.questions(self.predict_split),  # type: ignore[arg-type]
            batch_size=self.eval_batch_size,
            collate_fn=collect_batch,
        )

    def check(self, needs: frozenset[str]) -> None:
        """Check before sampling that the needed evidence can be provided, and try the judge.

        Args:
            needs: Names of the evidence that a teacher context requires.

        Raises:
            ValueError: The context needs critiques and there is no critic, or it needs evidence
                that this data module does not know, or the judge gives a reward that is not finite.
            TypeError: The judge returns something other than a verdict.
        """
        unknown = sorted(needs - set(get_args(Evidence)))
        if unknown:
            raise ValueError(
                f"teacher_context: it needs {unknown}, but {type(self).__name__} provides only "
                f"{get_args(Evidence)} besides the verdicts."
            )
        if "critique" in needs and self.critic is None and not self._data_holds_critiques():
            raise ValueError(
                "critic=None: the teacher context needs critiques. Set data.critic (RuleCritic for "
                "tasks that can repair attempts, or LMCritic(model=...)), or map a column of the "
                "data set to `critique`."
            )
        check_judge(self.task)

    def evidence(self, rollouts: Sequence[Rollout], needs: frozenset[str]) -> list[Rollout]:
        """Judge rollouts, and obtain critiques if they are needed.

        Args:
            rollouts: Rollouts of a batch. Existing verdicts are kept.
            needs: Names of the required evidence. ``critique`` asks the critic through the cache.

        Returns:
            The same rollouts in the same order, with ``verdict`` and, if needed, ``critique``.
        """
        judged = judge_rollouts(self.task, rollouts)
        if "critique" not in needs:
            return judged
        requests = [build_rollout_request(rollout) for rollout in judged]
        critiques = self._gatherer.gather(requests, self._ask_critic)
        return [replace(r, critique=c) for r, c in zip(judged, critiques, strict=True)]

    def counters(self) -> dict[str, float | tuple[float, float]]:
        """Return the counts since the last call, and reset them.

        The critic's and the cache's counts have the names of
        :meth:`CritiqueService.pop_counters`; a pair is a mean, its sum and number of items.
        ``no_teacher/<reason>`` counts rollouts without a usable critique, by the names of
        :func:`~lightning_sd.critique.reasons.name_reason`. Empty if no critiques were needed.
        """
        counts = {} if self._service is None else self._service.pop_counters()
        return counts | self._gatherer.pop_counters()

    def critique_all(
        self, questions: Sequence[Question], *, progress: bool = False
    ) -> PrefillReport:
        """Fill the cache with critiques of the attempts that are stored with the questions.

        A stopped run can be started again: cached critiques are not requested again.

        Args:
            questions: Questions. Those without an ``attempt`` are skipped.
            progress: Show a progress bar.

        Returns:
            Cases, refusals and failures, with their reasons.
        """
        self.setup("critique")
        attempted = [clean_question(q) for q in questions if q.attempt is not None]
        requests = [build_stored_request(self.task, question) for question in attempted]
        return prefill(self.service, requests, progress=progress)

    @property
    def service(self) -> CritiqueService:
        """The critic behind its cache.

        Raises:
            RuntimeError: There is no critic, or ``setup`` has not run.
        """
        if self._service is None:
            raise RuntimeError("critic: data.critic is None, or setup() has not run yet.")
        return self._service

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_service": None}

    def _check_options(self) -> None:
        for name in ("batch_size", "eval_batch_size", "ask_every", "repeat_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1.")
        if self.num_workers < 0:
            raise ValueError(f"num_workers={self.num_workers}: must be 0 or more.")
        if self.critic_timeout is not None and self.critic_timeout <= 0:
            raise ValueError(f"critic_timeout={self.critic_timeout}: must be above 0, or null.")
        for name, choices in (("on_refusal", OnRefusal), ("ask_about", AskAbout)):
            value = getattr(self, name)
            if value not in get_args(choices):
                raise ValueError(f"{name}={value!r}: choose one of {get_args(choices)}.")

    def _ask_critic(self, requests: Sequence[CritiqueRequest]) -> list[Critique]:
        trainer = self.trainer
        # The trainer's optimizer steps count, not calls: one batch may come in several calls.
        step = trainer.global_step if trainer is not None and trainer.training else 0
        ask_now = step % self.ask_every == 0
        return self.service.ask(requests) if ask_now else self.service.look_up(requests)

    def _data_holds_critiques(self) -> bool:
        if isinstance(self.task, StreamTask):
            return "critique" in (self.task.columns or {})
        questions = self.train_questions
        return len(questions) > 0 and "critique" in questions[0].extra

    def _build_eval_loader(self, split: Split) -> PlannedLoader:
        questions = self.task.questions(split)
        rank, world_size = self._get_rank()
        plan = EvalPlan(len(questions), self.eval_batch_size, rank, world_size)
        return PlannedLoader(questions, plan, num_workers=self.num_workers)

    def _get_rank(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
