import pickle
import threading
import time
from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch

from lightning_sd.critique import RuleCritic, ServerCritic
from lightning_sd.critique.base import make_failure
from lightning_sd.critique.reasons import REASON_NAMES
from lightning_sd.data.module import CritiqueDataModule
from lightning_sd.data.requests import build_rollout_request
from lightning_sd.lab.arithmetic import ArithmeticTask
from lightning_sd.tasks.judges import AnswerJudge
from lightning_sd.types import Critique, QuestionBatch, Rollout, Verdict
from tests.critique.cache.fakes import EchoCritic, NumberTask, echo, rollout
from tests.critique.critics.fault_server import serving

CRITIQUE = frozenset({"critique"})


def data(folder, critic=None, **options):
    task = options.pop("task", None) or NumberTask()
    module = CritiqueDataModule(task, critic, str(folder), batch_size=3, **options)
    module.setup("fit")
    return module


def test_verdicts_are_always_given_and_kept(tmp_path):
    rollouts = [rollout(1, "1"), rollout(2, "3")]
    judged = data(tmp_path).evidence(rollouts, frozenset())
    assert [r.verdict.correct for r in judged] == [True, False]
    assert all(r.critique is None for r in judged)
    mine = replace(judged[0], verdict=Verdict(0.5, False))
    assert data(tmp_path).evidence([mine], frozenset()) == [mine]


def test_critiques_of_fresh_rollouts_come_through_the_cache(tmp_path):
    rollouts = [rollout(i, text) for i in range(3) for text in ("a", "b", "a")]
    critic = EchoCritic()
    module = data(tmp_path, critic)
    found = module.evidence(rollouts, CRITIQUE)
    assert [r.critique for r in found] == [echo(build_rollout_request(r)) for r in found]
    assert [r.text for r in found] == [r.text for r in rollouts]
    assert len(critic.asked) == 6
    assert module.counters()["critique_misses"] == 6

    second = EchoCritic()
    again = data(tmp_path, second)
    assert again.evidence(rollouts, CRITIQUE) == found
    assert second.asked == []
    assert again.counters()["critique_hits"] == 6


def test_a_cut_off_attempt_is_another_request(tmp_path):
    critic = EchoCritic()
    data(tmp_path, critic).evidence([rollout(1), rollout(1, finished=False)], CRITIQUE)
    assert [r.finished for r in critic.asked] == [True, False]


def test_missing_critic_and_unknown_evidence_are_told_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"critic=None"):
        data(tmp_path).check(CRITIQUE)
    with pytest.raises(ValueError, match="weather"):
        data(tmp_path, EchoCritic()).check(frozenset({"weather"}))
    data(tmp_path, EchoCritic()).check(CRITIQUE)
    data(tmp_path).check(frozenset())


def test_a_task_without_rules_is_told_when_set_up(tmp_path):
    with pytest.raises(TypeError, match=r"RuleCritic.*NumberTask.*LMCritic"):
        data(tmp_path, RuleCritic())


def test_offline_attempts_fill_the_cache_and_serve_training(tmp_path):
    task = NumberTask(attempts=True)
    critic = EchoCritic()
    module = data(tmp_path, critic, task=task)
    report = module.critique_all(module.train_questions)
    assert (report.requests, dict(report.cases), report.failed) == (20, {"D": 20}, ())
    assert len(critic.asked) == 20

    stored = [rollout(i, f"attempt {i}") for i in range(20)]
    second = EchoCritic()
    data(tmp_path, second, task=task).evidence(stored, CRITIQUE)
    assert second.asked == []


STORED = "<step_1>copy</step_1><answer>1</answer>"


def stored_rollouts(task, *texts):
    question = task.questions("train")[0]
    return [replace(rollout(0, text), question=question) for text in texts]


