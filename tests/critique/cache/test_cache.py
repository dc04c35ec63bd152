import gc
import multiprocessing
import os
import pickle
import sqlite3
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_sd._serialize import write_canonical_json
from lightning_sd.critique.base import CritiqueRequest
from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.keys import compute_key, compute_keys
from lightning_sd.types import Critique, Question, Verdict
from tests.critique.cache.fakes import echo, request

ME = {"critic": "me", "model": {"name": "m", "dtype": "float32"}, "prompt": "p", "n": 3}
fork = multiprocessing.get_context("fork")


def put(cache, numbers, identity=ME, **options):
    requests = [request(i) for i in numbers]
    return cache.put_many(identity, [(r, echo(r)) for r in requests], **options)


def test_gives_back_all_parts(tmp_path):
    critique = Critique("täxt\0\n", "B", (1, 3), (2,), (4, 5), "too odd", 17, 0.125)
    cache = CritiqueCache(tmp_path)
    [key] = cache.put_many(ME, [(request(), critique)])
    entry = CritiqueCache(tmp_path).get_many([key])[key]
    assert entry.critique == critique
    assert entry.times_asked == 1
    assert entry.created > 1.7e9
    assert list(cache.read_critics().values()) == [ME]


def test_looks_up_many_and_leaves_out_what_is_missing(tmp_path):
    cache = CritiqueCache(tmp_path)
    keys = put(cache, range(1200))
    missing = compute_key(ME, request(1201))
    found = cache.get_many([*keys, missing, keys[0]])
    assert len(cache) == len(found) == 1200
    assert missing not in found
    assert [found[key].critique for key in keys] == [echo(request(i)) for i in range(1200)]
    assert cache.get_many([]) == {}


def test_the_first_answer_stays(tmp_path):
    cache = CritiqueCache(tmp_path)
    [key] = put(cache, [0])
    cache.put_many(ME, [(request(), Critique("other", "A"))], times_asked=[2])
    assert cache.get_many([key])[key].critique == echo(request())


def test_a_refusal_gives_way_to_an_answer_or_a_later_refusal(tmp_path):
    cache = CritiqueCache(tmp_path)
    first, later, answer = (
        Critique("", "D", refused="empty"),
        Critique("", "D", refused="no answer"),
        Critique("good", "D"),
    )

    def after(critique, asked):
        [key] = cache.put_many(ME, [(request(), critique)], times_asked=[asked])
        entry = cache.get_many([key])[key]
        return entry.critique, entry.times_asked

    assert after(first, 1) == (first, 1)
    assert after(later, 1) == (first, 1)
    assert after(later, 2) == (later, 2)
    assert after(answer, 1) == (answer, 1)
    assert after(later, 9) == (answer, 1)


def test_a_failed_write_leaves_nothing(tmp_path):
    cache = CritiqueCache(tmp_path)
    with pytest.raises(TypeError):
        cache.put_many(
            ME, [(request(0), echo(request(0))), (request(1), Critique("x", "A", (object(),)))]
        )
    assert len(cache) == 0
    put(cache, [0])  # and the lock is free again
    assert len(cache) == 1


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
PARTS = {
    "identity": st.dictionaries(
        st.sampled_from(["model", "weights", "quantization", "dtype", "prompt", "decoding"]),
        plain,
        min_size=1,
    ),
    "text": st.text(max_size=5),
    "reference": st.none() | st.text(max_size=5),
    "answer": st.none() | st.text(max_size=5),
    "attempt": st.text(max_size=5),
    "correct": st.booleans(),
    "finished": st.booleans(),
}
parts = st.fixed_dictionaries(PARTS)


def key_of(part):
    question = Question("id", part["text"], (), part["reference"], part["answer"])
    verdict = Verdict(float(part["correct"]), part["correct"])
    return compute_key(
        part["identity"], CritiqueRequest(question, part["attempt"], verdict, part["finished"])
    )


@given(parts, parts)
@settings(max_examples=300, deadline=None)
def test_keys_are_equal_only_if_every_part_is(one, other):
    assert (key_of(one) == key_of(other)) == (
        write_canonical_json(one) == write_canonical_json(other)
    )


@given(parts, st.sampled_from(sorted(PARTS)), parts)
@settings(max_examples=300, deadline=None)
def test_a_change_of_any_single_part_changes_the_key(one, name, source):
    other = {**one, name: source[name]}
    assert (key_of(one) == key_of(other)) == (
        write_canonical_json(one[name]) == write_canonical_json(other[name])
    )


