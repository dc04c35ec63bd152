from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_sd.contexts import CleanInput
from lightning_sd.contexts.clean_input import insert_clean_parts
from lightning_sd.lab.spoken_digits import SpokenDigitsTask
from lightning_sd.rollout import Completion
from lightning_sd.teachers import FrozenTeacher, LiveTeacher
from lightning_sd.types import Message, Question, Rollout, Verdict

TASK = SpokenDigitsTask(train_size=3, val_size=1, test_size=1)


class Host:
    """Writes the same text as long as it is asked about the same question."""

    def __init__(self, teacher: Any) -> None:
        self.teacher = teacher
        self.tokenizer = SimpleNamespace(decode=lambda ids, **_: " ".join(map(str, ids)))
        self.asked: list[Any] = []

    def frozen_teacher_fingerprint(self) -> str | None:
        return "one" if self.teacher.writes_frozen else None

    def write(
        self, prompts: Any, *, sampler: Any, teacher: bool, template_kwargs: Any = None
    ) -> list[Completion]:
        assert teacher
        assert sampler.temperature == 0
        self.asked += prompts
        return [
            Completion(i, (7, len(prompt), 1), (-0.1,) * 3, finished=True)
            for i, prompt in enumerate(prompts)
        ]


def hosted(teacher: Any = None, **settings: Any) -> tuple[CleanInput, Host]:
    context, host = CleanInput(**settings), Host(teacher or FrozenTeacher())
    context._host = host
    return context, host


def rollouts(*questions: Question, samples: int = 2) -> list[Rollout]:
    return [
        Rollout(q, (5, 6), "x", group=g, logprobs=(-1.0, -1.0), verdict=Verdict(1.0, True))
        for g, q in enumerate(questions)
        for _ in range(samples)
    ]


def test_the_teacher_hears_the_clean_sound_and_reads_the_same_text() -> None:
    question = TASK.questions("train")[0]
    context, _ = hosted()
    views = context.views(rollouts(question))
    assert views[0] is views[1]
    assert views[0] is not None
    ours, theirs = question.messages[-1]["content"], views[0].messages[-1]["content"]
    assert theirs[0] is question.extra["clean"][0]
    assert theirs[0] is not ours[0]
    assert theirs[1] == ours[1]


def test_parts_are_replaced_in_order_over_all_messages() -> None:
    noisy = [{"type": "audio", "audio": name} for name in "abc"]
    clean = [{"type": "audio", "audio": name} for name in "ABC"]
    text = {"type": "text", "text": "and"}
    question = Question(
        "1",
        "?",
        (
            Message(role="system", content="listen"),
            Message(role="user", content=[noisy[0], text, noisy[1]]),
            Message(role="assistant", content="yes"),
            Message(role="user", content=[text, noisy[2]]),
        ),
        extra={"clean": clean},
    )
    found = [message["content"] for message in insert_clean_parts(question)]
    assert found == ["listen", [clean[0], text, clean[1]], "yes", [text, clean[2]]]
    with pytest.raises(ValueError, match="hold 3 sounds or images, but extra\\['clean'\\] has 2"):
        insert_clean_parts(replace(question, extra={"clean": clean[:2]}))


def test_a_question_without_clean_parts_has_no_teacher_and_no_text() -> None:
    first, second = TASK.questions("train")[:2]
    bare = replace(first, extra={})
    context, host = hosted()
    batch = rollouts(bare, second)
    found = context.prepare_batch(batch)
    assert found[:4] == batch
    assert [r.group for r in found[4:]] == [1]
    assert [view is None for view in context.views(found)] == [True, True, False, False, False]
    assert len(host.asked) == 1


def test_the_teacher_s_text_is_nobody_s_answer() -> None:
    context, _ = hosted()
    found = context.prepare_batch(rollouts(*TASK.questions("train")[:2]))
    texts = found[4:]
    assert [r.group for r in texts] == [0, 1]
    for text in texts:
        assert text.origin == "teacher"
        assert text.ids == (7, 1, 1)
        assert text.text == "7 1 1"
        assert text.verdict is None
        assert text.logprobs is None
        assert text.siblings == ()


def test_a_frozen_teacher_writes_once_a_question_also_after_resuming() -> None:
    first, second, third = TASK.questions("train")[:3]
    context, host = hosted()
    before = context.prepare_batch(rollouts(first, second))
    context.prepare_batch(rollouts(second, third))
    assert len(host.asked) == 3
    again, other = hosted()
    again.load_state_dict(context.state_dict())
    assert again.prepare_batch(rollouts(first, second))[4:] == before[4:]
    assert other.asked == []


def test_a_teacher_that_moves_writes_anew() -> None:
    context, host = hosted(LiveTeacher())
    for _ in range(2):
        context.prepare_batch(rollouts(TASK.questions("train")[0]))
    assert len(host.asked) == 2


def test_without_text_the_batch_stays_as_it_is() -> None:
    context, host = hosted(teacher_text=False)
    batch = rollouts(TASK.questions("train")[0])
    assert context.prepare_batch(batch) == batch
    assert host.asked == []


def test_bad_limits_name_themselves() -> None:
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        CleanInput(max_new_tokens=0)
    with pytest.raises(ValueError, match="max_prompt_tokens=0"):
        CleanInput(max_prompt_tokens=0)
