"""The module end to end on tiny models: what goes silently wrong in such trainers must not here."""

from __future__ import annotations

import copy
import weakref
from dataclasses import replace
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_sd import (
    Distillation,
    EMATeacher,
    FrozenTeacher,
    LiveTeacher,
    LoRA,
    NoContext,
    PolicyGradient,
    ReferenceSolution,
    SelfDistillModule,
    SnapshotTeacher,
    StepAlignedCritique,
    TransformersSampler,
    TrustRegionTeacher,
)
from lightning_sd.models.chat import encode_prompt
from lightning_sd.models.lora import add_lora
from lightning_sd.modules.rollout_scorer import RolloutScorer
from lightning_sd.types import QuestionBatch, Rollout
from tests.stubs import LabData, SameAsStudent, equal, module, trainer, weights

ATTEMPTS = [
    "<step_1>1+1=2</step_1><answer>2</answer>",
    "<step_1>so 1+1=3</step_1><step_2>3*3=9</step_2><answer>9</answer>",
    "7",
    "<step_1>9-1 is 8</step_1>",
]


class GradRecorder(Callback):
    """Keeps the gradients that the optimizer reads."""

    def __init__(self):
        self.grads = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        named = pl_module.student.named_parameters()
        self.grads.append({n: p.grad.clone() for n, p in named if p.grad is not None})


class ModeRecorder(Callback):
    def __init__(self):
        self.training = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.training.append(all(m.training for m in pl_module.student.modules()))


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "js"])
@pytest.mark.parametrize("top_k", [None, 5])
def test_teacher_with_students_prompt_and_weights_gives_exactly_zero(
    make_llama, tokenizer, tmp_path, kind, top_k
):
    grads = GradRecorder()
    student = module(
        make_llama(),
        tokenizer,
        teacher=LiveTeacher(),
        objective=Distillation(kind=kind, top_k=top_k),
    )
    run = trainer(tmp_path, SameAsStudent(), grads, max_steps=1)
    run.fit(student, datamodule=LabData())
    assert run.callback_metrics["train/loss"] == 0.0
    # GlobalMean scales the gradients after callbacks saw them; zero stays zero.
    assert all((g == 0).all() for g in grads.grads[0].values())


class ScoresRecorder(Callback):
    """Counts the hidden states of student and teacher that are held after a backward pass."""

    def __init__(self):
        self.held = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        scorer, self.references = pl_module.rollout_scorer, []

        def score(*args):
            scored = RolloutScorer.score(scorer, *args)
            both = (scored.student, scored.teacher)
            self.references += [weakref.ref(scores.hidden) for scores in both]
            return scored

        object.__setattr__(scorer, "score", score)

    def on_after_backward(self, trainer, pl_module):
        self.held.append([reference() is not None for reference in self.references])


def test_scores_are_freed_before_the_next_micro_batch(make_llama, tokenizer, tmp_path):
    recorder = ScoresRecorder()
    run = trainer(tmp_path, ReferenceSolution(), recorder, accumulate_grad_batches=2, max_steps=1)
    run.fit(module(make_llama(), tokenizer, teacher=EMATeacher()), datamodule=LabData())
    assert recorder.held == [[False, False]] * 2


def test_another_prompt_gives_a_loss(make_llama, tokenizer, tmp_path):
    run = trainer(tmp_path, ReferenceSolution(), max_steps=1)
    run.fit(module(make_llama(), tokenizer, teacher=LiveTeacher()), datamodule=LabData())
    assert run.callback_metrics["train/loss"] > 0.01


