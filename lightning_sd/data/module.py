"""The data module: questions in, and the evidence about rollouts of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from lightning_sd._serialize import build, describable
from lightning_sd.critique.base import Critic, CritiqueRequest
from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.prefill import PrefillReport, prefill
from lightning_sd.critique.cache.service import CritiqueService, OnRefusal
from lightning_sd.data.loader import CountedLoader, ResumableLoader, training_loader
from lightning_sd.data.plan import EvalPlan
from lightning_sd.data.stored import self_critique, stored_critique, stored_request
from lightning_sd.tasks.base import Split, Task
from lightning_sd.tasks.stream import StreamTask
from lightning_sd.types import Critique, Question, QuestionBatch, Rollout

Evidence = Literal["critique"]
AskAbout = Literal["all", "failed"]


class CritiqueDataModule(LightningDataModule):
    """Questions of a task, verdicts on answers to them, and critiques through a cache on disk.

    Any LightningModule may use it: the loaders give batches of :class:`Question`, and
    ``trainer.datamodule.evidence(rollouts, needs)`` judges and criticises what was sampled. The
    critic is no part of the LightningModule, so it is in no checkpoint.

    Args:
        task: Gives the questions and judges answers.
        critic: Writes critiques; none: verdicts only.
        cache_dir: Folder of the critique cache, on a local disk; other runs may share it.
        batch_size: Training questions a step and process.
        eval_batch_size: Most questions a batch in validation, test and predict.
        num_workers: Threads that load questions ahead.
        seed: Decides the order of the training questions.
        on_refusal: What becomes of a critique that must not be used. ``drop``: the rollout has no
            teacher. ``reference``: the reference solution takes its place. ``retry``: the critic is
            told why and asked once more, then as ``drop``.
        ask_about: ``all`` attempts, or only ``failed`` ones: a right attempt in good form is then
            its own critique (case A), which costs nothing.
        ask_every: Ask the critic in every n-th optimizer step only. In the others what the cache
            has is used, and the other rollouts have no teacher (or, by ``on_refusal``, the
            reference).
        bucket_by_length: Put questions of like length into one batch, so that less is padded.
        repeat_batches: How many times each training batch comes, one time after the other, with
            fresh rollouts each time (RESD's K inner iterations: 4). An epoch grows by as much.

    Raises:
        ValueError: An option out of range.
    """

    predict_split: Split = "test"
    """Whose questions ``predict`` answers."""

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
    ) -> None:
        super().__init__()
        positive = {"batch_size": batch_size, "eval_batch_size": eval_batch_size}
        positive |= {"ask_every": ask_every, "repeat_batches": repeat_batches}
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")
        if num_workers < 0:
            raise ValueError(f"num_workers={num_workers}: must be 0 or more.")
        if on_refusal not in get_args(OnRefusal):
            raise ValueError(f"on_refusal={on_refusal!r}: choose one of {get_args(OnRefusal)}.")
        if ask_about not in get_args(AskAbout):
            raise ValueError(f"ask_about={ask_about!r}: choose one of {get_args(AskAbout)}.")
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
        self._service: CritiqueService | None = None
        arguments = {
            "task": self.task,
            "critic": self.critic,
            "cache_dir": cache_dir,
            "batch_size": batch_size,
            "eval_batch_size": eval_batch_size,
            "num_workers": num_workers,
            "seed": seed,
            "on_refusal": on_refusal,
            "ask_about": ask_about,
            "ask_every": ask_every,
            "bucket_by_length": bucket_by_length,
            "repeat_batches": repeat_batches,
        }
        self.save_hyperparameters(describable(arguments), logger=False)

    def setup(self, stage: str) -> None:
        """Show the critic its task and open the cache, once.

        Raises:
            TypeError: A critic that cannot work with this task.
        """
        if self.critic is not None and self._service is None:
            self.critic.setup(self.task)
            cache = CritiqueCache(Path(self.cache_dir))
            self._service = CritiqueService(self.critic, cache, self.on_refusal)

    @property
    def train_questions(self) -> Sequence[Question]:
        """The training questions, in the task's order."""
        return self.task.questions("train")

    def train_dataloader(self) -> CountedLoader:
        """Shuffled batches; a checkpoint remembers the position within the epoch."""
        rank, world_size = self._place()
        return training_loader(
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

    def val_dataloader(self) -> ResumableLoader:
        """Each validation question once, on one of the processes."""
        return self._evaluation("val")

    def test_dataloader(self) -> ResumableLoader:
        """Each test question once, on one of the processes."""
        return self._evaluation("test")

    def predict_dataloader(self) -> DataLoader[Question]:
        """Each question of ``predict_split`` once.

        A plain loader: Lightning spreads it over the processes itself, without repeats, and tells
        prediction writers which rows a batch holds.
        """
        return DataLoader(
            self.task.questions(self.predict_split),  # type: ignore[arg-type]
            batch_size=self.eval_batch_size,
            collate_fn=QuestionBatch,
        )

    def check(self, needs: frozenset[str]) -> None:
        """Make sure that evidence can be had before anything is sampled.

        Args:
            needs: What a context asks for.

        Raises:
            ValueError: No critic, or evidence that this data module does not know.
        """
        unknown = sorted(needs - set(get_args(Evidence)))
        if unknown:
            raise ValueError(
                f"The context needs {unknown}, but {type(self).__name__} only gives "
                f"{get_args(Evidence)} beside the verdicts."
            )
        if "critique" in needs and self.critic is None and not self._critiques_stand_with_data():
            raise ValueError(
                "The context needs critiques, but data.critic is none. Set one: RuleCritic for "
                "tasks that can repair attempts, or LMCritic(model=...); or map a column of the "
                "data set to `critique`."
            )

    def evidence(self, rollouts: Sequence[Rollout], needs: frozenset[str]) -> list[Rollout]:
        """Judge rollouts, and have them criticised if that is needed.

        Args:
            rollouts: A batch.
            needs: ``critique`` asks the critic, through the cache.

        Returns:
            The same rollouts in the same order, ``verdict`` filled, and ``critique`` if needed.
        """
        judged = [
            r if r.verdict else replace(r, verdict=self.task.verify(r.question, r.text))
            for r in rollouts
        ]
        if "critique" not in needs:
            return judged
        critiques = self._critiques([rollout_request(rollout) for rollout in judged])
        return [replace(r, critique=c) for r, c in zip(judged, critiques, strict=True)]

    def counters(self) -> dict[str, float]:
        """Cache hits, misses, refusals and costs since the last call; see ``CritiqueService``."""
        return {} if self._service is None else self._service.counters()

    def critique_all(
        self, questions: Sequence[Question], *, progress: bool = False
    ) -> PrefillReport:
        """Fill the cache with critiques of the attempts that stand with the questions.

        A run that was stopped goes on where it was, for what is cached is not asked again.

        Args:
            questions: Those without an ``attempt`` are passed over.
            progress: Show a progress bar.

        Returns:
            What came of it: cases, refusals, and what could not be had, with the reasons.
        """
        self.setup("critique")
        requests = [stored_request(self.task, q) for q in questions if q.attempt is not None]
        return prefill(self.service, requests, progress=progress)

    @property
    def service(self) -> CritiqueService:
        """The critic behind its cache.

        Raises:
            RuntimeError: There is no critic, or ``setup`` has not run.
        """
        if self._service is None:
            raise RuntimeError(
                "There is no critique service: data.critic is none, or setup() has not run."
            )
        return self._service

    def _critiques(self, requests: Sequence[CritiqueRequest]) -> list[Critique]:
        """Those that stand with the data or need no critic, and the critic's for the others."""
        free = self_critique if self.ask_about == "failed" else (lambda request: None)
        critiques = [stored_critique(request) or free(request) for request in requests]
        open_requests = [r for r, c in zip(requests, critiques, strict=True) if c is None]
        answers = iter(self._answers(open_requests))
        return [next(answers) if critique is None else critique for critique in critiques]

    def _answers(self, requests: Sequence[CritiqueRequest]) -> list[Critique]:
        if not requests:
            return []
        trainer = self.trainer
        # Its steps, and not our calls: one batch may come in several.
        step = trainer.global_step if trainer is not None and trainer.training else 0
        asking = step % self.ask_every == 0
        return self.service.ask(requests) if asking else self.service.look_up(requests)

    def _critiques_stand_with_data(self) -> bool:
        if isinstance(self.task, StreamTask):
            return "critique" in self.task.columns
        questions = self.train_questions
        return len(questions) > 0 and "critique" in questions[0].extra

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_service": None}

    def _evaluation(self, split: Split) -> ResumableLoader:
        questions = self.task.questions(split)
        rank, world_size = self._place()
        plan = EvalPlan(len(questions), self.eval_batch_size, rank, world_size)
        return ResumableLoader(questions, plan, num_workers=self.num_workers)

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)


def rollout_request(rollout: Rollout) -> CritiqueRequest:
    """What the critic is asked about one judged rollout."""
    assert rollout.verdict is not None
    return CritiqueRequest(rollout.question, rollout.text, rollout.verdict, rollout.finished)
