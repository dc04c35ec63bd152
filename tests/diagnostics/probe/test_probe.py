"""The whole probe: scripted answers over a tiny model, the lab solver, and the command line."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from lightning_sd import ArithmeticTask, CritiqueDataModule, LiveTeacher, RuleCritic
from lightning_sd.callbacks import PredictionWriter
from lightning_sd.cli.main import main
from lightning_sd.contexts import NoContext, StepAlignedCritique, TeacherContext
from lightning_sd.diagnostics.probe import Thresholds, probe
from lightning_sd.lab.expressions import parse_operations
from lightning_sd.rollout.base import Completion, Sampler
from lightning_sd.types import Critique
from tests import stubs
from tests.cli.test_configs import CONFIGS, TINY

FEW = Thresholds(min_questions=4)


class Scripted(Sampler):
    """Answers as a function of the prompt's text says."""

    def __init__(self, tokenizer, answer):
        self.tokenizer, self.answer = tokenizer, answer

    def sample(self, model, prompts, *, samples, stop_ids, generator):
        found = []
        for index, prompt in enumerate(prompts):
            for number in range(samples):
                text = self.answer(self.tokenizer.decode(prompt), number)
                ids = (*self.tokenizer.encode(text, add_special_tokens=False), stop_ids[0])
                found.append(Completion(index, ids, (0.0,) * len(ids), finished=True))
        return found


class Hint(TeacherContext):
    """Tells the answer."""

    template = "{question} Hint: {hint}"
    cut_fields = ("hint",)

    def fields(self, rollout):
        return {"hint": f"it is {rollout.question.answer}."}


def knows(prompt, number):
    """The student is never right; who sees the hint is."""
    value = prompt.split("it is ")[1][0] if "Hint" in prompt else "no"
    return f"<step_1>so it is {value}</step_1><answer>{value}</answer>"


@pytest.fixture
def run(tiny_llama, tokenizer, tmp_path):
    def call(answer, context, *, data=None, callbacks=(), **options):
        module = stubs.module(
            tiny_llama, tokenizer, sampler=Scripted(tokenizer, answer), teacher=LiveTeacher()
        )
        trainer = stubs.trainer(tmp_path, context, *callbacks)
        settings = {"samples": 2, "thresholds": FEW, **options}
        report = probe(module, data or stubs.LabData(), trainer=trainer, **settings)
        assert module.eval_samples == 2
        return report

    return call


def test_a_teacher_that_knows_the_answer_is_worth_it(run):
    found = run(knows, Hint())
    assert (found.questions, found.samples, found.context) == (8, 2, "Hint")
    assert found.estimates["student"].value == 0
    assert found.estimates["teacher"].value == 1
    assert found.estimates["teacher_failed"].number == 16
    assert found.estimates["advantage_wrong"].number == found.costs.student_tokens
    assert found.verdict.word == "worth distilling"
    assert found.costs.teacher_tokens > 0


def test_a_context_that_nobody_heeds_is_not(run):
    found = run(lambda prompt, number: "<answer>no</answer>", Hint())
    assert found.estimates["gain_failed"].high == 0
    assert found.verdict.word == "not worth distilling"


def test_a_teacher_that_reads_gains_nothing_from_an_unrelated_context(run):
    found = run(knows, Hint(), admission=True)
    # It is told another question's answer, which equals its own in few cases.
    assert found.estimates["teacher"].value == 1
    assert found.estimates["unrelated"].value < 0.5
    assert "unrelated" not in run(knows, Hint()).estimates


class DerivedHint(Hint):
    """Derives what it tells from the question's text."""

    def fields(self, rollout):
        return {"hint": f"it is {parse_operations(rollout.question.text)[-1].result}."}


def test_an_unrelated_context_is_not_derived_from_the_own_question(run):
    found = run(knows, DerivedHint(), admission=True)
    assert found.estimates["teacher"].value == 1
    assert found.estimates["unrelated"].value < 0.5


def test_a_teacher_that_reads_nothing_is_told_from_one_that_does(run):
    """Its heading means "be right": the answers come from the question, not from the context."""
    data = stubs.LabData()
    answers = {q.text: q.answer for q in data.task.questions("val")}

    def inspired(prompt, number):
        value = next(a for text, a in answers.items() if text in prompt)
        return f"<answer>{value if 'Hint' in prompt else 'no'}</answer>"

    found = run(inspired, Hint(), data=data, admission=True)
    # Batches hold one question each, and none precedes the first.
    assert found.estimates["unrelated"].number == 14
    assert found.estimates["unrelated_gain"].value == 1
    assert any("whatever it says" in note for note in found.verdict.notes)
    assert found.verdict.word == "worth distilling"