@pytest.mark.parametrize("reduction", ["token", "sequence"])
@pytest.mark.parametrize(
    ("objective", "context"),
    [
        (Distillation(), StepAlignedCritique()),
        (Distillation(kind="js", top_k=7), ReferenceSolution()),
        (PolicyGradient(scale="none"), NoContext()),
    ],
)
@pytest.mark.parametrize("sizes", [(1, 8), (2, 4), (4, 2)])
def test_accumulation_equals_one_batch(
    make_llama, tokenizer, tmp_path, objective, context, sizes, reduction
):
    """8 ragged rows as micro-batches of 1, 2, 4 move the weights as one batch of 8 does."""
    objective = replace(objective, reduction=reduction)
    moved = []
    for batch_size, accumulate in (sizes, (8, 1)):
        student = module(
            make_llama(dtype=torch.float64), tokenizer, objective=objective, attempts="stored"
        )
        data = LabData(batch_size=batch_size, attempts=ATTEMPTS)
        if isinstance(objective, PolicyGradient):
            # A group of one has no advantage: give each rollout its own.
            student.objective = _Rewarded(reduction=reduction)
        run = trainer(
            tmp_path, copy.deepcopy(context), accumulate_grad_batches=accumulate, max_steps=1
        )
        run.fit(student, datamodule=data)
        moved.append((weights(student.student), run.callback_metrics["train/loss"]))
    for name, value in moved[0][0].items():
        torch.testing.assert_close(value, moved[1][0][name], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(moved[0][1], moved[1][1], rtol=1e-6, atol=1e-8)


class _Rewarded(PolicyGradient):
    def compute_advantages(self, rewards, groups):
        return rewards - 0.25


def test_rows_without_teacher_neither_count_nor_are_scored(make_llama, tokenizer, tmp_path):
    class EveryOther(ReferenceSolution):
        def views(self, rollouts):
            views = super().views(rollouts)
            return [view if i % 2 == 0 else None for i, view in enumerate(views)]

    metrics = []
    for context, rows in ((EveryOther(), 8), (ReferenceSolution(), 8)):
        student = module(make_llama(dtype=torch.float64), tokenizer, attempts="stored")
        data = LabData(batch_size=rows, attempts=ATTEMPTS)
        if isinstance(context, EveryOther):
            run = trainer(tmp_path, context, max_steps=1)
        else:
            kept = data.questions("train")[:8:2]
            data.questions = lambda split, kept=kept: kept
            run = trainer(tmp_path, context, max_steps=1)
        run.fit(student, datamodule=data)
        metrics.append((dict(run.callback_metrics), weights(student.student)))
    assert metrics[0][0]["train/has_teacher"] == 0.5
    torch.testing.assert_close(metrics[0][0]["train/loss"], metrics[1][0]["train/loss"])
    for name, value in metrics[0][1].items():
        torch.testing.assert_close(value, metrics[1][1][name], rtol=1e-9, atol=1e-11)


def test_no_teacher_at_all_is_a_zero_with_a_graph(make_llama, tokenizer, tmp_path):
    class Nobody(ReferenceSolution):
        def fields(self, rollout):
            return None

    student = module(make_llama(), tokenizer)
    grads = GradRecorder()
    run = trainer(tmp_path, Nobody(), grads, max_steps=1)
    student.configure_model()
    before = weights(student.student)
    run.fit(student, datamodule=LabData())
    assert run.callback_metrics["train/has_teacher"] == 0
    assert grads.grads[0].keys() == before.keys()
    assert all((g == 0).all() for g in grads.grads[0].values())
    assert equal(before, weights(student.student))


@pytest.mark.parametrize("lora", [False, True])
def test_frozen_teacher_is_bit_identical_after_20_steps(make_llama, tokenizer, tmp_path, lora):
    model = make_llama()
    if lora:
        model = add_lora(model, LoRA(r=2))
    initial = copy.deepcopy(model)
    student = module(model, tokenizer, teacher=FrozenTeacher())
    trainer(tmp_path, ReferenceSolution(), max_steps=20, max_epochs=-1).fit(
        student, datamodule=LabData()
    )
    ids = torch.arange(5, 25).unsqueeze(0)
    with torch.no_grad():
        expected = initial(ids).logits
        assert not torch.equal(student.student(ids).logits, expected)
        with student.teacher.swap_in(student.student):
            assert torch.equal(student.student(ids).logits, expected)


def test_ema_follows_each_optimizer_step_not_each_micro_batch(make_llama, tokenizer, tmp_path):
    class Trace(Callback):
        def __init__(self):
            self.states = []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.states.append((trainer.global_step, weights(pl_module.student)))

    trace = Trace()
    student = module(make_llama(dtype=torch.float64), tokenizer, teacher=EMATeacher(0.3))
    student.configure_model()
    expected = weights(student.student)
    run = trainer(tmp_path, ReferenceSolution(), trace, max_steps=3, accumulate_grad_batches=2)
    run.fit(student, datamodule=LabData(batch_size=2))
    seen = 0
    for step, state in trace.states:
        if step > seen:
            seen = step
            expected = {n: 0.7 * expected[n] + 0.3 * state[n] for n in expected}
    assert seen == 3
    for name, value in student.teacher.state_dict()["shadow"].items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "teacher",
    [FrozenTeacher, EMATeacher, partial(SnapshotTeacher, 3), partial(TrustRegionTeacher, 0.3)],
)
@pytest.mark.parametrize("lora", [False, True])
def test_resume_equals_the_unbroken_run(make_llama, tokenizer, tmp_path, teacher, lora):
    """Rollouts, teacher, optimizer and data go on as if nothing had happened."""

    def student():
        model = make_llama(dtype=torch.float64)
        return module(
            add_lora(model, LoRA(r=2)) if lora else model,
            tokenizer,
            teacher=teacher(),
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
        )

    torch.manual_seed(0)
    unbroken = student()
    trainer(tmp_path, ReferenceSolution(), max_steps=4).fit(unbroken, datamodule=LabData())
    torch.manual_seed(0)
    first = student()
    saver = ModelCheckpoint(dirpath=tmp_path / "ckpt", save_last=True, every_n_train_steps=2)
    run = trainer(tmp_path, ReferenceSolution(), saver, max_steps=2, enable_checkpointing=True)
    run.fit(first, datamodule=LabData(train_size=8))
    saved = torch.load(tmp_path / "ckpt" / "last.ckpt", weights_only=True)
    trained = {n for n, p in first.named_parameters() if p.requires_grad}
    assert set(saved["state_dict"]) == trained
    torch.manual_seed(0)
    second = student()
    data = LabData()
    data.questions = lambda split: LabData().questions(split)[8:] if split == "train" else []
    trainer(tmp_path, ReferenceSolution(), max_steps=4, max_epochs=2).fit(
        second, datamodule=data, ckpt_path=tmp_path / "ckpt" / "last.ckpt"
    )
    assert second.trainer.global_step == 4
    assert equal(weights(unbroken.student), weights(second.student))