def test_critiques_that_stand_with_the_data_need_no_critic(tmp_path):
    task = NumberTask(attempts=True, extra={"critique": STORED})
    module = data(tmp_path, None, task=task)
    module.check(CRITIQUE)
    [found] = module.evidence(stored_rollouts(task, "attempt 0"), CRITIQUE)
    assert (found.critique.text, found.critique.refused) == (STORED, None)


def test_a_stored_critique_is_only_used_for_its_own_attempt(tmp_path):
    task = NumberTask(attempts=True, extra={"critique": STORED})
    critic = EchoCritic()
    module = data(tmp_path, critic, task=task)
    found = module.evidence(stored_rollouts(task, "other", "attempt 0"), CRITIQUE)
    assert [r.critique.text for r in found] == ["[other]", STORED]
    assert [r.attempt for r in critic.asked] == ["other"]


def test_a_stored_critique_that_breaks_the_form_is_refused(tmp_path):
    task = NumberTask(attempts=True, extra={"critique": "Well done!"})
    [found] = data(tmp_path, None, task=task).evidence(stored_rollouts(task, "attempt 0"), CRITIQUE)
    assert "no answer" in found.critique.refused


def test_stored_attempts_may_be_cut_off(tmp_path):
    task = NumberTask(attempts=True, extra={"finished": False})
    critic = EchoCritic()
    module = data(tmp_path, critic, task=task)
    module.critique_all(module.train_questions)
    assert not any(r.finished for r in critic.asked)


RIGHT = "<step_1>copy</step_1><answer>3</answer>"


class TaggedTask(NumberTask):
    """Answers stand in tags."""

    def verify(self, question, completion):
        correct = completion.endswith(f"<answer>{question.answer}</answer>")
        return Verdict(float(correct), correct)


def test_right_attempts_need_no_critic_if_only_failed_ones_are_asked_about(tmp_path):
    rollouts = [rollout(3, RIGHT), rollout(3, "<answer>3</answer>"), rollout(3, "wrong")]
    critic = EchoCritic()
    module = data(tmp_path, critic, task=TaggedTask(), ask_about="failed")
    found = [r.critique for r in module.evidence(rollouts, CRITIQUE)]
    assert (found[0].text, found[0].case, found[0].copied) == (RIGHT, "A", (1,))
    # Right but not in the form: the critic writes it again.
    assert [r.attempt for r in critic.asked] == ["<answer>3</answer>", "wrong"]
    assert module.counters()["critique_misses"] == 2


def test_other_verbs_than_fit_always_ask(tmp_path):
    critic = EchoCritic()
    module = data(tmp_path, critic, ask_every=100)
    for i in range(3):
        module.evidence([rollout(i)], CRITIQUE)
    assert len(critic.asked) == 3


def test_an_interrupted_run_goes_on(tmp_path):
    def answer(request):
        if request.question.id == "9":
            raise KeyboardInterrupt
        return echo(request)

    task = NumberTask(attempts=True)
    first = data(tmp_path, EchoCritic(batch_size=2, answer=answer), task=task)
    with pytest.raises(KeyboardInterrupt):
        first.critique_all(first.train_questions)
    critic = EchoCritic()
    second = data(tmp_path, critic, task=task)
    second.critique_all(second.train_questions)
    assert [r.question.id for r in critic.asked] == [str(i) for i in range(8, 20)]


def test_the_report_lists_refusals_and_failures(tmp_path):
    def answer(request):
        number = int(request.question.id)
        if number < 2:
            return Critique("", "D", refused="empty")
        return Critique("", "", refused="failed: 503") if number < 5 else echo(request)

    module = data(tmp_path, EchoCritic(answer=answer), task=NumberTask(attempts=True))
    report = module.critique_all(module.train_questions)
    assert report.refused == {"empty": 2}
    assert report.failed == tuple((str(i), "failed: 503") for i in (2, 3, 4))


def test_progress_bar_counts_everything(tmp_path, capsys):
    module = data(tmp_path, EchoCritic(), task=NumberTask(attempts=True))
    module.critique_all(module.train_questions, progress=True)
    assert "20/20" in capsys.readouterr().out


