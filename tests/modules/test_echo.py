"""EchoDistill in training: a tiny Qwen2-Audio that hears digits in noise."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from benchmarks.methods.echodistill.model import audio_model, audio_processor, texts
from lightning_sd.cli.main import main
from lightning_sd.contexts import CleanInput
from lightning_sd.data import CritiqueDataModule
from lightning_sd.lab.spoken_digits import SpokenDigitsTask
from lightning_sd.models import LoadedModel
from lightning_sd.models.media import collect_media_inputs
from lightning_sd.modules.self_distill import SelfDistillModule
from lightning_sd.objectives import Distillation, EchoDistill
from lightning_sd.rollout import TransformersSampler
from lightning_sd.tasks.base import Task
from lightning_sd.types import Rollout, Verdict
from tests.cli.test_configs import CONFIGS, TINY
from tests.reference import echo as slow
from tests.stubs import equal, trainer, weights


class Unbiased(Task):
    """Spoken digits, judged by the first token, so that a model that knows nothing is rewarded."""

    def __init__(self, reward: float | None = None, clean: bool = False) -> None:
        self.inner = SpokenDigitsTask(train_size=8, val_size=1, test_size=1, clean=clean)
        self.reward = reward

    def questions(self, split: Any) -> Any:
        return self.inner.questions(split)

    def verify(self, question: Any, completion: str) -> Verdict:
        reward = (len(completion) % 3) - 1.0 if self.reward is None else self.reward
        return Verdict(reward, reward > 0)


@pytest.fixture(scope="module")
def processor() -> Any:
    return audio_processor(texts(SpokenDigitsTask(train_size=8).questions("train")[:]))


@pytest.fixture
def model(processor: Any) -> Any:
    return audio_model(processor, width=32, layers=1, spread=0.3, seed=2)


def module(model: Any, processor: Any, **settings: Any) -> SelfDistillModule:
    defaults = {
        "objective": EchoDistill(),
        "sampler": TransformersSampler(max_new_tokens=6),
        "samples": 4,
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.002),
        "seed": 3,
    }
    return SelfDistillModule(LoadedModel(model, processor), **{**defaults, **settings})


def data(task: Task | None = None) -> CritiqueDataModule:
    return CritiqueDataModule(task or Unbiased(), batch_size=2)


class Steps(Callback):
    """What each step did."""

    def __init__(self) -> None:
        self.reports: list[Any] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.reports.append(outputs["step"])
        loss = trainer.callback_metrics.get("train/loss")  # none is logged if nothing counted
        self.losses.append(float("nan") if loss is None else loss.item())


def logits(model: Any, module: Any, messages: Any, ids: Any) -> torch.Tensor:
    prompt = module.encode(messages)
    row = torch.tensor([[*prompt, *ids]])
    found = model(input_ids=row, **collect_media_inputs([prompt], row.device)).logits[0]
    return found[len(prompt) - 1 : len(prompt) - 1 + len(ids)].double()


def by_formula(model: Any, module: Any, report: Any) -> float:
    """The slow loop over what the model says of each text, one row at a time."""
    with torch.no_grad():
        rows = [
            slow.Text(
                rollout.group,
                logits(model, module, rollout.question.messages, rollout.ids),
                logits(model, module, view.messages, rollout.ids),
                rollout.ids,
                rollout.verdict.reward if rollout.verdict else 0.0,
                rollout.origin == "teacher",
            )
            for rollout, view in zip(report.rollouts, report.views, strict=True)
        ]
        return float(slow.loss(rows))


def test_a_step_s_loss_is_the_formula_s(model: Any, processor: Any, tmp_path: Any) -> None:
    first, steps, own = copy.deepcopy(model), Steps(), module(model, processor)
    fit = trainer(tmp_path, CleanInput(max_new_tokens=6), steps, max_steps=1)
    fit.fit(own, data())
    report = steps.reports[0]
    assert len(report.rollouts) == 2 * 4 + 2
    assert {r.verdict.reward for r in report.rollouts if r.verdict} > {-1.0}
    assert steps.losses[0] == pytest.approx(by_formula(first, own, report), rel=1e-3)
    tower = "model.audio_tower.conv1.weight"
    assert not torch.equal(weights(own.student)[tower], weights(first)[tower])


def test_the_teacher_s_text_is_its_greedy_answer_to_the_clean_sound(
    model: Any, processor: Any, tmp_path: Any
) -> None:
    """Also after the student has moved, and in a later epoch."""
    first, steps, own = copy.deepcopy(model).eval(), Steps(), module(model, processor)
    context = CleanInput(max_new_tokens=6)
    fit = trainer(tmp_path, context, steps, max_steps=6, max_epochs=-1, gradient_clip_val=1.0)
    fit.fit(own, data())
    written = [
        (rollout, view)
        for report in steps.reports
        for rollout, view in zip(report.rollouts, report.views, strict=True)
        if rollout.origin == "teacher"
    ]
    assert len(written) == 12
    assert len(context.state_dict()["texts"]) == 8
    for rollout, view in written:
        prompt = own.encode(view.messages)
        row = torch.tensor([list(prompt)])
        expected = first.generate(
            input_ids=row,
            attention_mask=torch.ones_like(row),
            **collect_media_inputs([prompt], row.device),
            max_new_tokens=6,
            do_sample=False,
        )
        assert list(rollout.ids) == expected[0, len(prompt) :].tolist()


def test_resume_equals_the_unbroken_run(processor: Any, tmp_path: Any) -> None:
    def student() -> Any:
        return audio_model(processor, width=32, layers=1, spread=0.3, seed=2)

    def run(steps: int, path: Any = None) -> Any:
        own = module(student(), processor)
        saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
        fit = trainer(
            tmp_path,
            CleanInput(max_new_tokens=6),
            saver,
            max_steps=steps,
            max_epochs=-1,
            enable_checkpointing=True,
            gradient_clip_val=1.0,
        )
        fit.fit(own, data(), ckpt_path=path)
        return weights(own.student)

    unbroken = run(6)
    run(3)
    assert equal(unbroken, run(6, tmp_path / "step=3.ckpt"))


def test_clean_students_with_their_own_weights_have_nothing_to_distil(
    model: Any, processor: Any, tmp_path: Any
) -> None:
    """Teacher and student hear the same, and no answer is better than another: no gradient."""
    before, own, steps = weights(model), module(model, processor), Steps()
    fit = trainer(tmp_path, CleanInput(max_new_tokens=6), steps, max_steps=1)
    fit.fit(own, data(Unbiased(1.0, clean=True)))
    assert steps.losses[0] == pytest.approx(0.0, abs=1e-6)
    after = weights(own.student)
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)


def test_the_on_policy_variant_scores_the_student_s_samples(
    model: Any, processor: Any, tmp_path: Any
) -> None:
    steps, own = Steps(), module(model, processor, objective=Distillation(kind="js"))
    fit = trainer(tmp_path, CleanInput(teacher_text=False), steps, max_steps=2)
    fit.fit(own, data())
    assert all(r.origin == "student" for report in steps.reports for r in report.rollouts)
    assert all(0 < loss < 0.7 for loss in steps.losses)


@pytest.mark.parametrize("method", [None, "echodistill_onpolicy", "grpo"])
def test_configs_train(processor: Any, tmp_path: Any, monkeypatch: Any, method: str | None) -> None:
    monkeypatch.chdir(tmp_path)
    student = audio_model(processor, width=32, layers=1, spread=0.3, seed=2)
    student.save_pretrained("out/echodistill/model")
    processor.save_pretrained("out/echodistill/model")
    files = [CONFIGS / f"{name}.yaml" for name in ("echodistill", method) if name]
    words = [word for file in files for word in ("--config", str(file))]
    cli = main(["fit", *words, *TINY, "--data.init_args.task.init_args.train_size=8"])
    assert cli.trainer.global_step == 1
    metrics = cli.trainer.callback_metrics
    assert metrics["train/silent"] == 1 or metrics["train/loss"].isfinite()


def spoilt(kind: str, rollouts: list[Rollout]) -> list[Rollout]:
    if kind == "empty":
        return [replace(r, ids=(), text="") for r in rollouts]
    if kind == "some empty":
        return [replace(r, ids=() if i % 2 else r.ids) for i, r in enumerate(rollouts)]
    if kind == "eos":
        return [replace(r, ids=(1,), text="") for r in rollouts]
    if kind == "no clean":
        bare = [replace(r.question, extra={}) for r in rollouts]
        return [replace(r, question=q) for r, q in zip(rollouts, bare, strict=True)]
    return rollouts


@pytest.mark.parametrize("objective", [EchoDistill(), Distillation(kind="reverse_kl")], ids=type)
@pytest.mark.parametrize(
    ("kind", "samples", "reward"),
    [
        ("empty", 2, None),
        ("some empty", 2, None),
        ("eos", 2, None),
        ("no clean", 2, None),
        ("as sampled", 1, None),
        ("as sampled", 2, 1.0),
        ("as sampled", 2, -1.0),
    ],
)
def test_degenerate_batches_train_without_nan(
    model: Any,
    processor: Any,
    tmp_path: Any,
    kind: str,
    samples: int,
    reward: float | None,
    objective: Any,
) -> None:
    class Spoilt(SelfDistillModule):
        def sample(self, *args: Any) -> Any:
            return spoilt(kind, super().sample(*args))

    text = isinstance(objective, EchoDistill)
    own = Spoilt(
        LoadedModel(model, processor),
        objective=objective,
        sampler=TransformersSampler(max_new_tokens=6),
        samples=samples,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.002),
        seed=3,
        check_every=0,
    )
    steps = Steps()
    fit = trainer(tmp_path, CleanInput(text, max_new_tokens=6), steps, max_steps=1)
    fit.fit(own, data(Unbiased(reward)))
    silent = kind == "no clean" or (kind == "empty" and not text)
    assert fit.callback_metrics["train/silent"].item() == float(silent)
    if not silent:
        assert torch.isfinite(torch.tensor(steps.losses)).all()
    assert all(p.isfinite().all() for p in own.student.parameters())
