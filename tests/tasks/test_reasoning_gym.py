import pickle

import pytest

from lightning_sd.tasks.reasoning_gym import ReasoningGymTask

pytest.importorskip("reasoning_gym", reason="needs reasoning-gym, which needs a C compiler")

SIZES = {"train": 30, "val": 10, "test": 10}
SINGLE_DIGITS = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}


def texts(task, split):
    return [question.text for question in task.questions(split)]


def test_splits_are_disjoint_and_of_the_wanted_sizes():
    # 10 x 10 possible sums: without care the splits would share many.
    task = ReasoningGymTask(
        "chain_sum",
        SIZES,
        config={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    )
    split = {name: texts(task, name) for name in SIZES}
    assert {name: len(set(found)) for name, found in split.items()} == SIZES
    assert len(set().union(*split.values())) == sum(SIZES.values())


def test_same_seed_same_questions_other_seed_others():
    first, again = (ReasoningGymTask("chain_sum", SIZES, seed=3) for _ in range(2))
    other = ReasoningGymTask("chain_sum", SIZES, seed=4)
    assert list(first.questions("train")) == list(again.questions("train"))
    assert texts(first, "train") != texts(other, "train")


def test_more_training_questions_leave_the_test_questions_alone():
    small = ReasoningGymTask("chain_sum", SIZES)
    large = ReasoningGymTask("chain_sum", {**SIZES, "train": 60})
    assert texts(small, "test") == texts(large, "test")
    assert texts(small, "train") == texts(large, "train")[:30]


@pytest.mark.parametrize("name", ["chain_sum", "leg_counting", "countdown"])
def test_the_data_sets_own_answer_is_right_and_another_is_wrong(name):
    task = ReasoningGymTask(name, {"train": 3, "val": 1, "test": 1})
    for question in task.questions("train"):
        assert task.verify(question, f"<answer>{question.answer}</answer>").correct
        assert not task.verify(question, "<answer>no idea</answer>").correct
        assert task.verify(question, question.answer).reward == 0  # no tags, no answer


def test_a_scorer_that_accepts_more_than_one_answer_is_used():
    """Countdown: any expression with the given numbers that makes the target."""
    task = ReasoningGymTask("countdown", {"train": 5, "val": 1, "test": 1})
    question = task.questions("train")[0]
    assert task.verify(question, f"<answer>({question.answer})</answer>").correct


def test_verdicts_never_raise():
    task = ReasoningGymTask("countdown", {"train": 1, "val": 1, "test": 1})
    for text in ("", "<answer>((</answer>", "<answer>\x00</answer>", "<answer>1/0</answer>"):
        assert not task.verify(task.questions("train")[0], text).correct


def test_ids_are_unique_and_the_instruction_is_the_system_message():
    task = ReasoningGymTask("chain_sum", SIZES, instruction="Be brief.")
    questions = [q for split in SIZES for q in task.questions(split)]
    assert len({q.id for q in questions}) == len(questions)
    assert questions[0].messages[0] == {"role": "system", "content": "Be brief."}
    bare = ReasoningGymTask("chain_sum", SIZES, instruction=None).questions("val")[0]
    assert [m["role"] for m in bare.messages] == ["user"]


def test_questions_travel_to_loader_workers():
    question = ReasoningGymTask("chain_sum", SIZES).questions("train")[0]
    assert pickle.loads(pickle.dumps(question)) == question


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "chain_some"}, "chain_sum"),
        ({"sizes": {"valid": 3}}, "no split 'valid'"),
        ({"sizes": {"val": 0}}, "at least 1"),
        ({"config": {"terms": 2}}, "terms"),
        ({"config": {"max_terms": 1}}, "max_terms"),
        ({"config": SINGLE_DIGITS}, "different questions"),
    ],
)
def test_bad_options_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ReasoningGymTask(**{"name": "chain_sum", **arguments})