NO_TEACHER = "no_teacher/"


def reasons(module):
    counts = {n: v for n, v in module.counters().items() if n.startswith(NO_TEACHER)}
    return {name.removeprefix(NO_TEACHER): value for name, value in counts.items() if value}


def test_rollouts_without_a_critique_are_counted_by_reason(tmp_path):
    def answer(request):
        number = int(request.question.id)
        if number < 2:
            return make_failure("connection: refused")
        return Critique("", "D", refused="it is empty") if number < 5 else echo(request)

    module = data(tmp_path, EchoCritic(answer=answer))
    assert reasons(module) == {}
    with pytest.warns(UserWarning, match=r"connection: refused.*no teacher"):
        module.evidence([rollout(i) for i in range(7)], CRITIQUE)
    assert reasons(module) == {"critic_failed": 2, "critique_refused:empty": 3}
    module.evidence([rollout(9)], CRITIQUE)
    assert reasons(module) == {}
    # The columns are the same in every step.
    assert {n for n in module.counters() if n.startswith(NO_TEACHER)} == {
        NO_TEACHER + name for name in REASON_NAMES
    }


def test_the_reference_in_place_of_a_refused_critique_is_a_teacher(tmp_path):
    critic = EchoCritic(answer=lambda r: Critique("", "D", refused="it is empty"))
    module = data(tmp_path, critic, on_refusal="reference")
    module.evidence([rollout(1)], CRITIQUE)
    assert reasons(module) == {}


@pytest.mark.parametrize("fault", [500, None])
def test_a_server_that_is_down_or_fails_is_seen(tmp_path, fault):
    with serving(lambda prompt, attempt: fault) as server:
        if fault is None:
            server.server_close()
        critic = ServerCritic("model", server.url, retries=0, timeout=5)
        module = data(tmp_path, critic)
        with pytest.warns(UserWarning, match="500" if fault else "connection"):
            module.evidence([rollout(i) for i in range(3)], CRITIQUE)
    assert reasons(module) == {"critic_failed": 3}


class RudeTask(NumberTask):
    """Everything that comes from it holds control characters."""

    def questions(self, split):
        return [replace(q, text="\x1b[2J" + q.text) for q in super().questions(split)]

    def verify(self, question, completion):
        assert "\x1b" not in completion
        return Verdict(0.0, False, "\0", "\ud800 Error\x1b[2J")


def test_texts_of_all_sources_are_cleaned_at_the_door(tmp_path):
    critic = EchoCritic(answer=lambda r: Critique("\x1b", "D"))
    module = data(tmp_path, critic, task=RudeTask(attempts=True))
    [found] = module.evidence([rollout(3, "a\x1bb")], CRITIQUE)
    assert found.text == "a\ufffdb"
    assert (found.verdict.answer, found.verdict.feedback) == ("\ufffd", "\ufffd Error\ufffd[2J")
    assert found.critique.text == "\ufffd"
    module.critique_all(module.train_questions)
    assert critic.asked[-1].question.text.startswith("\ufffd[2J")
    loaders = [module.train_dataloader(), module.val_dataloader(), module.predict_dataloader()]
    for loader in loaders:
        assert all("\x1b" not in q.text for batch in loader for q in batch)


def test_a_critic_that_hangs_does_not_hold_the_step(tmp_path):
    critic = EchoCritic(answer=lambda r: time.sleep(0.02) or threading.Event().wait(1.5) or echo(r))
    module = data(tmp_path, critic, critic_timeout=0.2)
    start = time.monotonic()
    with pytest.warns(UserWarning, match=r"timeout: no critique within 0\.2 s"):
        module.evidence([rollout(1)], CRITIQUE)
    assert time.monotonic() - start < 5
    counts = module.counters()
    assert counts["critique_timed_out"] == counts["no_teacher/critic_failed"] == 1


