"""What the first training batch says about its answers."""

from __future__ import annotations

from lightning_sd.modules.step_report import describe_answers
from lightning_sd.types import Question, Rollout, Verdict
from tests.stubs import LabData, SameAsStudent, module, trainer

ATTEMPTS = ["<step_1>1+1=2</step_1><answer>2</answer>", "It is seven.", "<answer>9</answer>", "7"]


def test_the_first_batch_tells_once_how_many_answers_it_has(
    make_llama, tokenizer, tmp_path, caplog
):
    student = module(make_llama(), tokenizer, attempts="stored")
    run = trainer(tmp_path, SameAsStudent(), max_steps=3, accumulate_grad_batches=2)
    run.fit(student, LabData(batch_size=4, attempts=ATTEMPTS, train_size=12))
    assert [text for text in caplog.messages if "had an answer" in text] == [
        "First batch: 2 of 4 completions had an answer (2 without). One without an answer: "
        "'It is seven.'"
    ]


def test_only_judged_completions_of_the_student_are_counted():
    question = Question("q", "?", ({"role": "user", "content": "?"},))
    none = Verdict(0.0, False, status="no_answer")
    rollouts = [
        Rollout(question, (5,), "7", group=0, verdict=Verdict(1.0, True, "7")),
        Rollout(question, (5,), "not judged", group=0),
        Rollout(question, (5,), "the teacher's", group=0, verdict=none, origin="teacher"),
    ]
    assert describe_answers(rollouts) == "1 of 1 completions had an answer"
