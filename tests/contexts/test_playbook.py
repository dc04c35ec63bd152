"""The playbook, CONCISE in both policies by hand, and the buffer of solutions."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lightning_sd.contexts.reflection import Addition, Concise, Item, Playbook, SolutionBuffer
from lightning_sd.contexts.reflection.playbook import SECTIONS


def playbook(*items: tuple[int, int, int, int], update: int) -> Playbook:
    """Lessons p1, p2 ... of (helpful, harmful, added, used)."""
    made = tuple(
        Item(f"p{i}", "others", f"lesson {i}", *numbers) for i, numbers in enumerate(items, start=1)
    )
    return Playbook(made, len(made), update)


def ids(book: Playbook) -> list[str]:
    return [item.id for item in book.items]


def test_lessons_are_added_once_in_known_sections_with_new_ids() -> None:
    book = Playbook(update=3).add(
        [
            Addition("Formulas & Calculations", "  3*7 is 1,\n modulo 10 "),
            Addition("made up", "look twice"),
            Addition("others", "LOOK  twice"),
            Addition("common_mistakes", "   "),
            Addition("common_mistakes", "a sign was lost"),
        ]
    )
    assert [(i.id, i.section, i.text) for i in book.items] == [
        ("p1", "formulas and calculations", "3*7 is 1, modulo 10"),
        ("p2", "others", "look twice"),
        ("p3", "common mistakes", "a sign was lost"),
    ]
    assert {(i.added, i.used) for i in book.items} == {(3, 3)}
    # A lesson that is gone may come again, under another id.
    shorter = replace(book, items=book.items[:1]).add([Addition("others", "look twice")])
    assert ids(shorter) == ["p1", "p4"]


def test_it_is_shown_section_by_section() -> None:
    book = Playbook().add([Addition("others", "c"), Addition(SECTIONS[0], "a")])
    book = book.add([Addition("others", "d")]).count_tags([{"p1": "helpful", "p3": "harmful"}])
    assert book.render() == (
        "## strategies and insights\n"
        "[p2] helpful=0 harmful=0 :: a\n"
        "## others\n"
        "[p1] helpful=1 harmful=0 :: c\n"
        "[p3] helpful=0 harmful=1 :: d"
    )
    assert Playbook().render() == ""


def test_tags_count_and_neutral_ones_are_no_use() -> None:
    book = playbook((0, 0, 0, 0), (1, 1, 0, 2), (0, 0, 0, 0), update=5)
    tagged = book.count_tags(
        [{"p1": "helpful", "p2": "harmful"}, {"p1": "helpful", "p3": "neutral", "p9": "helpful"}]
    )
    assert [(i.helpful, i.harmful, i.used) for i in tagged.items] == [
        (2, 0, 5),
        (1, 2, 5),
        (0, 0, 0),
    ]


MIXED = (
    (3, 1, 0, 4),  # p1 helped more often than it harmed
    (1, 1, 0, 7),  # p2 harmful: as often
    (0, 2, 1, 6),  # p3 harmful
    (0, 0, 6, 6),  # p4 unused, two updates old
    (0, 0, 7, 7),  # p5 unused, one update old
    (1, 0, 2, 5),  # p6 helpful
    (2, 1, 2, 3),  # p7 helpful
)


def test_prioritized_by_hand() -> None:
    book = playbook(*MIXED, update=8)
    assert ids(Concise("prioritized", max_items=10)(book)) == ["p1", "p6", "p7"]
    # Too many: which ones stay is chance, but the same chance each time.
    kept = {tuple(ids(Concise("prioritized", max_items=2, seed=s)(book))) for s in range(20)}
    assert kept == {("p1", "p6"), ("p1", "p7"), ("p6", "p7")}
    once, again = (Concise("prioritized", max_items=2, seed=3)(book) for _ in range(2))
    assert once == again


def test_staleness_by_hand() -> None:
    book = playbook(*MIXED, update=8)
    assert ids(Concise("staleness", max_items=10)(book)) == ["p1", "p5", "p6", "p7"]
    # Then the longest unused go: p7 was last used at 3, p1 at 4, p6 at 5, p5 came at 7.
    assert ids(Concise("staleness", max_items=3)(book)) == ["p1", "p5", "p6"]
    assert ids(Concise("staleness", max_items=1)(book)) == ["p5"]


@pytest.mark.parametrize("policy", ["prioritized", "staleness"])
def test_it_works_every_so_many_updates_or_when_there_are_too_many(policy: str) -> None:
    concise = Concise(policy, every=4, max_items=len(MIXED))  # type: ignore[arg-type]
    for update in range(1, 9):
        book = playbook(*MIXED, update=update)
        assert (concise(book) is book) == (update not in (4, 8))
    assert concise(playbook(*MIXED, update=0)) == playbook(*MIXED, update=0)
    full = playbook(*MIXED, (1, 0, 0, 0), update=7)
    assert len(concise(full)) < len(full)


def test_never_more_than_the_limit_is_left() -> None:
    book = playbook(*[(1, 0, 0, i) for i in range(30)], update=1)
    for policy in ("prioritized", "staleness"):
        assert len(Concise(policy, max_items=7)(book)) == 7  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"policy": "oldest"}, {"every": 0}, {"max_items": 0}], ids=str)
def test_bad_options_are_named(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Concise(**options)  # type: ignore[arg-type]


def test_state_is_plain_data_and_comes_back() -> None:
    book = playbook(*MIXED, update=8).advance()
    state = json.loads(json.dumps(book.state_dict()))
    assert Playbook.from_state(state) == book


def test_buffer_keeps_the_newest_of_each_question_and_is_bounded() -> None:
    buffer = SolutionBuffer(per_question=2, questions=2)
    for text in ("a", "b", "c", "b"):
        buffer.add("q1", text)
    assert buffer.get_newest("q1") == "b"
    assert buffer.get_newest("q1", other_than="b") == "c"
    assert buffer.get_newest("q2") is None
    buffer.add("q2", "x")
    buffer.add("q1", "d")  # q1 is the newest again
    buffer.add("q3", "y")
    assert len(buffer) == 2
    assert buffer.get_newest("q2") is None
    assert buffer.get_newest("q1", other_than="d") == "b"
    again = SolutionBuffer(per_question=2, questions=2)
    again.load_state_dict(json.loads(json.dumps(buffer.state_dict())))
    again.add("q4", "z")
    assert [again.get_newest(q) for q in ("q1", "q3", "q4")] == [None, "y", "z"]


def test_no_buffer_and_empty_solutions() -> None:
    none, one = SolutionBuffer(per_question=0), SolutionBuffer()
    none.add("q", "text")
    one.add("q", "")
    assert none.get_newest("q") is None
    assert one.get_newest("q") is None
    with pytest.raises(ValueError, match="per_question=-1"):
        SolutionBuffer(per_question=-1)
