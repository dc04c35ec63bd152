"""The task whose open answers are judged by rubrics, and that of writing them."""

from __future__ import annotations

import json

import pytest

from lightning_sd.contexts.rubrics import Rubric
from lightning_sd.lab import CreatureTask
from lightning_sd.lab.creature_facts import (
    ASPECTS,
    FORMS,
    THINGS,
    VALUES,
    Fact,
    get_fact,
    get_mistake,
    read_facts,
)
from lightning_sd.lab.creature_task import build_creature_rubric, list_spare_questions, score_rubric
from lightning_sd.tasks import RubricWritingTask

FACTS = [Fact("home", "cave"), Fact("food", "eggs"), Fact("voice", "sings")]
RUBRIC = build_creature_rubric(FACTS, Fact("home", "coast"))  # weights 5, 3, 4, -1


@pytest.mark.parametrize(
    ("answer", "earned"),
    [
        ("It lives in the cave. It eats eggs. It sings.", 12),
        ("Its home is the cave. So: \nIts food is eggs! One hears that it sings", 12),
        ("It lives in the cave. It is red. It sings.", 9),
        (
            "It lives in the cave. It eats roots. It eats eggs. It sings.",
            9,
        ),  # only the first counts
        ("It eats eggs. It lives in the cave. It sings.", 9),  # eggs come too early
        ("It sings. It eats eggs. It lives in the cave.", 5),
        ("It lives in the coast. It eats eggs. It sings.", 6),  # 7 - 1
        ("It lives in the cave. It lives in the coast. It eats eggs. It sings.", 11),
        ("It lives in the coast.", 0),  # never below 0
        ("It does not live in the cave. Cave, eggs, sings.", 0),
        ("", 0),
    ],
)
def test_reward_by_hand(answer, earned):
    assert score_rubric(RUBRIC, read_facts(answer)) == earned / 12


def test_a_rubric_that_cannot_be_read_gives_nothing():
    plain = [{**c, "description": "Is good."} for c in RUBRIC.to_list()]
    assert score_rubric(Rubric.from_list(plain), read_facts("It lives in the cave.")) == 0.0


def test_every_sentence_reads_back_and_mistakes_are_wrong():
    for aspect in ASPECTS:
        for value in VALUES[aspect]:
            for form in range(len(FORMS[aspect])):
                assert read_facts(Fact(aspect, value).write(form)) == [Fact(aspect, value)]
        assert all(get_fact(thing, aspect) != get_mistake(thing, aspect) for thing in THINGS)


def test_splits_are_disjoint_and_references_earn_everything():
    task = CreatureTask()
    splits = [[q.text for q in task.questions(split)] for split in ("train", "val", "test")]
    spare = [
        f"Tell of the {thing}: {', '.join(aspects)}." for thing, aspects in list_spare_questions()
    ]
    everything = [text for texts in (*splits, spare) for text in texts]
    assert len(set(everything)) == len(everything)
    for question in task.questions("test"):
        verdict = task.verify(question, question.reference)
        assert (verdict.reward, verdict.correct, verdict.answer) == (1.0, True, question.answer)


@pytest.mark.parametrize("option", [{"train_size": 0}, {"val_size": 1000}])
def test_sizes_out_of_range(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        CreatureTask(**option)


def test_writing_rubrics():
    base = CreatureTask(train_size=2, val_size=1, test_size=1)
    task = RubricWritingTask(base)
    question, original = task.questions("train")[0], base.questions("train")[0]
    assert original.text in question.text
    assert original.reference in question.text
    assert question.messages[-1]["content"] == question.text
    assert task.verify(question, question.reference).correct
    assert task.verify(question, "No.").feedback == "no JSON array of criteria"
    plain = original.extra["rubric"]
    heavier = [{**plain[0], "weight": 9}, *plain[1:]]
    verdict = task.verify(question, json.dumps(heavier))
    assert (verdict.reward, verdict.correct) == (2 * 3 / 8, False)
