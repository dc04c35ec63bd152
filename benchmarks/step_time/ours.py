"""Measure our training step.

    python -m benchmarks.step_time.ours --shape random32k --loss js

The package is not instrumented: this script wraps its methods. The forward passes of student and
teacher end at the hidden states; both heads and the gradients of the student's head are in
``loss``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch

import lightning_sd.modules.self_distill as module_file
from benchmarks.step_time.clock import (
    Clock,
    by_grad_mode,
    emit,
    peak_mib,
    read_clock,
    set_threads,
)
from benchmarks.step_time.shapes import (
    Context,
    Shape,
    add_arguments,
    chosen,
    load_model,
    load_tokenizer,
    text,
)
from lightning_sd.contexts.base import TeacherContext
from lightning_sd.data import CritiqueDataModule
from lightning_sd.models import LoadedModel
from lightning_sd.modules.rollout_scorer import RolloutScorer
from lightning_sd.modules.self_distill import SelfDistillModule
from lightning_sd.objectives import Distillation, Objective, SampledToken
from lightning_sd.objectives.reduce import LossOutput
from lightning_sd.rollout import TransformersSampler
from lightning_sd.tasks.base import Split, Task
from lightning_sd.types import Message, Question, Rollout, Verdict, link_siblings

LOSSES: dict[str, Objective] = {
    "js": Distillation(kind="js", beta=0.5),
    "forward_kl": Distillation(kind="forward_kl"),
    "reverse_kl": Distillation(kind="reverse_kl"),
    "top100_js": Distillation(kind="js", beta=0.5, top_k=100),
    "sampled": SampledToken(),
}
LEARNING_RATE = 1e-5
CLIP = 1.0
"""Maximum gradient norm: transformers' default, so that both sides clip."""


class Words(Task):
    """Questions of random words; every answer is right."""

    def __init__(self, shape: Shape, number: int) -> None:
        self.shape, self.number = shape, number

    def questions(self, split: Split) -> Sequence[Question]:
        words = self.shape.context_words("column")
        return [
            Question(
                str(i),
                asked := text(self.shape, self.shape.prompt, "question", i),
                (Message(role="user", content=asked),),
                extra={"column": text(self.shape, words, "context", i)},
            )
            for i in range(self.number)
        ]

    def verify(self, question: Question, completion: str) -> Verdict:
        return Verdict(1.0, True)


class WordsForTeacher(TeacherContext):
    """A view of the required length for every rollout.

    Args:
        shape: Sizes of the benchmark.
        kind: Source of the words.
    """

    template = "{question} {context}"

    def __init__(self, shape: Shape, kind: Context) -> None:
        super().__init__("{question}" if kind == "same" else None)
        self.shape, self.kind = shape, kind
        self.tail = text(shape, shape.context_words(kind), "tail") if kind == "sibling" else ""

    def fields(self, rollout: Rollout) -> Mapping[str, str]:
        if self.kind == "sibling":
            right = next(s for s in rollout.siblings if s.verdict and s.verdict.correct)
            return {"context": f"{right.text} {self.tail}"}
        if self.kind == "own":
            return {"context": text(self.shape, self.shape.context_words("own"), rollout.ids)}
        return {"context": rollout.question.extra["column"]} if self.kind == "column" else {}


class Watch(pl.Callback):
    """End steps at Lightning's hook, and time backward pass and optimizer between hooks."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.begun = clock, 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.optimizers[0].register_step_post_hook(lambda *_: self._stop("optimizer"))
        self.clock.start()

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        self.begun = read_clock()

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        self._stop("backward")

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.begun = read_clock()

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.clock.step_done()

    def _stop(self, phase: str) -> None:
        self.clock.add(phase, read_clock() - self.begun)


def make_module(shape: Shape, loss: str, model: Any) -> SelfDistillModule:
    return SelfDistillModule(
        model=LoadedModel(model, load_tokenizer(shape)),
        objective=LOSSES[loss],
        sampler=TransformersSampler(max_new_tokens=shape.completion),
        samples=shape.samples,
        optimizer=lambda p: torch.optim.AdamW(p, LEARNING_RATE, weight_decay=0.0, fused=True),
        seed=0,
    )


def compute_loss(
    module: SelfDistillModule, rollouts: Sequence[Rollout], kind: Context, shape: Shape
) -> LossOutput:
    """Compute the loss of given rollouts outside of a training."""
    module.trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    views = WordsForTeacher(shape, kind).views(rollouts)
    scored = module.rollout_scorer.score(rollouts, views, module.inputs)
    return module.compute_loss(scored, module.make_token_inputs(scored))


def make_rollouts(
    module: SelfDistillModule, shape: Shape, completions: Sequence[Sequence[int]]
) -> list[Rollout]:
    """Turn completions into judged rollouts with siblings; rows of a group are adjacent."""
    task = Words(shape, shape.prompts)
    questions = task.questions("train")
    rollouts = []
    for row, ids in enumerate(completions):
        group = row // shape.samples
        words, question = module.tokenizer.decode(ids), questions[group]
        verdict = task.verify(question, words)
        rollouts.append(Rollout(question, tuple(ids), words, group, verdict=verdict))
    return link_siblings(rollouts)


def instrument(module: SelfDistillModule, clock: Clock, seen: dict[str, int]) -> None:
    """Wrap the phases; ``seen`` collects the actual lengths."""
    found: Any = module
    found.sample = clock.wrap(module.sample, "rollout")
    shared: Any = RolloutScorer
    shared._score_view = clock.wrap(shared._score_view, "teacher")
    module_file.compute_loss = clock.wrap(module_file.compute_loss, "loss")
    ready = module.on_student_ready

    def watch_scorer() -> None:
        ready()
        scorer: Any = module.rollout_scorer.scorer
        score = scorer.score

        def record_score(prompts: Sequence[Any], completions: Sequence[Any]) -> Any:
            who = by_grad_mode()
            seen[f"{who}_prompt"] = max(map(len, prompts))
            seen["shortest"] = min(seen.get("shortest", 10**9), *map(len, completions))
            seen["active"] = len(prompts)
            return score(prompts, completions)

        scorer.score = clock.wrap(record_score, by_grad_mode)

    found.on_student_ready = watch_scorer


def measure(
    shape: Shape,
    loss: str,
    kind: Context,
    warm_up: int,
    counted: int,
    *callbacks: pl.Callback,
    checkpointing: bool = False,
) -> dict[str, Any]:
    """Train ``warm_up + counted`` steps and return the measurements of the last ones."""
    clock, seen, steps = Clock(), dict[str, int](), warm_up + counted
    model = load_model(shape)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    module = make_module(shape, loss, model)
    instrument(module, clock, seen)
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=CLIP,
        callbacks=[WordsForTeacher(shape, kind), Watch(clock), *callbacks],
        limit_val_batches=0,
        num_sanity_val_steps=0,
    )
    data = CritiqueDataModule(Words(shape, shape.prompts * steps), batch_size=shape.prompts)
    before = peak_mib()
    trainer.fit(module, datamodule=data)
    return {**clock.result(warm_up, shape.tokens), "before_mib": round(before, 1), "seen": seen}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--loss", default="js", choices=list(LOSSES))
    parser.add_argument(
        "--context", default="sibling", choices=["sibling", "column", "own", "same"]
    )
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations")
    args = parser.parse_args()
    set_threads()
    shape, sizes = chosen(args), (args.warm_up, args.steps)
    emit(measure(shape, args.loss, args.context, *sizes, checkpointing=args.checkpointing))


if __name__ == "__main__":
    main()
