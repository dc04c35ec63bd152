"""Train a tiny solver that answers poorly without help and reads rubrics well; save it.

    python -m benchmarks.methods.rcsd.prepare

The weights are not committed: configs/rcsd.yaml and rcsd_rubrics.yaml read them from
``out/rcsd/model``.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import TQDMProgressBar
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader

from benchmarks.methods.rcsd.rows import Rows, analysis, rubric_of, texts
from benchmarks.methods.rcsd.wording import (
    ANALYZE,
    ANSWER,
    CONDITIONED,
    DESIGN,
    DESIGN_WITH_RUBRIC,
    REFERENCE,
)
from lightning_sd.lab.creature_facts import Fact, read_facts
from lightning_sd.lab.creature_task import CreatureTask
from lightning_sd.lab.recipe.evaluate import Solver
from lightning_sd.lab.recipe.train import ContinuingModule
from lightning_sd.lab.recipe.vocabulary import MAX_TOKENS, build_tokenizer
from lightning_sd.models import LoadedModel
from lightning_sd.tasks.rubric_writing import RubricWritingTask
from lightning_sd.types import Message, Question, QuestionBatch

FOLDER = Path("out/rcsd/model")


def new_model(tokenizer: Any, *, width: int, layers: int) -> Any:
    """Build a random Llama for a vocabulary."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    ends: dict[str, Any] = {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * width,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
        initializer_range=0.05,
        **ends,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(**ends)
    return model


def teach(model: Any, tokenizer: Any, rows: Rows, *, steps: int, lr: float) -> None:
    """Train on the rows' targets by next-token prediction, in place."""
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
        accumulate_grad_batches=len(rows) // steps // rows.block,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[TQDMProgressBar(refresh_rate=100)],
    )
    trainer.fit(module, DataLoader(rows, batch_size=rows.block, collate_fn=QuestionBatch))


def measure(model: Any, tokenizer: Any, task: CreatureTask) -> dict[str, float]:
    """Measure the solver on validation questions, 8 answers each at temperature 1."""
    solver = Solver(model.eval(), tokenizer, torch.Generator().manual_seed(0))
    questions = task.questions("val")
    design = RubricWritingTask(task, DESIGN)
    designs = design.questions("val")
    found = {}
    for name, prompts in _prompts(questions, designs).items():
        judge, asked = (design, designs) if name.startswith("rubric") else (task, questions)
        answers = solver.sample_answers(prompts, 8)
        verdicts = [
            judge.verify(question, text)
            for question, some in zip(asked, answers, strict=True)
            for text in some
        ]
        found[f"{name}: reward"] = sum(v.reward for v in verdicts) / len(verdicts)
        found[f"{name}: right"] = sum(v.correct for v in verdicts) / len(verdicts)
    return found


def _prompts(questions: Any, designs: Any) -> dict[str, list[tuple[Message, ...]]]:
    def given(question: Question, request: str) -> str:
        return CONDITIONED.format(
            question=question.text, rubric=rubric_of(question), request=request
        )

    def thought(question: Question) -> tuple[Message, ...]:
        facts = read_facts(question.reference or "")
        wrong = read_facts(_error(question))[0]
        turns = [given(question, ANALYZE), analysis(facts, Fact(*wrong)), ANSWER]
        roles = ("user", "assistant", "user")
        return tuple(Message(role=r, content=t) for r, t in zip(roles, turns, strict=True))

    def user(text: str) -> tuple[Message, ...]:
        return (Message(role="user", content=text),)

    return {
        "alone": [q.messages for q in questions],
        "with rubric": [user(given(q, ANSWER)) for q in questions],
        "with rubric and analysis": [thought(q) for q in questions],
        "with reference": [
            user(REFERENCE.format(question=q.text, reference=q.reference)) for q in questions
        ],
        "rubric written alone": [q.messages for q in designs],
        "rubric written with target": [
            user(DESIGN_WITH_RUBRIC.format(question=q.text, rubric=rubric_of(q))) for q in designs
        ],
    }


def _error(question: Question) -> str:
    text = question.extra["rubric"][-1]["description"].removeprefix("Says that ")
    return str(text[0].upper() + text[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--block", type=int, default=16, help="rows per micro-batch")
    parser.add_argument("--micro", type=int, default=3, help="micro-batches per step")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    args = parser.parse_args()
    seed_everything(args.seed)
    rows = Rows(args.steps * args.micro * args.block, args.block, args.seed)
    tokenizer = build_tokenizer(texts([rows[i] for i in range(1200)]))
    model = new_model(tokenizer, width=args.width, layers=args.layers)
    start = time.perf_counter()
    teach(model, tokenizer, rows, steps=args.steps, lr=args.lr)
    minutes = (time.perf_counter() - start) / 60
    model.save_pretrained(args.folder)
    tokenizer.save_pretrained(args.folder)
    found = {"minutes": minutes, "parameters": sum(p.numel() for p in model.parameters())}
    found |= measure(model, tokenizer, CreatureTask())
    print(json.dumps(found, indent=1))
    (args.folder / "measured.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
