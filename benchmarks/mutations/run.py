"""Mutation test of the package's heart: change one place, run its tests, expect a failure.

    python -m benchmarks.mutations.covering lightning_sd tests   # once: the tests of each line
    python -m benchmarks.mutations.run --glue                    # the named places of glue.py
    python -m benchmarks.mutations.run --number 500 --seed 0     # a random sample
    python -m benchmarks.mutations.run --again                   # the survivors, with new tests
    python -m benchmarks.mutations.run --verify                  # the failing tests, unchanged code

Each mutant runs in a fork of one process that has already imported the libraries. Only the forked
copy sees the changed module; no file is written. An interrupted run continues where it stopped.
"""

from __future__ import annotations

import argparse
import ast
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.grid import ROOT, Row, read_rows
from benchmarks.mutations.covering import Covering
from benchmarks.mutations.draw import Drawn, draw, list_drawable
from benchmarks.mutations.fork import Result, import_libraries, run_fork
from benchmarks.mutations.glue import GLUE
from benchmarks.mutations.heart import ROOMS
from benchmarks.mutations.report import write_report

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"
LONGEST = 120.0
"""Processor seconds of a mutant's tests in one fork, as recorded; slower tests are left out."""


def run_drawn(drawn: Drawn, covering: Covering) -> Row:
    """Run the tests of a mutant's line: first those of its room, then all others."""
    mutant = drawn.mutant
    tests = covering.find_tests(drawn.file, {mutant.line, mutant.statement})
    own = [test for test in tests if test.startswith((f"tests/{drawn.room}/", drawn.file))]
    seconds, result, left_out = 0.0, Result("untested", "", 0.0), 0
    for part in (own, [test for test in tests if test not in set(own)]):
        chosen = list(_take(part, covering.seconds))
        left_out += len(part) - len(chosen)
        if not chosen:
            continue
        limit = 30 + 4 * sum(covering.seconds[test] for test in chosen)
        result = run_fork(drawn.path, mutant.build(), chosen, limit)
        seconds += result.seconds
        if result.name not in ("survived", "untested"):
            break
    return {
        "key": drawn.key,
        "room": drawn.room,
        "file": drawn.file,
        "line": mutant.line,
        "change": mutant.change,
        "text": drawn.text,
        "result": result.name,
        "test": result.test,
        "tests_left_out": left_out,
        "seconds": round(seconds, 1),
    }


def _take(tests: Sequence[str], seconds: dict[str, float]) -> Iterator[str]:
    """Yield the fastest tests up to ``LONGEST`` in all."""
    total = 0.0
    for test in tests:
        total += seconds[test]
        if total > LONGEST:
            return
        yield test


def run_sample(number: int, seed: int, end: float) -> None:
    """Run drawn mutants that have no row yet; other samples' mutants are not drawn again."""
    rows = [row for row in read_rows(RESULTS) if "sample" in row]
    others = {row["key"] for row in rows if row["sample"] != seed}
    done = {row["key"] for row in rows}
    covering = Covering.load()
    for drawn in draw(number, seed, others):
        if drawn.key not in done and time.monotonic() < end:
            _append({**run_drawn(drawn, covering), "sample": seed})


def run_again(end: float) -> None:
    """Run the survivors again, in order to count what new tests notice."""
    rows = read_rows(RESULTS)
    covering = Covering.load()
    known = {drawn.key: drawn for room in ROOMS for drawn in list_drawable(room)}
    for row in rows:
        lives = row["result"] in ("survived", "untested") and row.get("after") != "killed"
        if lives and "equivalent" not in row and row.get("key") in known:
            if time.monotonic() > end:
                break
            found = run_drawn(known[row["key"]], covering)
            row |= {"after": found["result"], "test": found["test"]}
            print(row, flush=True)
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run_glue() -> None:
    """Run the named places of ``glue.py``, in place of their former rows."""
    rows = [row for row in read_rows(RESULTS) if "glue" not in row]
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for place in GLUE:
        path = ROOT / "lightning_sd" / place.path
        source = path.read_text(encoding="utf-8")
        if source.count(place.old) != 1:
            raise ValueError(f"{place.path}: {place.old!r} must occur once, for {place.name!r}.")
        tree = ast.parse(source.replace(place.old, place.new))
        result = run_fork(path, tree, [f"tests/{name}" for name in place.tests], 300)
        _append({"glue": place.name, "result": result.name, "test": result.test})


def verify() -> None:
    """Run each test that killed a mutant on the unchanged package, where it has to pass."""
    tests = list(dict.fromkeys(row["test"] for row in read_rows(RESULTS)))
    named = [test for test in tests if "::" in test]
    print(f"{len(named)} tests, unchanged package: {run_fork(None, None, named, 1200)}")


def _append(row: Row) -> None:
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glue", action="store_true", help="run the named places")
    parser.add_argument("--number", type=int, default=0, help="size of the sample")
    parser.add_argument("--seed", type=int, default=0, help="which sample")
    parser.add_argument("--again", action="store_true", help="run the survivors again")
    parser.add_argument("--verify", action="store_true", help="run the failing tests unchanged")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after this time")
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    import_libraries()
    if args.glue:
        run_glue()
    if args.number:
        run_sample(args.number, args.seed, end)
    if args.again:
        run_again(end)
    if args.verify:
        verify()
    write_report(RESULTS, HERE / "results.md")


if __name__ == "__main__":
    main()