def test_the_teacher_goes_on_from_the_right_steps_of_failed_attempts(run):
    """The attempt's second step is wrong; only the teacher goes on rightly from the first."""
    data = stubs.LabData()
    questions = list(data.task.questions("val"))

    def goes_on(prompt, number):
        question = next(q for q in questions if q.text in prompt)
        solution = re.sub(r"get (.) from ([^<]+)", r"\2=\1", question.reference)
        first, rest = solution.split("<step_2>")
        begun = first in prompt
        assert "<answer>" not in prompt
        if begun and "Hint" in prompt:
            # The prefix may end inside the tag of the wrong step.
            return f"<step_2>{rest}".removeprefix(prompt.partition(first)[2])
        operation, result = rest.partition("</step_2>")[0].split("=")
        slip = f"{operation}={(int(result) + 1) % 10}"
        wrong = f"<step_2>{slip}</step_2><answer>no</answer>"
        return wrong if begun else first + wrong

    found = run(goes_on, Hint(), data=data, admission=True)
    assert found.estimates["continued"].number == found.estimates["continued_alone"].number > 0
    assert found.estimates["continued"].value == 1
    assert found.estimates["continued_alone"].value == 0
    assert found.estimates["continued_gain"].value == 1


def test_what_the_teacher_says_of_its_context_is_counted(run):
    def tells(prompt, number):
        told = "As shown above, the hint says so: " if "Hint" in prompt else ""
        return told + knows(prompt, number)

    found = run(tells, Hint())
    assert found.phrases == {"the hint": 16, "as shown above": 16}
    assert found.estimates["leaks_student"].value == 0
    assert found.verdict.word == "not worth distilling"
    assert run(tells, Hint(), phrases=["rubric"]).verdict.word == "worth distilling"


def test_copying_counts_what_only_the_teacher_was_shown(run, tokenizer):
    context = "the long words that nobody else was shown"

    class Words(Hint):
        def fields(self, rollout):
            return {"hint": context}

    found = run(lambda prompt, n: context if "Hint" in prompt else "all my own words", Words())
    # Only the runs with the end token in them stand nowhere in the prompt.
    number = len(tokenizer.encode(context, add_special_tokens=False)) + 1 - 7
    assert found.estimates["copied_teacher"].value > 1 - 3 / number
    assert found.estimates["copied_student"].value == 0


def test_rollouts_without_a_view_are_counted_by_reason(run):
    class Sometimes(Hint):
        required_evidence = frozenset({"critique"})

        def fields(self, rollout):
            fine = rollout.critique.refused is None and int(rollout.question.answer) % 2
            return super().fields(rollout) if fine else None

    data = stubs.LabData()
    answers = [q.answer for q in data.task.questions("val")]
    even = [answer for answer in answers if int(answer) % 2 == 0]
    refused = sum(answer == even[0] for answer in answers)
    assert 0 < refused < len(even) < 8

    def evidence(rollouts, needs):
        critiques = {even[0]: Critique("", "D", refused="it is empty")}
        judged = stubs.LabData.evidence(data, rollouts, frozenset())
        return [
            replace(r, critique=critiques.get(r.question.answer, Critique("x", "D")))
            for r in judged
        ]

    data.evidence = evidence
    found = run(knows, Sometimes(), data=data)
    assert found.missing == {
        "nothing to show": 2 * (len(even) - refused),
        "critique refused: it is empty": 2 * refused,
    }
    assert found.estimates["has_teacher"].value == 1 - len(even) / 8
    assert found.estimates["teacher"].number == 2 * (8 - len(even))


def test_prompts_that_are_too_long_are_counted(run):
    found = run(knows, Hint(max_prompt_tokens=1))
    assert found.missing == {"longer than max_prompt_tokens": 16}
    assert found.verdict.word == "not worth distilling"
    assert found.verdict.why == "no attempt has a teacher"


def test_the_teacher_answers_with_its_own_weights(tiny_llama, tokenizer, tmp_path):
    inside = []

    class Marked(LiveTeacher):
        @contextmanager
        def swap_in(self, student):
            inside.append(True)
            yield
            inside.pop()

    seen = {}

    def answer(prompt, number):
        seen.setdefault("Hint" in prompt, set()).add(bool(inside))
        return knows(prompt, number)

    module = stubs.module(
        tiny_llama, tokenizer, sampler=Scripted(tokenizer, answer), teacher=Marked()
    )
    probe(module, stubs.LabData(), trainer=stubs.trainer(tmp_path, Hint()), samples=2)
    assert seen == {False: {False}, True: {True}}


