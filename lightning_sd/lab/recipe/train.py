"""Train a solver from random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import TQDMProgressBar
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lightning_sd.lab.recipe.careless_solver import CarelessSolver
from lightning_sd.lab.recipe.evaluate import MAX_NEW_TOKENS
from lightning_sd.lab.recipe.training_rows import LessonMaker, TrainingRows, make_shipped_lesson
from lightning_sd.lab.recipe.vocabulary import MAX_TOKENS, build_tokenizer
from lightning_sd.models import LoadedModel, ModelSource
from lightning_sd.models.control_tokens import encode_text
from lightning_sd.modules.supervised import SupervisedModule
from lightning_sd.types import Question, QuestionBatch


@dataclass(frozen=True)
class Recipe:
    """All settings that determine the weights."""

    seed: int = 0
    """Selects the initial weights, the rows and the simulated solver."""
    operations: int = 4
    """Operations per question."""
    steps: int = 4000
    """Optimizer steps."""
    batch_size: int = 64
    """Rows per optimizer step."""
    lr: float = 3e-3
    """Peak learning rate. It rises over the first 5% of the steps and then falls to zero."""
    width: int = 96
    """Hidden size."""
    layers: int = 3
    """Transformer layers."""
    heads: int = 4
    """Attention heads per layer."""
    feed_forward: int = 256
    """Hidden size of the feed-forward blocks."""


class ContinuingModule(SupervisedModule):
    """Supervised training on rows that may hold the start of the answer in ``extra["begun"]``."""

    def encode(self, questions: Sequence[Question]) -> tuple[list[list[int]], list[list[int]]]:
        """Append the start of the answer to the prompt, where it has no loss.

        Args:
            questions: The rows.

        Returns:
            Prompt token ids and target token ids per row.
        """
        prompts, targets = super().encode(questions)
        # The prompt has the tokenizer's special tokens, so the start of the answer must not.
        begun = [encode_text(self.tokenizer, q.extra.get("begun", "")) for q in questions]
        return [[*p, *b] for p, b in zip(prompts, begun, strict=True)], targets


def train(
    recipe: Recipe,
    make_lesson: LessonMaker = make_shipped_lesson,
    start: ModelSource | None = None,
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train a solver.

    Args:
        recipe: The settings.
        make_lesson: Makes the rows with a context.
        start: A solver to start from, with its tokenizer. None starts from random weights.

    Returns:
        The model in eval mode and its tokenizer.
    """
    seed_everything(recipe.seed)
    rows = TrainingRows(
        careless_solver=CarelessSolver.from_seed(recipe.seed),
        seed=recipe.seed,
        steps=recipe.operations,
        length=recipe.steps * recipe.batch_size,
        block=recipe.batch_size // 2,
        make_lesson=make_lesson,
    )
    sample = (rows[i] for i in range(2000))
    tokenizer = build_tokenizer(
        text for row in sample for text in (row.messages[0]["content"], row.reference or "")
    )
    model: Any = build_model(recipe, tokenizer)
    if start is not None:
        model, tokenizer = cast("tuple[Any, PreTrainedTokenizerFast]", start.load())
    fit_rows(model, tokenizer, rows, block=rows.block, steps=recipe.steps, lr=recipe.lr)
    return model.eval(), tokenizer


def fit_rows(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    rows: Dataset[Question],
    *,
    block: int,
    steps: int,
    lr: float,
) -> None:
    """Train a model on rows once, with two micro-batches of ``block`` rows a step.

    Args:
        model: The model; its weights change.
        tokenizer: Its tokenizer.
        rows: As many rows as the steps need.
        block: Rows of a micro-batch.
        steps: Optimizer steps of the learning-rate schedule.
        lr: Peak learning rate.
    """
    module = ContinuingModule(
        LoadedModel(model, tokenizer),
        optimizer=partial(torch.optim.AdamW, lr=lr, betas=(0.9, 0.98), weight_decay=0.05),
        scheduler=partial(
            OneCycleLR, max_lr=lr, total_steps=steps, pct_start=0.05, cycle_momentum=False
        ),
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[TQDMProgressBar(refresh_rate=20)],
    )
    trainer.fit(module, DataLoader(rows, batch_size=block, collate_fn=QuestionBatch))


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Build a model with random weights and the sizes of a recipe."""
    from transformers import GenerationConfig, LlamaConfig

    ends: dict[str, Any] = {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.width,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            intermediate_size=recipe.feed_forward,
            max_position_embeddings=MAX_TOKENS,
            tie_word_embeddings=True,
            initializer_range=0.05,
            **ends,
        )
    )
    model.generation_config = GenerationConfig(
        do_sample=True, max_new_tokens=MAX_NEW_TOKENS, **ends
    )
    return model
