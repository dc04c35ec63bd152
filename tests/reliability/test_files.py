"""No config and no export of a cache ends in anything but values or an error of one line."""

from __future__ import annotations

import io
import random
from contextlib import redirect_stderr

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import get_loader

from benchmarks.reliability import fuzz_files
from lightning_sd.cli.guards import OneLineParser
from lightning_sd.critique.cache.maintenance import import_cache

CONFIGS = st.one_of(
    st.lists(st.sampled_from(fuzz_files.YAML_PIECES), max_size=8).map("".join),
    st.text(st.characters(), max_size=20),
)
ROWS = st.dictionaries(
    st.sampled_from(sorted(fuzz_files.ROW)), st.sampled_from(fuzz_files.VALUES), max_size=3
).map(lambda changed: {**fuzz_files.ROW, **changed})


@settings(max_examples=500, deadline=None)
@given(CONFIGS)
def test_a_config_gives_values_or_an_error_of_one_line(text):
    fuzz_files.check_config(text)


@settings(max_examples=500, deadline=None)
@given(ROWS)
def test_a_row_gives_an_entry_or_is_refused(row):
    fuzz_files.check_row(row)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_a_file_is_imported_whole_or_not_at_all(seed):
    fuzz_files.check_file(fuzz_files.write_file(random.Random(seed)))


@pytest.mark.parametrize(
    "text",
    [
        "n: " + "9" * 5000,
        "n: !!timestamp never",
        "n: !!bool x",
        "n: \ud800",
        "[" * 100_000,
        "- " * 100_000,
        "n: !!python/object/apply:os.system [ls]",
    ],
)
def test_the_parser_ends_with_one_line(text):
    parser = OneLineParser(prog="test")
    parser.add_argument("--n", type=int)
    fuzz_files.install_yaml_guard()
    printed = io.StringIO()
    with redirect_stderr(printed), pytest.raises(SystemExit) as stopped:
        parser.parse_string(text)
    assert stopped.value.code == 2
    assert printed.getvalue().startswith("error: ")
    assert printed.getvalue().count("\n") == 1


def test_usual_yaml_is_read():
    assert get_loader("yaml")("a: &a 3\nb: [*a, .nan]\n")["b"][0] == 3
    assert fuzz_files.check_config(fuzz_files.CONFIG)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("critic", "{", "critic='{': is not JSON"),
        ("critic", "[" * 100_000, "is not JSON"),
        ("critic", "[]", "must be a JSON object"),
        ("attempt", None, "attempt=None: must be of type str"),
        ("tokens", -1, "must be at least 0"),
        ("seconds", float("nan"), "must be at least 0"),
        ("copied", [1, None], "copied=None: must be of type int"),
    ],
)
def test_a_damaged_row_is_refused_by_its_number_and_nothing_is_written(
    tmp_path, column, value, message
):
    # 1,500 rows are more than one batch: the first must not be written either.
    rows = [{**fuzz_files.ROW, "attempt": str(i)} for i in range(1500)]
    rows[-1][column] = value
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: row 1500: ") as refusal:
        import_cache(tmp_path / "cache", tmp_path / "a.parquet")
    assert message in str(refusal.value)
    assert not (tmp_path / "cache").exists()


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + b"\x00" * 50)
    with pytest.raises(ValueError, match=r"a\.parquet: .*export"):
        import_cache(tmp_path / "cache", tmp_path / "a.parquet")
