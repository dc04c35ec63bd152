"""Plain next-token training on worked solutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_sd._serialize import describe_arguments
from lightning_sd.models import ModelSource
from lightning_sd.models.chat import encode_prompt
from lightning_sd.models.control_tokens import encode_text
from lightning_sd.models.sharding import gather_parameters, hold_parameters, pad_passes
from lightning_sd.models.stop_ids import find_end_of_turn
from lightning_sd.modules.bad_steps import describe_question
from lightning_sd.modules.safe_scorer import MemorySafeScorer
from lightning_sd.modules.student import OptimizerCallable, SchedulerCallable, StudentModule
from lightning_sd.types import Question, QuestionBatch


class SupervisedModule(StudentModule):
    """Trains a model to give each question's reference solution.

    The prompt is the question's messages, rendered with the chat template. The target is
    ``reference`` and the end-of-turn token. The loss is the mean over the target tokens of the
    whole optimizer step, for any split into micro-batches and ranks.

    Args:
        model: A model source, or the name of a pretrained model.
        optimizer: Function from parameters to an optimizer. Default: AdamW, learning rate 1e-5.
        scheduler: Function from the optimizer to a schedule that steps once per optimizer step.
        max_bad_steps: Number of optimizer steps in a row with a loss or gradient that is not finite
            at which training stops; see :class:`~lightning_sd.modules.global_mean.GlobalMean`.

    Example::

        module = SupervisedModule("HuggingFaceTB/SmolLM2-135M-Instruct")
        Trainer(max_steps=100).fit(module, DataLoader(questions, collate_fn=QuestionBatch))
    """

    def __init__(
        self,
        model: ModelSource | str,
        optimizer: OptimizerCallable | None = None,
        scheduler: SchedulerCallable | None = None,
        max_bad_steps: int = 3,
    ) -> None:
        super().__init__(model, optimizer, scheduler, max_bad_steps)
        settings = {"model": self.source, "max_bad_steps": max_bad_steps}
        self.save_hyperparameters(describe_arguments(settings))

    def on_student_ready(self) -> None:
        """The student is loaded."""
        self.scorer = MemorySafeScorer(self.student, self.memory_limits)

    def encode(self, questions: Sequence[Question]) -> tuple[list[list[int]], list[list[int]]]:
        """Tokenise questions and their reference solutions apart.

        Args:
            questions: Rows with ``reference``.

        Returns:
            Prompt ids and target ids, one a row; each target ends with the end-of-turn token.

        Raises:
            ValueError: A row without a reference.
        """
        prompts: list[list[int]] = []
        targets: list[list[int]] = []
        end = find_end_of_turn(self.tokenizer)
        ending = [] if end is None else [end]
        for question in questions:
            if question.reference is None:
                raise ValueError(
                    f"Question {question.id!r} has no reference solution, which is what supervised "
                    "training learns; fill Question.reference or leave the row out."
                )
            prompts.append(encode_prompt(self.tokenizer, question.messages))
            target = encode_text(self.tokenizer, question.reference)
            targets.append([*target, *ending])
        return prompts, targets

    def loss(self, questions: Sequence[Question]) -> tuple[Tensor, int]:
        """Negative log-likelihood of the targets, with the routers' loss if it is trained.

        Args:
            questions: Rows with ``reference``.

        Returns:
            The sum over all target tokens in nats, and how many there are.
        """
        prompts, targets = self.encode(questions)
        scores = self.scorer.score(prompts, targets)
        logits = scores.logits()
        ids = torch.tensor([token for target in targets for token in target], device=logits.device)
        total = nn.functional.cross_entropy(logits.float(), ids, reduction="sum")
        return self.add_router_loss(total, len(ids), scores), len(ids)

    def training_step(self, batch: QuestionBatch, batch_idx: int) -> Tensor:
        """Return the sum over the micro-batch, which :class:`GlobalMean` averages."""
        questions = list(batch)
        hold_parameters(self.student)
        total, tokens = self.loss(questions)
        padding = pad_passes(self.student)
        self.remember_batch(lambda: [describe_question(question) for question in questions])
        self.log_mean("loss", total, tokens)
        return total if padding is None else total + padding

    def validation_step(self, batch: QuestionBatch, batch_idx: int) -> None:
        """Log ``val/loss``, the mean over all target tokens."""
        with gather_parameters(self.student):
            total, tokens = self.loss(list(batch))
        self.log("val/loss", total / tokens, batch_size=tokens, prog_bar=True, sync_dist=True)
