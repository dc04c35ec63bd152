import datetime
import sqlite3
from dataclasses import replace

import pytest

from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.keys import compute_keys
from lightning_sd.critique.cache.maintenance import (
    export_cache,
    import_cache,
    merge_caches,
    summarize_cache,
    verify_cache,
)
from lightning_sd.critique.cache.records import read_entries
from lightning_sd.tasks.dataset import DatasetTask
from lightning_sd.types import Critique
from tests.critique.cache.fakes import echo, request

ME, OTHER = {"critic": "me", "n": 1}, {"critic": "other"}


def filled(path, numbers=range(5), identity=ME, critique=echo):
    cache = CritiqueCache(path)
    requests = [request(i) for i in numbers]
    cache.put_many(identity, [(r, critique(r)) for r in requests])
    return cache


def refused(asked):
    return Critique("", "D", refused="empty", tokens=3)


def test_stats(tmp_path):
    filled(tmp_path)
    filled(tmp_path, range(5, 7), OTHER, refused)
    cache = filled(tmp_path, [3], OTHER)
    found = summarize_cache(tmp_path)
    assert (found["critiques"], found["questions"]) == (8, 7)
    assert (found["cases"], found["refused"]) == ({"D": 6}, {"empty": 2})
    assert found["tokens"] == 6 * 5 + 2 * 3
    assert found["seconds"] == 6 * 0.25
    assert sorted(c["critiques"] for c in found["critics"]) == [3, 5]
    assert found["bytes"] >= cache.path.stat().st_size
    now = datetime.datetime.now().timestamp()
    assert now - 600 < found["first"] <= found["last"] <= now


def test_an_empty_cache_has_stats_too(tmp_path):
    CritiqueCache(tmp_path)
    assert summarize_cache(tmp_path)["critiques"] == 0
    assert verify_cache(tmp_path) == []


@pytest.mark.parametrize(
    "act", [summarize_cache, verify_cache, lambda path: export_cache(path, path / "x.parquet")]
)
def test_a_cache_that_is_not_there_is_not_made(tmp_path, act):
    with pytest.raises(FileNotFoundError, match=r"critiques\.sqlite"):
        act(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ("UPDATE critiques SET text = text || 'x' WHERE rowid = 2", "checksum"),
        ("UPDATE critiques SET \"case\" = 'A' WHERE rowid = 2", "checksum"),
        ("UPDATE critiques SET refused = 'empty' WHERE rowid = 2", "checksum"),
        ("UPDATE critiques SET seconds = seconds + 1e-9 WHERE rowid = 2", "checksum"),
        ("UPDATE critiques SET attempt = 'right' WHERE rowid = 2", "key"),
        ("UPDATE critiques SET correct = 1 WHERE rowid = 2", "key"),
        ("UPDATE critiques SET question = 1 WHERE rowid = 2", "key"),
        ("UPDATE critiques SET critic = 7 WHERE rowid = 2", "missing"),
        ("DELETE FROM questions WHERE id = 2", "missing"),
        ("UPDATE critics SET digest = 'abc'", "key"),
    ],
)
def test_verify_finds_damage(tmp_path, damage, finding):
    cache = filled(tmp_path)
    assert verify_cache(tmp_path) == []
    with sqlite3.connect(cache.path) as connection:
        connection.execute(damage)
    found = verify_cache(tmp_path)
    assert all(finding in line for line in found)
    assert len(found) == (5 if "critics" in damage else 1)


def test_merge_brings_what_is_missing_and_keeps_the_rest(tmp_path):
    target = filled(tmp_path / "a", range(3))
    target.put_many(ME, [(request(9), refused(None))])
    filled(tmp_path / "b", range(2, 6), critique=lambda r: Critique("b", "D"))
    filled(tmp_path / "b", [9], critique=echo)
    filled(tmp_path / "c", range(3), OTHER)
    brought = merge_caches(tmp_path / "a", [tmp_path / "b", tmp_path / "c"])
    assert list(brought.values()) == [4, 3]
    keys = compute_keys(ME, [request(i) for i in (2, 3, 9)])
    found = target.get_many(keys)
    assert [found[key].critique.text for key in keys] == ["[wrong]", "b", "[wrong]"]
    assert len(target) == 10
    assert verify_cache(tmp_path / "a") == []
    assert merge_caches(tmp_path / "a", [tmp_path / "b"]) == {
        str(tmp_path / "b" / "critiques.sqlite"): 0
    }


def test_merge_into_a_source_or_from_nowhere(tmp_path):
    filled(tmp_path / "a")
    with pytest.raises(ValueError, match="one of the sources"):
        merge_caches(tmp_path / "a", [tmp_path / "a" / "critiques.sqlite"])
    with pytest.raises(FileNotFoundError):
        merge_caches(tmp_path / "new", [tmp_path / "a", tmp_path / "nowhere"])
    assert not (tmp_path / "new").exists()


def test_export_and_import_give_the_same_cache(tmp_path):
    cache = filled(tmp_path / "a")
    cache.put_many(OTHER, [(request(9), refused(None))], times_asked=[2], created=[12.5])
    assert export_cache(tmp_path / "a", tmp_path / "out" / "a.parquet") == 6
    assert import_cache(tmp_path / "b", tmp_path / "out" / "a.parquet") == 5
    assert import_cache(tmp_path / "b", tmp_path / "out" / "a.parquet") == 0
    assert list(read_entries(CritiqueCache(tmp_path / "b"))) == list(read_entries(cache))
    assert verify_cache(tmp_path / "b") == []


def test_an_export_is_a_data_set_to_train_on(tmp_path):
    filled(tmp_path / "a", range(60))
    export_cache(tmp_path / "a", tmp_path / "a.parquet")
    names = ("question", "reference", "answer", "attempt", "finished", "critique")
    task = DatasetTask(
        str(tmp_path / "a.parquet"), {name: name for name in names}, val_fraction=0.2
    )
    question = task.questions("train")[0]
    assert question.attempt == "wrong"
    assert question.extra == {"finished": True, "critique": "[wrong]"}
    assert question.reference == f"It is {question.answer}."


def test_import_of_something_else(tmp_path):
    import datasets

    datasets.Dataset.from_list([{"question": "a"}]).to_parquet(str(tmp_path / "a.parquet"))
    with pytest.raises(ValueError, match=r"critique.* missing"):
        import_cache(tmp_path, tmp_path / "a.parquet")
    assert not (tmp_path / "critiques.sqlite").exists()


def test_ids_name_no_files(tmp_path):
    cache = CritiqueCache(tmp_path / "a")
    question = replace(request().question, id="../../evil")
    cache.put_many(ME, [(replace(request(), question=question), echo(request()))])
    export_cache(tmp_path / "a", tmp_path / "b" / "c.parquet")
    import_cache(tmp_path / "d", tmp_path / "b" / "c.parquet")
    assert next(read_entries(CritiqueCache(tmp_path / "d"))).request.question.id == "../../evil"
    assert {p.name for p in tmp_path.iterdir()} == {"a", "b", "d"}
    assert not (tmp_path.parent / "evil").exists()
