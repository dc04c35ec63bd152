"""RLCSD, its plug-ins, RLSD and SRPO in the module: empty batches, resuming, two ranks."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_sd import ReferenceSolution, SelfDistillModule, SnapshotTeacher
from lightning_sd.contexts import ContrastiveHints, SiblingDemonstration
from lightning_sd.models import LoadedModel
from lightning_sd.objectives import (
    ContrastiveDistillation,
    ContrastivePolicy,
    RoutedPolicy,
    SignAnchoredPolicy,
)
from lightning_sd.types import Rollout
from tests.stubs import LabData, equal, trainer, weights

METHODS = {
    "rlcsd": (ContrastiveHints, ContrastivePolicy()),
    "rlcsd_rollouts": (ContrastiveHints, ContrastivePolicy(reduction="sequence")),
    "rlcsd_reference": (partial(ContrastiveHints, hint="reference"), ContrastivePolicy()),
    "rlsd": (ReferenceSolution, SignAnchoredPolicy()),
    "rlsd_contrast": (ContrastiveHints, SignAnchoredPolicy(contrast=True)),
    "srpo": (SiblingDemonstration, RoutedPolicy()),
    "opsd_contrast": (ContrastiveHints, ContrastiveDistillation()),
}
PATTERNS = {
    # r right, w wrong, u wrong without an answer, e nothing but the end of turn, n nothing at all.
    "right": "rrrr",
    "wrong": "wwww",
    "one": "r",
    "empty": "nnnn",
    "end": "eeee",
    "unanswered": "uuuu",
}


class Scripted(SelfDistillModule):
    """Answers what the test says, of other lengths in every question."""

    def script(self, patterns):
        self.patterns = patterns
        return self

    def sample(self, questions, sampler, samples, stage, index):
        return [
            self.rollout(question, group, kind, k)
            for group, question in enumerate(questions)
            for k, kind in enumerate(self.pattern(question))
        ]

    def pattern(self, question):
        return self.patterns[self.number(question) % len(self.patterns)]

    def number(self, question):
        return sum(map(ord, question.id))

    def rollout(self, question, group, kind, k):
        wrong = (int(question.answer) + 1 + k) % 10
        answer = question.answer if kind == "r" else str(wrong)
        steps = "".join(
            f"<step_{i}>{k}*{i}</step_{i}>" for i in range(1, 2 + (k + self.number(question)) % 3)
        )
        text = f"{steps}<answer>{answer}</answer>"
        text = {"u": steps, "e": "", "n": ""}.get(kind, text)
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        ids = ids if kind == "n" else [*ids, self.tokenizer.eos_token_id]
        return Rollout(question, tuple(ids), text, group)


class OwnCopy(LoadedModel):
    """Spawned processes would share the tensors that they are handed, and step them twice."""

    def load(self):
        model, tokenizer = super().load()
        return copy.deepcopy(model), tokenizer


def scripted(model, tokenizer, patterns, **kwargs):
    settings = {
        "optimizer": partial(torch.optim.SGD, lr=0.1),
        "teacher": SnapshotTeacher(3),
        "seed": 3,
    }
    return Scripted(OwnCopy(model, tokenizer), **{**settings, **kwargs}).script(patterns)


class Trace(Callback):
    def __init__(self):
        self.losses, self.grads = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        named = pl_module.student.named_parameters()
        self.grads.append({n: p.grad.clone() for n, p in named if p.grad is not None})


@pytest.mark.parametrize("method", METHODS)
def test_a_mixed_batch_teaches(make_llama, tokenizer, tmp_path, method):
    context, objective = METHODS[method]
    trace = Trace()
    student = scripted(make_llama(), tokenizer, ["rrww", "rwrww"], objective=objective)
    run = trainer(tmp_path, context(), trace, max_steps=1)
    run.fit(student, datamodule=LabData())
    assert run.callback_metrics["train/has_teacher"] == 1
    assert run.callback_metrics["train/silent"] == 0
    assert all(g.isfinite().all() for g in trace.grads[0].values())
    assert any(g.any() for g in trace.grads[0].values())


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("method", METHODS)
def test_batches_with_nothing_to_learn(make_llama, tokenizer, tmp_path, method, pattern):
    context, objective = METHODS[method]
    if (method, pattern) == ("srpo", "right"):
        objective = RoutedPolicy(route="correct")  # by advantage they are distilled, as in the code
    trace = Trace()
    student = scripted(make_llama(), tokenizer, [PATTERNS[pattern]], objective=objective)
    student.configure_model()
    before = weights(student.student)
    run = trainer(tmp_path, context(), trace, max_steps=1)
    run.fit(student, datamodule=LabData())
    assert trace.losses == [0.0]
    assert trace.grads[0].keys() == before.keys()
    assert all((g == 0).all() for g in trace.grads[0].values())
    assert equal(before, weights(student.student))
    if (method, pattern) != ("srpo", "right"):
        assert run.callback_metrics["train/silent"] == 1


@pytest.mark.parametrize("method", METHODS)
def test_no_context_at_all(make_llama, tokenizer, tmp_path, method):
    _, objective = METHODS[method]

    class Nobody(ReferenceSolution):
        def fields(self, rollout):
            return None

    trace = Trace()
    student = scripted(make_llama(), tokenizer, ["rrww"], objective=objective)
    run = trainer(tmp_path, Nobody(), trace, max_steps=1)
    run.fit(student, datamodule=LabData())
    grads = trace.grads[0].values()
    assert all(g.isfinite().all() for g in grads)
    if method == "srpo":  # left to its policy gradient
        assert any(g.any() for g in grads)
    else:
        assert trace.losses == [0.0]
        assert run.callback_metrics["train/silent"] == 1


@pytest.mark.parametrize("method", ["rlcsd", "rlsd", "opsd_contrast"])
def test_a_resumed_run_has_the_losses_of_the_unbroken_one(make_llama, tokenizer, tmp_path, method):
    """Broken off after 4 steps: the snapshot is of step 3 and the student of step 4."""
    context, objective = METHODS[method]

    def student():
        return scripted(
            make_llama(dtype=torch.float64),
            tokenizer,
            ["rrww", "rwrww"],
            objective=objective,
            optimizer=partial(torch.optim.AdamW, lr=1e-3),
        )

    def fit(model, skipped, steps, *callbacks, **kwargs):
        data, trace = LabData(batch_size=2), Trace()
        rest = data.questions("train")[2 * skipped :]
        data.questions = lambda split: rest if split == "train" else []
        run = trainer(
            tmp_path, context(), trace, *callbacks, max_steps=steps, max_epochs=2, **kwargs
        )
        run.fit(model, datamodule=data, ckpt_path=tmp_path / "last.ckpt" if skipped else None)
        return trace.losses

    unbroken, first, second = student(), student(), student()
    losses = fit(unbroken, 0, 8)
    saver = ModelCheckpoint(dirpath=tmp_path, save_last=True, every_n_train_steps=4)
    begun = fit(first, 0, 4, saver, enable_checkpointing=True)
    resumed = fit(second, 4, 8)
    assert begun + resumed == losses
    assert len(set(losses)) == 8
    assert equal(weights(unbroken.student), weights(second.student))


class SavesWeights(Callback):
    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        state = {"weights": weights(pl_module.student)}
        state["loss"] = trainer.callback_metrics["train/loss"].item()
        torch.save(state, self.folder / f"{trainer.global_rank}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rlcsd", "rlsd_contrast", "srpo", "opsd_contrast"])
def test_two_processes_make_the_step_of_one(make_llama, tokenizer, tmp_path, method):
    """Ranks get questions with other numbers of answers, tokens and moved tokens; some none."""
    context, objective = METHODS[method]
    patterns = ["rrww", "rwrwwwr", "rrrr", "wrr", "www"]
    states = []
    for devices in (1, 2):
        student = scripted(
            make_llama(dtype=torch.float64), tokenizer, patterns, objective=objective
        )
        folder = tmp_path / str(devices)
        folder.mkdir()
        options = {"devices": 2, "strategy": "ddp_spawn"} if devices == 2 else {}
        run = trainer(tmp_path, context(), SavesWeights(folder), max_steps=1, **options)
        # All questions there are, since Lightning shuffles those of several ranks.
        run.fit(student, datamodule=LabData(batch_size=8 // devices, train_size=8))
        states += [torch.load(path, weights_only=True) for path in sorted(folder.glob("*.pt"))]
    alone, *ranks = states
    assert len(ranks) == 2
    for rank in ranks:
        assert rank["loss"] == pytest.approx(alone["loss"], rel=1e-6)
        for name, value in alone["weights"].items():
            torch.testing.assert_close(rank["weights"][name], value, rtol=1e-9, atol=1e-11)
