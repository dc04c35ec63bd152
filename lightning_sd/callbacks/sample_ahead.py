"""Sample the next batch while the student trains on the current one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_sd.rollout.ahead import AheadSampler
from lightning_sd.rollout.engine_sampler import EngineSampler
from lightning_sd.types import Question

if TYPE_CHECKING:
    from lightning_sd.modules.self_distill import SelfDistillModule

KEY = "sampled_ahead"
"""Entry of a checkpoint with the completions of the next batch."""


class SampleAhead(Callback):
    """Let the engine sample the next batch while the student trains on the current one.

    The next batch is sampled with the weights before the current batch's optimizer step, so its
    rollouts are at most one step old (``train/staleness``). Their ``logprobs`` are those of the
    weights that sampled them, which ``importance_clip`` corrects for. Judges and critics are asked
    when the batch is trained on.

    The first batch of an epoch, and the batches of steps in which sampler and student are compared
    (``check_every``), are sampled with the current weights. Checkpoints hold the next batch's
    completions, so a resumed run equals the unbroken one.

    Needs a sampler with an engine of its own (``VLLMSampler``, ``VLLMServerSampler``) and a loader
    that can show its next batch, such as that of ``CritiqueDataModule``.
    """

    def __init__(self) -> None:
        self._sampler: AheadSampler | None = None
        self._restored: list[Any] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse modules whose sampling cannot run beside their training.

        Raises:
            ValueError: The sampler has no engine of its own or lets it sleep, or attempts are
                stored, or a batch is sampled in parts.
        """
        if stage != "fit":
            return
        module: Any = pl_module
        sampler = module.sampler
        if not isinstance(sampler, EngineSampler):
            raise ValueError(
                f"SampleAhead with sampler={type(sampler).__name__}: it samples with the weights "
                "that are trained. Use VLLMSampler or VLLMServerSampler, or remove SampleAhead."
            )
        level = getattr(sampler, "sleep_level", None)
        if level is not None:
            raise ValueError(
                f"SampleAhead with sampler.sleep_level={level}: the engine works while the student "
                "trains. Set sleep_level to null."
            )
        if module.attempts == "stored" or module.overlap > 1:
            raise ValueError(
                f"SampleAhead with attempts={module.attempts!r}, overlap={module.overlap}: whole "
                "batches are sampled ahead. Set attempts to sampled and overlap to 1."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the module's sampler behind one that draws in a second thread.

        Raises:
            TypeError: The training loader cannot show its next batch.
        """
        loader = trainer.train_dataloader
        if not hasattr(loader, "peek"):
            raise TypeError(
                f"SampleAhead with a {type(loader).__name__}: it needs a training loader with "
                "`peek`, such as that of CritiqueDataModule."
            )
        module: Any = pl_module
        self._sampler = module.sampler = AheadSampler(module.sampler)
        self._sampler.load_state_dict(self._restored)
        self._restored = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the draw of the next batch with the current weights."""
        module: Any = pl_module
        step, index = trainer.global_step, trainer.fit_loop.total_batch_idx
        module.log_mean("staleness", step - self._start(module, batch, index), 1)
        following = trainer.train_dataloader.peek()  # type: ignore[union-attr]
        next_step = step + (not trainer.fit_loop.epoch_loop._should_accumulate())
        compared = module.check_every and next_step % module.check_every == 0
        if following is not None and not compared:
            self._start(module, following, index + 1)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the next batch's completions of all ranks."""
        if self._sampler is None:
            return
        own = self._sampler.state_dict()
        ranks = [own] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(ranks, own)
        checkpoint[KEY] = ranks

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: Mapping[str, Any]
    ) -> None:
        """Take this rank's completions from a checkpoint."""
        ranks = checkpoint.get(KEY, [])
        if len(ranks) == trainer.world_size:
            self._restored = ranks[trainer.global_rank]
        else:
            rank_zero_warn(
                f"SampleAhead: the checkpoint holds completions of {len(ranks)} process(es), and "
                f"this run has {trainer.world_size}. The next batch is sampled again, so the run "
                "differs from an unbroken one."
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the module its sampler back."""
        self._close(pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the module its sampler back."""
        self._close(pl_module)

    def _start(self, module: SelfDistillModule, batch: Iterable[Question], index: int) -> int:
        """Start a draw unless it was started before; return the step of its weights."""
        assert self._sampler is not None
        return self._sampler.start(
            module.student,
            [module.encode(question.messages) for question in batch],
            samples=module.samples,
            stop_ids=module.stop_ids,
            generator=module.make_generator("train", index),
            step=module.trainer.global_step,
        )

    def _close(self, module: Any) -> None:
        if self._sampler is not None:
            self._sampler.close()
            module.sampler, self._sampler = self._sampler.sampler, None