def test_frozen_teacher_refuses_another_initial_policy(make_llama, tokenizer, tmp_path):
    saver = ModelCheckpoint(dirpath=tmp_path / "ckpt", save_last=True, every_n_train_steps=1)
    run = trainer(tmp_path, ReferenceSolution(), saver, max_steps=1, enable_checkpointing=True)
    run.fit(module(make_llama(), tokenizer), datamodule=LabData())
    with pytest.raises(ValueError, match="initial policy"):
        trainer(tmp_path, ReferenceSolution()).fit(
            module(make_llama(seed=5), tokenizer),
            datamodule=LabData(),
            ckpt_path=tmp_path / "ckpt" / "last.ckpt",
        )


def test_missing_trained_weights_raise(make_llama, tokenizer):
    student = module(add_lora(make_llama(), LoRA(r=2)), tokenizer)
    student.configure_model()
    state = {n: p for n, p in student.named_parameters() if p.requires_grad}
    student.load_state_dict(state)
    state.popitem()
    with pytest.raises(RuntimeError, match="missing"):
        student.load_state_dict(state)


def test_load_from_checkpoint_needs_nothing_but_the_model(make_llama, tokenizer, tmp_path):
    """Hyperparameters are plain data; a model in memory is the one thing they can't describe."""
    student = module(
        make_llama(),
        tokenizer,
        teacher=EMATeacher(0.2),
        objective=Distillation(kind="js", beta=0.3),
    )
    saver = ModelCheckpoint(dirpath=tmp_path / "ckpt", save_last=True, every_n_train_steps=1)
    trainer(tmp_path, ReferenceSolution(), saver, max_steps=1, enable_checkpointing=True).fit(
        student, datamodule=LabData()
    )
    loaded = SelfDistillModule.load_from_checkpoint(
        tmp_path / "ckpt" / "last.ckpt", model=student.source, weights_only=True
    )
    assert loaded.objective == student.objective
    assert loaded.teacher.rate == 0.2
    assert loaded.sampler == student.sampler


