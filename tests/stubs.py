"""The smallest data module that can judge rollouts, over the lab task, for tests of the module."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from lightning_sd import ArithmeticTask, Distillation, SelfDistillModule, TransformersSampler
from lightning_sd.contexts import TeacherContext
from lightning_sd.models import LoadedModel
from lightning_sd.rollout.engine_sampler import EngineSampler
from lightning_sd.types import QuestionBatch


class LabData(pl.LightningDataModule):
    """Judges and repairs by the task's own rules; questions may carry stored attempts."""

    def __init__(self, batch_size=4, train_size=16, attempts=None):
        super().__init__()
        self.task = ArithmeticTask(train_size=train_size, val_size=8, test_size=8)
        self.batch_size, self.attempts, self.asked = batch_size, attempts, Counter()

    def check(self, needs):
        pass

    def counters(self):
        return {}

    def evidence(self, rollouts, needs):
        self.asked.update(needs)
        return [
            replace(
                rollout,
                verdict=self.task.verify(rollout.question, rollout.text),
                critique=self.task.repair(rollout.question, rollout.text)
                if "critique" in needs
                else None,
            )
            for rollout in rollouts
        ]

    def questions(self, split):
        questions = list(self.task.questions(split))
        if self.attempts is not None:
            questions = [
                replace(question, attempt=self.attempts[i % len(self.attempts)])
                for i, question in enumerate(questions)
            ]
        return questions

    def _loader(self, split):
        return DataLoader(
            self.questions(split), batch_size=self.batch_size, collate_fn=QuestionBatch
        )

    def train_dataloader(self):
        return self._loader("train")

    def val_dataloader(self):
        return self._loader("val")

    def test_dataloader(self):
        return self._loader("test")

    def predict_dataloader(self):
        return self._loader("test")


class SameAsStudent(TeacherContext):
    """The teacher sees what the student sees."""

    template = "{question}"

    def fields(self, rollout):
        return {}


@dataclass(frozen=True)
class CopySampler(EngineSampler):
    """Its engine holds a copy of the student, as vLLM does."""

    engine: dict[str, Any] = field(init=False, default_factory=dict)
    lock: Any = field(init=False, default_factory=threading.Lock)

    def get_lock(self, model):
        return self.lock

    def sync(self, model):
        self.engine["model"] = copy.deepcopy(model)
        return True

    def draw(self, model, prompts, **settings):
        self.engine["threads"] = [*self.engine.get("threads", []), threading.current_thread().name]
        sampler = TransformersSampler(self.max_new_tokens, self.temperature)
        return sampler.sample(self.engine["model"], prompts, **settings)


def module(model, tokenizer, **kwargs):
    """A module that takes few and short samples, trained by SGD (its step is the gradient)."""
    settings = {
        "objective": Distillation(),
        "sampler": TransformersSampler(max_new_tokens=12),
        "samples": 2,
        "eval_samples": 2,
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        "seed": 3,
    }
    settings.update(kwargs)
    # Samplers made for a test may return log-probabilities that no model has.
    real = type(settings["sampler"]) is TransformersSampler
    return SelfDistillModule(
        LoadedModel(model, tokenizer), **{"check_every": 100 if real else 0, **settings}
    )


def trainer(tmp_path, *callbacks, **kwargs):
    """A silent trainer on the CPU."""
    settings = {
        "accelerator": "cpu",
        "devices": 1,
        "max_steps": 2,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "default_root_dir": tmp_path,
    }
    return pl.Trainer(callbacks=list(callbacks), **{**settings, **kwargs})


def weights(model):
    """A copy of all parameters."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def equal(a, b):
    """Whether two copies agree to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