def test_it_samples_as_training_does_and_leaves_all_as_it_was(tiny_llama, tokenizer, tmp_path):
    def greedy(prompt, number):
        raise AssertionError("the evaluation's sampler was asked")

    module = stubs.module(
        *(tiny_llama, tokenizer),
        sampler=Scripted(tokenizer, knows),
        eval_sampler=Scripted(tokenizer, greedy),
        eval_samples=3,
    )
    written = tmp_path / "predictions.jsonl"
    written.write_text("kept")
    trainer = stubs.trainer(tmp_path, Hint(), PredictionWriter(str(written)))
    before = list(trainer.callbacks)
    found = probe(module, stubs.LabData(), trainer=trainer, questions=3, samples=4)
    assert (found.questions, found.samples) == (3, 4)
    assert written.read_text() == "kept"
    assert trainer.callbacks == before
    assert module.eval_samples == 3
    assert module.eval_sampler is not module.sampler


@pytest.mark.parametrize(
    ("context", "world", "options", "says"),
    [
        (NoContext(), 1, {}, "teacher_context=NoContext"),
        (None, 1, {}, "teacher_context=NoneType"),
        (Hint(), 2, {}, "trainer.devices=1"),
        (Hint(), 1, {"samples": 1}, "samples=1"),
        (Hint(), 1, {"questions": 0}, "questions=0"),
    ],
)
def test_what_cannot_be_probed_is_refused(tiny_llama, tokenizer, context, world, options, says):
    trainer = SimpleNamespace(world_size=world, callbacks=[context] if context else [])
    settings = {"questions": 8, "samples": 2, **options}
    with pytest.raises(ValueError, match=says):
        probe(stubs.module(tiny_llama, tokenizer), stubs.LabData(), trainer=trainer, **settings)


def test_other_modules_are_refused():
    trainer = SimpleNamespace(world_size=1, callbacks=[Hint()])
    with pytest.raises(TypeError, match="SelfDistillModule"):
        probe(object(), stubs.LabData(), trainer=trainer)


def test_no_validation_questions_are_an_error(run):
    class NoQuestions(stubs.LabData):
        def questions(self, split):
            return [] if split == "val" else super().questions(split)

    with pytest.raises(ValueError, match="val_size"):
        run(knows, Hint(), data=NoQuestions())


def test_the_lab_solver(tmp_path):
    """Its critique is worth distilling; a context that shows nothing new is not."""
    from lightning_sd import SelfDistillModule, TransformersSampler

    def call(context):
        module = SelfDistillModule(
            "package:lightning_sd/lab/solver",
            sampler=TransformersSampler(max_new_tokens=64),
            seed=0,
        )
        data = CritiqueDataModule(
            ArithmeticTask(val_size=40), RuleCritic(), cache_dir=str(tmp_path / "cache")
        )
        thresholds = Thresholds(min_gain=0.25)
        return probe(
            module,
            data,
            context,
            trainer=stubs.trainer(tmp_path),
            questions=40,
            thresholds=thresholds,
        )

    worth = call(StepAlignedCritique())
    assert worth.verdict.word == "worth distilling"
    assert worth.estimates["teacher_failed"].value > 0.9
    assert worth.costs.student_seconds > 0
    # The critique copies what is right, so the teacher's dislike falls where the mistakes are.
    located = worth.estimates["negative_from_error"]
    assert located.value > worth.estimates["tokens_from_error"].value + 0.1
    assert 0 < located.number <= worth.estimates["advantage_wrong"].number
    same = call(stubs.SameAsStudent())
    assert same.verdict.word == "not worth distilling"
    # The very same weights and prompt: not one token is likelier.
    assert same.estimates["advantage_wrong"].value == 0
    assert same.estimates["copied_teacher"].value == 0


def test_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["probe", "--config", str(CONFIGS / "quickstart.yaml"), *TINY, "--out=p.json"]
    main([*words, "--samples=2", "--thresholds.min_questions=2", "--phrases=[answer]"])
    read = json.loads(Path("p.json").read_text())
    assert read["questions"] == 2
    assert read["thresholds"]["min_questions"] == 2
    assert read["phrases"] == {"answer": 4}
    assert f"Verdict: {read['verdict']['word']}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["quickstart", "smollm2", "qwen3_1.7b_paper"])
def test_full_configs_parse(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["probe", "--config", str(CONFIGS / f"{name}.yaml"), "--print_config"])
    assert stopped.value.code in (0, None)
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["thresholds"]["min_gain"] == 0.05
    assert config["questions"] == 64