def test_student_trains_in_train_mode(make_llama, tokenizer, tmp_path):
    modes = ModeRecorder()
    model = make_llama().eval()
    trainer(tmp_path, ReferenceSolution(), modes, limit_val_batches=1).fit(
        module(model, tokenizer), datamodule=LabData()
    )
    assert modes.training
    assert all(modes.training)


def test_gradient_checkpointing_changes_nothing(make_llama, tokenizer, tmp_path):
    # Checkpointing takes the plain layout, otherwise prompts are shared: transformers' float32
    # rotary angles round differently in the two.
    results = []
    for checkpointing in (False, True):
        model = make_llama(dtype=torch.float64)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        student = module(model, tokenizer)
        trainer(tmp_path, ReferenceSolution(), max_steps=1).fit(student, datamodule=LabData())
        results.append(weights(student.student))
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=1e-4, atol=1e-6)


def test_ranks_and_batches_draw_different_answers(make_llama, tokenizer):
    student = module(make_llama(), tokenizer)
    student.configure_model()
    questions = LabData().questions("train")[:2]
    drawn = set()
    for rank in (0, 1):
        for index in (0, 1):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(SelfDistillModule, "global_rank", rank)
                found = student.sample(questions, student.sampler, 2, "train", index)
            drawn.add(tuple(rollout.ids for rollout in found))
    assert len(drawn) == 4


def test_evaluation_draws_the_same_answers_each_time(make_llama, tokenizer, tmp_path):
    student = module(make_llama(), tokenizer)
    run = trainer(tmp_path, limit_val_batches=1.0)
    first = run.validate(student, datamodule=LabData(), verbose=False)
    assert first == run.validate(student, datamodule=LabData(), verbose=False)
    assert {"val/avg@2", "val/pass@2", "val/maj@2", "val/reward", "val/length"} == set(first[0])


def test_predict_gives_each_token_its_advantage(make_llama, tokenizer, tmp_path):
    model = make_llama(dtype=torch.float64)
    student = module(model, tokenizer, teacher=LiveTeacher())
    outputs = trainer(tmp_path, ReferenceSolution()).predict(student, datamodule=LabData())
    rollout, view = outputs[0].rollouts[3], outputs[0].views[3]
    expected = []
    for messages in (view.messages, rollout.question.messages):
        prompt = encode_prompt(tokenizer, messages)
        logits = model(torch.tensor([[*prompt, *rollout.ids]])).logits[0, len(prompt) - 1 : -1]
        ids = torch.tensor(rollout.ids)
        expected.append(logits.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1))
    advantages = torch.tensor(outputs[0].advantages[3], dtype=torch.float64)
    torch.testing.assert_close(advantages, expected[0] - expected[1], rtol=1e-9, atol=1e-9)


def test_predict_lets_the_context_write_and_keeps_its_texts_out(make_llama, tokenizer, tmp_path):
    class Written(ReferenceSolution):
        def __init__(self):
            super().__init__()
            self.texts = []

        def prepare_batch(self, rollouts):
            ask = [({"role": "user", "content": "hint"},)] * 4
            self.texts.append(
                [c.ids for c in self.write(ask, sampler=TransformersSampler(max_new_tokens=5))]
            )
            return [*rollouts, replace(rollouts[0], origin="teacher")]

    student = module(make_llama(), tokenizer)
    context = Written()
    outputs = trainer(tmp_path, context, limit_predict_batches=2).predict(
        student, datamodule=LabData()
    )
    first, second = context.texts
    assert first != second  # each batch draws numbers of its own
    for output in outputs:
        assert {rollout.origin for rollout in output.rollouts} == {"student"}
        assert len(output.views) == len(output.advantages) == len(output.rollouts)


