"""Fuzz the config loader and the import of a critique cache's export.

    python -m benchmarks.reliability.fuzz_files --cases 1000000

A config is YAML text: random pieces (aliases, tags, brackets, huge numbers, control characters), or
a shipped config with damage. It gives values, or an error that becomes one line. A row of an export
has missing, wrong, huge or damaged values. It gives an entry that becomes the same row again, or a
`ValueError` of one line. One case in 1,000 is a parquet file of such a row, some behind a good row,
some with damaged bytes. It is imported whole, or refused before the cache is created.

Then the time per character is compared between two lengths.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import yaml  # type: ignore[import-untyped]
from jsonargparse import get_loader

from benchmarks.grid import ROOT
from benchmarks.reliability.fuzzing import Subject, find_slowest, fuzz, parse_options, report
from lightning_sd.cli.errors import condense
from lightning_sd.cli.guards import install_yaml_guard
from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.maintenance import import_cache
from lightning_sd.critique.cache.records import convert_from_row, convert_to_row

CONFIG = (ROOT / "configs" / "quickstart.yaml").read_text(encoding="utf-8")
YAML_PIECES = (
    *("a: ", "b: ", "- ", "? ", ": ", "\n", "\n  ", " ", "\t", "[", "]", "{", "}", ",", "#", "|\n"),
    *("&a ", "*a", "<<: ", "<<: *a", "[*a, *a]", "&a [*a]", "---\n", "...\n", "%YAML 9\n", ">\n"),
    *("!!int ", "!!float ", "!!timestamp ", "!!binary ", "!!set ", "!!omap ", "!!pairs ", "!x "),
    *("!!bool ", "!!python/object/apply:os.system ", "'", '"', '"\\ud800"', "\\x1b[2J", "=", "~"),
    *("9" * 5000, "0x" + "f" * 5000, "1:" * 30, "1e999", ".nan", "-.inf", "null", "yes", "1_0"),
    *(
        "2020-13-45",
        "0o8",
        "\x00",
        "\x1b[2J",
        "\ud800",
        "\ufeff",
        "\u2028",
        "é",
        "word",
        "class_path: ",
    ),
)
ROW: dict[str, Any] = {
    **{"id": "1", "question": "1+1?", "reference": None, "answer": "2", "attempt": "3"},
    **{"correct": False, "finished": True, "critique": "2", "case": "D", "refused": None},
    **{"copied": [1], "changed": [], "added": [2], "tokens": 3, "seconds": 0.5, "created": 1.5},
    **{"asked": 1, "critic": '{"critic":"me"}'},
}
VALUES = (
    *(None, True, False, 0, 1, -1, 2**62, 2**63, 2**80, 0.0, 0.5, -1.0, 1e308),
    *(
        float("nan"),
        float("inf"),
        "",
        "7",
        "text",
        "x" * 10_000,
        "\x00",
        "\x1b[2J",
        "\ud800",
        b"\xff",
    ),
    *([], [1], [None], [-1], [2**70], [True], ["1"], [[1]], {}, {"a": 1}),
    *("{}", "[]", "null", "{", '{"a":NaN}', '{"a":1e999}', '{"a":"\\ud800"}', "[" * 100_000),
    *('{"a":' * 20_000, '{"a":' + "9" * 5000 + "}", '{"a":1,"a":2}', '{"a":{"b":[1.5,null]}}'),
)
LENGTHS = (12_500, 100_000)

install_yaml_guard()
LOAD: Callable[[str], Any] = get_loader("yaml")


def write_config(rng: random.Random) -> str:
    """Draw a config: random pieces, or a shipped config with damage."""
    if rng.random() < 0.9:
        return "".join(rng.choices(YAML_PIECES, k=rng.randrange(12)))
    text = CONFIG
    for _ in range(rng.randrange(1, 4)):
        start = rng.randrange(len(text))
        text = text[:start] + rng.choice(YAML_PIECES) + text[start + rng.randrange(20) :]
    return text


def check_config(text: str) -> bool:
    try:
        LOAD(text)
    except yaml.YAMLError as error:
        message = condense(str(error))
    else:
        return True
    assert "\n" not in message
    return False


def write_row(rng: random.Random) -> dict[str, Any]:
    """Draw a row: one to three columns of a good row are replaced."""
    return {
        **ROW,
        **{rng.choice(list(ROW)): rng.choice(VALUES) for _ in range(rng.randrange(1, 4))},
    }


def check_row(row: dict[str, Any]) -> bool:
    try:
        entry = convert_from_row(row)
    except ValueError as error:
        message = str(error)
    else:
        assert convert_from_row(convert_to_row(entry)) == entry
        return True
    assert "\n" not in message
    return False


def write_file(rng: random.Random) -> bytes:
    """Draw a parquet file of a good and a drawn row; every second file is damaged."""
    row = write_row(rng)
    try:
        content = bytearray(encode([ROW, row] if rng.random() < 0.5 else [row]))
    except (pa.ArrowException, OverflowError, UnicodeError):  # parquet cannot hold such a column
        content = bytearray(encode([ROW]))
    if rng.random() < 0.5:
        for _ in range(rng.randrange(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        del content[len(content) - rng.choice([0, 0, rng.randrange(len(content))]) :]
    return bytes(content)


def encode(rows: list[dict[str, Any]]) -> bytes:
    """Return the bytes of a parquet file of the rows."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def check_file(content: bytes) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path, target = Path(folder, "rows.parquet"), Path(folder, "cache")
        path.write_bytes(content)
        try:
            import_cache(target, path)
        except ValueError:
            assert not target.exists(), "half written"
            return False
        cache = CritiqueCache(target)
        assert len(cache) <= pq.ParquetFile(path).metadata.num_rows
        cache.close()
    return True


SUBJECTS = {
    "YAML of configs": Subject(write_config, check_config),
    "rows of a cache's export": Subject(write_row, check_row),
}
FILES = {"files of a cache's export": Subject(write_file, check_file)}
CASES_PER_FILE = 1000
"""A file takes longer than the other cases."""


def read_identity(text: str) -> None:
    check_row({**ROW, "critic": text})


def read_attempt(text: str) -> None:
    check_row({**ROW, "attempt": text})


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(__doc__, arguments)
    tallies = fuzz(SUBJECTS, options.cases, options.seed, options.minutes)
    tallies |= fuzz(FILES, options.cases // CASES_PER_FILE, options.seed, options.minutes)
    readers = {"config": check_config, "critic": read_identity, "attempt": read_attempt}
    rates = find_slowest(readers, YAML_PIECES, LENGTHS)
    return report("Fuzzing of configs and exports", "fuzz_files", options, tallies, rates, LENGTHS)


if __name__ == "__main__":
    raise SystemExit(main())