def test_text_cannot_move_from_one_part_to_another():
    base = {**ME}
    a = CritiqueRequest(Question("1", "ab", (), "c"), "d", Verdict(0, False))
    b = CritiqueRequest(Question("1", "a", (), "bc"), "d", Verdict(0, False))
    assert compute_key(base, a) != compute_key(base, b)


def test_the_version_is_part_of_the_key(monkeypatch):
    before = compute_key(ME, request())
    monkeypatch.setattr("lightning_sd.critique.cache.keys.SCHEMA", -1)
    assert compute_key(ME, request()) != before


def test_white_space_of_an_attempt_is_part_of_the_key():
    """A critic that copies steps word for word may repeat it."""
    texts = ["a", "a\n", " a", "a "]
    attempts = [replace(request(), attempt=text) for text in texts]
    assert len({compute_key(ME, attempt) for attempt in attempts}) == len(texts)


def test_what_does_not_decide_a_critique_is_no_part_of_the_key():
    same = replace(
        request(),
        question=replace(request().question, id="other", messages=(), extra={"a": 1}),
        verdict=Verdict(0.3, False, "other", "feedback"),
        previous_refusal="again",
    )
    assert compute_key(ME, same) == compute_key(ME, request())


@pytest.mark.parametrize("identity", [{"a": object()}, {"a": float("nan")}, {"a": {1, 2}}])
def test_an_identity_that_is_not_plain_is_refused(identity):
    with pytest.raises(TypeError, match="plain JSON"):
        compute_key(identity, request())


def test_one_critics_words_are_never_served_as_anothers(tmp_path):
    cache = CritiqueCache(tmp_path)
    put(cache, range(5))
    for change in ({"prompt": "q"}, {"n": 4}, {"model": {"name": "m", "dtype": "bfloat16"}}):
        other = compute_keys({**ME, **change}, [request(i) for i in range(5)])
        assert cache.get_many(other) == {}


def test_lone_surrogates_do_not_break_the_cache(tmp_path):
    cache = CritiqueCache(tmp_path)
    odd = request(attempt="\ud800")
    [key] = cache.put_many(ME, [(odd, Critique("\udfff", "D", refused="\ud800"))])
    assert cache.get_many([compute_key(ME, odd)])[key].critique.text == "?"


def test_no_pickle_and_other_files_are_refused(tmp_path):
    (tmp_path / "critiques.sqlite").write_bytes(pickle.dumps(["not", "a", "database"] * 1000))
    with pytest.raises(ValueError, match="not a critique cache"):
        CritiqueCache(tmp_path)


def test_another_version_is_refused(tmp_path):
    cache = CritiqueCache(tmp_path)
    cache.close()
    with sqlite3.connect(cache.path) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(ValueError, match="version 99"):
        CritiqueCache(tmp_path)


def test_a_strange_database_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "critiques.sqlite") as connection:
        connection.execute("CREATE TABLE mine (a)")
    with pytest.raises(ValueError, match="Name another"):
        CritiqueCache(tmp_path)


def test_pickled_and_forked_copies_share_the_file(tmp_path):
    cache = CritiqueCache(tmp_path)
    put(cache, [0])
    copy = pickle.loads(pickle.dumps(cache))
    put(copy, [1])

    def child():
        put(cache, [2])
        assert len(cache) == 3
        os._exit(0)

    process = fork.Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert len(cache) == len(copy) == 3


def test_threads_have_connections_of_their_own(tmp_path):
    cache = CritiqueCache(tmp_path)
    threads = [threading.Thread(target=put, args=(cache, range(i, i + 30))) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache) == 35


def open_files(folder):
    """How many files of a folder this process holds open."""
    held = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    return sum(path.startswith(str(folder)) for path in held)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_a_thread_that_ends_closes_its_connection(tmp_path):
    cache = CritiqueCache(tmp_path)
    held = []
    gc.disable()
    try:
        for i in range(10):
            thread = threading.Thread(target=put, args=(cache, [i]))
            thread.start()
            thread.join()
            held.append(open_files(tmp_path))
    finally:
        gc.enable()
    # SQLite itself may keep one descriptor for later, not one a thread.
    assert max(held[2:]) == held[1] > 0


def test_a_connection_in_use_outlives_the_cache_that_it_was_taken_from(tmp_path):
    assert CritiqueCache(tmp_path).database.connection.execute("SELECT 1").fetchone() == (1,)


def _open_and_write(path, first):
    cache = CritiqueCache(path)
    for i in range(first, first + 20):
        put(cache, [i])


def test_many_processes_may_create_and_write_at_once(tmp_path):
    processes = [fork.Process(target=_open_and_write, args=(tmp_path, 10 * i)) for i in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    assert len(CritiqueCache(tmp_path)) == 70
