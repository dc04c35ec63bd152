"""Where rubrics come from."""

from __future__ import annotations

import pytest

from lightning_sd.contexts.rubrics import Rubric
from lightning_sd.contexts.rubrics.sources import (
    GeneratedRubric,
    GenericRubric,
    GroundTruthRubric,
    RandomRubric,
    ReducedRubric,
    RubricSource,
    make_rubric_key,
)
from lightning_sd.contexts.rubrics.store import TextStore
from lightning_sd.types import Question
from tests.contexts.rubrics.test_rubric import criteria


def question(name, rubric=None):
    extra = {} if rubric is None else {"rubric": rubric}
    message = {"role": "user", "content": name}
    return Question(name, name, (message,), reference=f"ref {name}", extra=extra)


def named(name):
    return criteria(title=name)


def test_ground_truth_and_its_absence_and_its_faults():
    found = GroundTruthRubric().read_rubrics([question("a", named("a")), question("b")])
    assert found == [Rubric.from_list(named("a")), None]
    with pytest.raises(ValueError, match=r"'c'.*no negative"):
        GroundTruthRubric().read_rubrics([question("c", named("c")[:2] * 2)])


def test_generic_rubric_has_six_criteria_and_may_be_replaced():
    ours, again = GenericRubric().read_rubrics([question("a"), question("b")])
    assert ours == again
    assert len(ours.criteria) == 6
    assert GenericRubric(named("z")).read_rubrics([question("a")]) == [Rubric.from_list(named("z"))]
    with pytest.raises(ValueError, match="2 criteria"):
        GenericRubric(named("z")[:2])


def test_random_rubric_is_never_ones_own_and_does_not_depend_on_order():
    questions = [question(name, named(name)) for name in "abcd"] + [question("e")]
    found = RandomRubric().read_rubrics(questions)
    titles = [rubric.criteria[0].title for rubric in found]
    assert all(title != q.id for title, q in zip(titles, questions, strict=True))
    assert len(set(titles)) > 1
    assert RandomRubric().read_rubrics(questions[::-1]) == found[::-1]
    assert RandomRubric().read_rubrics(questions[:1]) == [None]


def test_reduced_rubric_keeps_the_weightiest_in_their_order_and_all_negative_ones():
    class Base(RubricSource):
        def read_rubrics(self, questions):
            value = [
                {"title": t, "description": "D.", "weight": w}
                for t, w in [("a", 2), ("n", -1), ("b", 9), ("c", 1), ("d", 5)]
            ]
            return [Rubric.from_list(value), None]

    reduced, none = ReducedRubric(Base(), keep=2).read_rubrics([question("x"), question("y")])
    assert [criterion.title for criterion in reduced.criteria] == ["n", "b", "d"]
    assert none is None
    with pytest.raises(ValueError, match="keep=0"):
        ReducedRubric(keep=0)


def test_generated_rubrics_need_a_file_and_one_generator(tmp_path):
    path = tmp_path / "rubrics.jsonl"
    with pytest.raises(FileNotFoundError, match="Write the rubrics first"):
        GeneratedRubric(str(path))
    store, asked = TextStore(path), question("a")
    for generator, title in (("g1", "one"), ("g2", "two")):
        entry = {"generator": generator, "rubric": named(title), "refused": None}
        store.put({make_rubric_key(generator, asked): entry})
    with pytest.raises(ValueError, match=r"\['g1', 'g2'\]"):
        GeneratedRubric(str(path)).read_rubrics([asked])
    with pytest.raises(ValueError, match="'g3'"):
        GeneratedRubric(str(path), "g3").read_rubrics([asked])
    found = GeneratedRubric(str(path), "g2").read_rubrics([asked, question("b")])
    assert found == [Rubric.from_list(named("two")), None]