def test_context_works_in_a_module_that_is_not_ours(tokenizer, tmp_path):
    class Foreign(LightningModule):
        def __init__(self):
            super().__init__()
            self.tokenizer, self.teacher_context = tokenizer, None
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.seen = []

        def training_step(self, batch, batch_idx):
            from lightning_sd.types import Rollout

            rollouts = [Rollout(question, (5,), "7", group=0) for question in batch]
            self.seen += self.teacher_context.views(rollouts)
            return self.weight.sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    foreign = Foreign()
    questions = LabData().questions("train")
    loader = torch.utils.data.DataLoader(questions, batch_size=4, collate_fn=QuestionBatch)
    trainer(tmp_path, ReferenceSolution(), max_steps=1).fit(foreign, loader)
    assert questions[0].reference in foreign.seen[0].messages[-1]["content"]

    class Lacking(Foreign):
        def __init__(self):
            super().__init__()
            del self.teacher_context

    with pytest.raises(TypeError, match="teacher_context"):
        trainer(tmp_path, ReferenceSolution(), max_steps=1).fit(Lacking(), loader)


def test_a_context_is_cut_to_its_limit_in_training(make_llama, tokenizer, tmp_path):
    """The student, and with it the tokenizer, is loaded only after the callbacks' setup."""
    student = module(make_llama(), tokenizer)
    run = trainer(tmp_path, ReferenceSolution(max_prompt_tokens=60), max_steps=1)
    run.fit(student, datamodule=LabData())
    assert run.callback_metrics["train/context_cut"] > 0
    assert run.callback_metrics["train/has_teacher"] == 1


def test_two_contexts_are_refused(make_llama, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="Two teacher contexts"):
        trainer(tmp_path, ReferenceSolution(), StepAlignedCritique()).fit(
            module(make_llama(), tokenizer), datamodule=LabData()
        )


@pytest.mark.parametrize("contexts", [(), (NoContext(),)])
def test_distillation_without_teacher_is_refused_before_sampling(
    make_llama, tokenizer, tmp_path, contexts
):
    with pytest.raises(ValueError, match="needs a teacher"):
        trainer(tmp_path, *contexts).fit(module(make_llama(), tokenizer), datamodule=LabData())


def test_importance_clip_reads_the_samplers_probabilities(make_llama, tokenizer, tmp_path):
    """On-policy the weight is 1 up to rounding; made-up probabilities would show in the loss."""
    losses = []
    for clip in (None, 2.0):
        student = module(
            make_llama(dtype=torch.float64), tokenizer, objective=Distillation(importance_clip=clip)
        )
        run = trainer(tmp_path, ReferenceSolution(), max_steps=1)
        run.fit(student, datamodule=LabData())
        losses.append(float(run.callback_metrics["train/loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)

    class Unlikely(TransformersSampler):
        def sample(self, *args, **kwargs):
            found = super().sample(*args, **kwargs)
            return [replace(c, logprobs=tuple(v - 3.0 for v in c.logprobs)) for c in found]

    student = module(
        make_llama(dtype=torch.float64),
        tokenizer,
        objective=Distillation(importance_clip=2.0),
        sampler=Unlikely(max_new_tokens=12),
    )
    run = trainer(tmp_path, ReferenceSolution(), max_steps=1)
    run.fit(student, datamodule=LabData())
    assert float(run.callback_metrics["train/loss"]) == pytest.approx(2 * losses[0], rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"attempts": "stored"}, "stored"),
        ({"sampler": TransformersSampler(temperature=0.5)}, "0.5"),
        ({"sampler": TransformersSampler(top_p=0.9)}, "top_p=0.9"),
        ({"sampler": TransformersSampler(top_k=5)}, "top_k=5"),
    ],
)
def test_importance_clip_without_probabilities_is_refused(
    make_llama, tokenizer, tmp_path, settings, named
):
    student = module(
        make_llama(), tokenizer, objective=Distillation(importance_clip=2.0), **settings
    )
    with pytest.raises(ValueError, match=named):
        trainer(tmp_path, ReferenceSolution()).fit(student, datamodule=LabData())


@pytest.mark.parametrize("name", ["FSDPStrategy", "DeepSpeedStrategy"])
def test_strategies_that_shard_are_refused(name):
    import lightning.pytorch.strategies as strategies

    from lightning_sd.modules.checks import check_strategy

    check_strategy(strategies.SingleDeviceStrategy())
    with pytest.raises(ValueError, match=name):
        check_strategy(object.__new__(getattr(strategies, name)))


