"""Plain next-token training on worked solutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lightning_sd.data.chat import encode_prompt
from lightning_sd.models import ModelSource
from lightning_sd.scoring import Scorer
from lightning_sd.types import Question
from lightning_sd.window import GlobalMean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = list[int]


class SupervisedModule(GlobalMean):
    """Trains a model to give each question's reference solution.

    The prompt is the question's messages through the chat template; the target is ``reference`` and
    the end-of-turn token. Only the target's tokens are in the loss, which is their mean over the
    whole optimizer step, however it is cut into micro-batches and ranks.

    Args:
        model: Where the model comes from.
        optimizer: Takes the trainable parameters, as the Lightning CLI builds it.
        scheduler: Takes the optimizer; stepped once an optimizer step.

    Example::

        module = SupervisedModule(PretrainedModel("HuggingFaceTB/SmolLM2-135M-Instruct"))
        Trainer(max_steps=100).fit(module, DataLoader(questions, collate_fn=list))
    """

    def __init__(
        self,
        model: ModelSource,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        self.source = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.student: nn.Module | None = None
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.scorer: Scorer | None = None

    def configure_model(self) -> None:
        """Load the model, once."""
        if self.student is None:
            self.student, self.tokenizer = self.source.load()
            # from_pretrained gives eval mode, and Lightning does not change it.
            self.student.train()
            self.scorer = Scorer(self.student)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Questions hold no tensors; token ids are moved where they are made."""
        return batch

    def encode(self, questions: Sequence[Question]) -> tuple[list[Ids], list[Ids]]:
        """Tokenise questions and their reference solutions apart.

        Args:
            questions: Rows with ``reference``.

        Returns:
            Prompt ids and target ids, one a row; each target ends with the end-of-turn token.

        Raises:
            ValueError: A row without a reference.
        """
        tokenizer: Any = self.tokenizer
        prompts, targets = [], []
        for question in questions:
            if question.reference is None:
                raise ValueError(
                    f"Question {question.id!r} has no reference solution, which is what supervised "
                    "training learns; fill Question.reference or leave the row out."
                )
            prompts.append(encode_prompt(tokenizer, question.messages))
            target = tokenizer(question.reference, add_special_tokens=False).input_ids
            targets.append([*target, tokenizer.eos_token_id])
        return prompts, targets

    def loss(self, questions: Sequence[Question]) -> tuple[Tensor, int]:
        """Negative log-likelihood of the targets.

        Args:
            questions: Rows with ``reference``.

        Returns:
            The sum over all target tokens in nats, and how many there are.
        """
        assert self.scorer is not None, "configure_model has not run"
        prompts, targets = self.encode(questions)
        logits = self.scorer.score(prompts, targets).logits()
        ids = torch.tensor([token for target in targets for token in target], device=logits.device)
        return nn.functional.cross_entropy(logits.float(), ids, reduction="sum"), len(ids)

    def training_step(self, batch: Sequence[Question], batch_idx: int) -> Tensor:
        """The sum over the micro-batch; :class:`GlobalMean` makes a mean of it."""
        total, tokens = self.loss(batch)
        self.count("loss", total, tokens)
        return total

    def validation_step(self, batch: Sequence[Question], batch_idx: int) -> None:
        """Log ``val/loss``, the mean over all target tokens."""
        total, tokens = self.loss(batch)
        self.log("val/loss", total / tokens, batch_size=tokens, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Optimise what is trainable."""
        optimizer = self.optimizer([p for p in self.parameters() if p.requires_grad])
        if self.scheduler is None:
            return optimizer
        schedule = {"scheduler": self.scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}