def test_hyperparameters_are_plain_and_rebuild_the_module(tmp_path):
    module = CritiqueDataModule(NumberTask(train=5), RuleCritic(), str(tmp_path))
    hparams = dict(module.hparams)
    assert hparams["critic"] == {
        "class_path": "lightning_sd.critique.critics.rule.RuleCritic",
        "init_args": {"seconds": None},
    }
    again = CritiqueDataModule(**hparams)
    assert dict(again.hparams) == hparams
    assert len(again.train_questions) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"eval_batch_size": 0}, "eval_batch_size=0"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"on_refusal": "ignore"}, "on_refusal='ignore'"),
        ({"ask_about": "some"}, "ask_about='some'"),
        ({"ask_every": 0}, "ask_every=0"),
        ({"critic_timeout": 0}, "critic_timeout=0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        CritiqueDataModule(NumberTask(), **options)


class Student(pl.LightningModule):
    """Trains on nothing, but asks for critiques as a real module does."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {"train": [], "val": [], "test": [], "predict": []}

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch

    def note(self, stage, batch):
        assert isinstance(batch, QuestionBatch)
        self.seen[stage] += [q.id for q in batch]

    def training_step(self, batch, batch_idx):
        self.note("train", batch)
        source = self.trainer.datamodule
        found = source.evidence([rollout(int(q.id), "x") for q in batch], CRITIQUE)
        assert all(r.critique for r in found)
        for name, value in source.counters().items():  # a mean comes as its sum and number
            self.log(name, value[0] if isinstance(value, tuple) else value, batch_size=1)
        return self.weight * 1.0

    def validation_step(self, batch, batch_idx):
        self.note("val", batch)

    def test_step(self, batch, batch_idx):
        self.note("test", batch)

    def predict_step(self, batch, batch_idx):
        self.note("predict", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder, **options):
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


class Asker(Student):
    """Has each training batch criticised in two calls, and remembers for which it was."""

    def training_step(self, batch, batch_idx):
        source = self.trainer.datamodule
        rollouts = [rollout(int(q.id), "x") for q in batch]
        found = source.evidence(rollouts[:1], CRITIQUE) + source.evidence(rollouts[1:], CRITIQUE)
        self.seen["train"].append([r.critique.refused is None for r in found])
        self.seen["test"].append(source.counters())
        return self.weight * 1.0


ASKED, SKIPPED = [True] * 3, [False] * 3


def test_the_critic_is_asked_in_every_nth_step(tmp_path):
    student, critic = Asker(), EchoCritic()
    module = CritiqueDataModule(NumberTask(train=15), critic, str(tmp_path), 3, ask_every=2)
    one = trainer(tmp_path, max_epochs=1)
    one.fit(student, module)
    assert student.seen["train"] == [ASKED, SKIPPED, ASKED, SKIPPED, ASKED]
    assert len(critic.asked) == 9
    assert [c["critique_skipped"] for c in student.seen["test"]] == [0, 3, 0, 3, 0]

    # The count is in the checkpoint: the sixth step is skipped after resuming, too.
    one.save_checkpoint(tmp_path / "a.ckpt")
    resumed = Asker()
    trainer(tmp_path, max_steps=6).fit(
        resumed,
        CritiqueDataModule(
            NumberTask(train=15), EchoCritic(), str(tmp_path / "new"), 3, ask_every=2
        ),
        ckpt_path=tmp_path / "a.ckpt",
    )
    assert resumed.seen["train"] == [SKIPPED]


def test_all_micro_batches_of_a_step_are_asked_about_or_none(tmp_path):
    student = Asker()
    module = CritiqueDataModule(NumberTask(train=15), EchoCritic(), str(tmp_path), 3, ask_every=2)
    trainer(tmp_path, max_epochs=1, accumulate_grad_batches=2).fit(student, module)
    assert student.seen["train"] == [ASKED, ASKED, SKIPPED, SKIPPED, ASKED]


def test_what_was_criticised_once_is_used_in_the_steps_between(tmp_path):
    """Five steps an epoch: the critic is asked in steps 0, 2, 4, then 6 and 8 of the second."""
    student, critic = Asker(), EchoCritic()
    module = CritiqueDataModule(NumberTask(train=15), critic, str(tmp_path), 3, ask_every=2)
    trainer(tmp_path, max_steps=10, overfit_batches=5).fit(student, module)
    first, second = student.seen["train"][:5], student.seen["train"][5:]
    assert first == [ASKED, SKIPPED, ASKED, SKIPPED, ASKED]
    assert second == [ASKED] * 5
    assert len(critic.asked) == 15


def test_the_reference_may_stand_in_where_the_critic_is_not_asked(tmp_path):
    module = CritiqueDataModule(
        NumberTask(train=6), EchoCritic(), str(tmp_path), 3, ask_every=2, on_refusal="reference"
    )
    student = Asker()
    trainer(tmp_path, max_epochs=1).fit(student, module)
    assert student.seen["train"] == [ASKED, ASKED]
    assert [c["critique_fallback"] for c in student.seen["test"]] == [0, 3]


class ModelCritic(EchoCritic):
    """Holds a module, as LMCritic does."""

    def __init__(self):
        super().__init__()
        self.model = torch.nn.Linear(3, 3)


def test_every_verb_of_the_trainer_sees_its_split_once(tmp_path):
    student, module = Student(), CritiqueDataModule(NumberTask(), EchoCritic(), str(tmp_path), 3, 2)
    one = trainer(tmp_path, max_epochs=1)
    one.fit(student, module)
    one.test(student, module, verbose=False)
    one.predict(student, module)
    assert len(set(student.seen["train"])) == len(student.seen["train"]) == 18
    assert student.seen["val"][-5:] == [str(1000 + i) for i in range(5)]
    assert student.seen["test"] == student.seen["predict"] == [str(2000 + i) for i in range(7)]
    module.predict_split = "val"
    one.predict(student, module)
    assert student.seen["predict"][7:] == [str(1000 + i) for i in range(5)]


def test_the_critic_is_in_no_checkpoint(tmp_path):
    student, module = Student(), CritiqueDataModule(NumberTask(), ModelCritic(), str(tmp_path), 3)
    one = trainer(tmp_path, max_epochs=1)
    one.fit(student, module)
    one.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert list(saved["state_dict"]) == ["weight"]
    assert "Linear" not in str(saved)


def test_overfitting_shows_the_same_batches_each_epoch(tmp_path):
    student, module = Student(), CritiqueDataModule(NumberTask(), EchoCritic(), str(tmp_path), 3)
    trainer(tmp_path, max_epochs=2, overfit_batches=2).fit(student, module)
    assert student.seen["train"][:6] == student.seen["train"][6:]


def test_pickles_without_its_connections(tmp_path):
    module = CritiqueDataModule(ArithmeticTask(train_size=5), RuleCritic(), str(tmp_path))
    module.setup("fit")
    again = pickle.loads(pickle.dumps(module))
    again.setup("fit")
    assert again.service.cache.path == module.service.cache.path


def test_an_answer_inside_thinking_that_the_prompt_opened_is_no_answer(tmp_path):
    question = replace(rollout(1).question, answer="7")
    judge = AnswerJudge()

    class BoxedTask(NumberTask):
        def verify(self, question, completion):
            return judge(question, completion)

    texts = [r"maybe \boxed{7}", r"so</think>\boxed{7}", r"<think>so</think>\boxed{7}"]
    for opened, statuses in {
        False: ["judged", "judged", "judged"],
        True: ["no_answer", "judged", "judged"],
    }.items():
        rollouts = [Rollout(question, (1,), t, 0, thinking_opened=opened) for t in texts]
        judged = data(tmp_path, task=BoxedTask()).evidence(rollouts, frozenset())
        assert [r.verdict.status for r in judged] == statuses
        assert all("thinking_opened" not in r.question.extra for r in judged)
