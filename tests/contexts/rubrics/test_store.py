"""Entries outlive kills, and processes see each other's."""

from __future__ import annotations

import multiprocessing

import pytest

from lightning_sd.contexts.rubrics.store import TextStore, make_text_key


def test_what_one_adds_another_sees_and_the_last_entry_counts(tmp_path):
    one, other = TextStore(tmp_path / "a" / "b.jsonl"), TextStore(tmp_path / "a" / "b.jsonl")
    assert other.get("k") is None
    one.put({"k": {"text": "first"}, "l": {"text": "ä\n"}})
    assert other.get("k") == {"text": "first"}
    other.put({"k": {"text": "second"}})
    assert one.get("k") == {"text": "second"}
    assert dict(TextStore(one.path).iterate()) == {"k": {"text": "second"}, "l": {"text": "ä\n"}}


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_cut_off_by_a_kill_is_passed_over_and_does_not_spoil_the_next(tmp_path, cut):
    path = tmp_path / "b.jsonl"
    TextStore(path).put({"whole": {"text": "1"}})
    TextStore(path).put({"broken": {"text": "2"}})
    path.write_bytes(path.read_bytes()[:-cut])
    store = TextStore(path)
    assert store.get("broken") is None
    store.put({"next": {"text": "3"}})
    # Cut by its line feed alone, the line is whole again as soon as another follows.
    assert (store.get("broken") is not None) == (cut == 1)
    assert store.get("whole") == {"text": "1"}
    assert store.get("next") == {"text": "3"}


def _add(path, name):
    for i in range(50):
        TextStore(path).put({f"{name}{i}": {"text": name * 500}})


def test_processes_may_add_at_the_same_time(tmp_path):
    path = tmp_path / "b.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add, args=(path, name)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(dict(TextStore(path).iterate())) == 100


def test_keys_differ_by_each_part():
    keys = {
        make_text_key(a=1, b=None),
        make_text_key(a=2, b=None),
        make_text_key(a=1, b=""),
        make_text_key(a=1),
    }
    assert len(keys) == 4