def test_no_data_module_is_refused(make_llama, tokenizer, tmp_path):
    with pytest.raises(TypeError, match="CritiqueDataModule"):
        trainer(tmp_path, ReferenceSolution()).fit(
            module(make_llama(), tokenizer), LabData().train_dataloader()
        )


@pytest.mark.parametrize(
    ("name", "value"), [("samples", 0), ("eval_samples", 0), ("attempts", "borrowed"), ("model", 7)]
)
def test_bad_options_name_themselves(make_llama, tokenizer, name, value):
    with pytest.raises((ValueError, TypeError), match=name):
        SelfDistillModule(**{"model": "x", name: value})


def test_nothing_trainable_is_refused(make_llama, tokenizer, tmp_path):
    model = make_llama().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter is trainable"):
        trainer(tmp_path, ReferenceSolution()).fit(module(model, tokenizer), datamodule=LabData())


def test_bf16_autocast_is_close_to_float32(make_llama, tokenizer, tmp_path):
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        student = module(make_llama(), tokenizer, attempts="stored")
        run = trainer(tmp_path, ReferenceSolution(), max_steps=1, precision=precision)
        run.fit(student, datamodule=LabData(attempts=ATTEMPTS))
        losses.append(float(run.callback_metrics["train/loss"]))
        assert all(p.dtype == torch.float32 for p in student.student.parameters())
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def test_length_limit_is_counted(make_llama, tokenizer, tmp_path):
    student = module(make_llama(), tokenizer, sampler=TransformersSampler(max_new_tokens=1))
    run = trainer(tmp_path, ReferenceSolution(), max_steps=1)
    run.fit(student, datamodule=LabData())
    assert run.callback_metrics["train/length"] == 1
    assert run.callback_metrics["train/cut_off"] > 0.5


def test_a_batch_sampled_in_parts_is_judged_in_parts_and_is_one_batch(
    make_llama, tokenizer, tmp_path
):
    seen = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append((list(batch), outputs["step"].rollouts))

    class Counting(LabData):
        def __init__(self):
            super().__init__()
            self.calls = []

        def evidence(self, rollouts, needs):
            self.calls.append(len(rollouts))
            return super().evidence(rollouts, needs)

    data = Counting()
    student = module(make_llama(), tokenizer, overlap=2)
    trainer(tmp_path, ReferenceSolution(), Watch(), max_steps=2).fit(student, datamodule=data)
    assert data.calls == [4, 4, 4, 4]  # two parts of two questions, two samples each, two steps
    for questions, rollouts in seen:
        assert [r.question.id for r in rollouts] == [q.id for q in questions for _ in range(2)]
        assert [r.group for r in rollouts] == [0, 0, 1, 1, 2, 2, 3, 3]
        assert all(r.siblings[0].question.id == r.question.id for r in rollouts)
        first, second = ([r.ids for r in rollouts[i : i + 4]] for i in (0, 4))
        assert first != second  # the parts do not share their random numbers
    with pytest.raises(ValueError, match="overlap=0"):
        module(make_llama(), tokenizer, overlap=0)


def test_the_chat_template_has_settings_for_student_and_teacher_apart(make_llama, tokenizer):
    """The student's arguments are the default of every prompt; a view has its own."""
    marked = copy.deepcopy(tokenizer)
    marked.chat_template = "{% if loud %}1{% endif %}" + marked.chat_template
    student = module(make_llama(), marked, template_kwargs={"loud": True})
    student.configure_model()
    messages = LabData().questions("train")[0].messages
    plain = encode_prompt(tokenizer, messages)
    assert student.encode(messages) == [*marked("1").input_ids, *plain]
    assert student.encode(messages, {"loud": False}) == plain
    context = ReferenceSolution(template_kwargs={"loud": False})
    context.tokenizer = marked
    rollout = Rollout(LabData().questions("train")[0], (5,), "", 0)
    (view,) = context.views([rollout])
    assert view.template_kwargs == {"loud": False}
