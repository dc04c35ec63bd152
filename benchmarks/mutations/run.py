"""Mutation test of the package's heart: change one place, run its tests, expect a failure.

    python -m benchmarks.mutations.covering lightning_sd tests   # once: the tests of each line
    python -m benchmarks.mutations.run --glue                    # the named places of glue.py
    python -m benchmarks.mutations.run --number 500 --seed 0     # a random sample
    python -m benchmarks.mutations.run --again                   # the survivors, with new tests
    python -m benchmarks.mutations.run --verify                  # the failing tests, unchanged code

Each mutant runs in a fork of a process that has already imported the libraries. Only the forked
copy sees the changed code; no file is written. An interrupted run continues where it stopped.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from benchmarks.grid import ROOT, Row, read_rows
from benchmarks.mutations.covering import Covering
from benchmarks.mutations.draw import Drawn, draw, list_drawable
from benchmarks.mutations.fork import Result
from benchmarks.mutations.glue import GLUE
from benchmarks.mutations.heart import ROOMS
from benchmarks.mutations.imported import import_libraries, run_imported
from benchmarks.mutations.report import write_report
from benchmarks.mutations.session import Session

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"
BUDGET = 8.0
"""Default processor seconds, as recorded, for the tests of a mutant's room, and as much for the
other tests; slower ones are left out."""

Run = Callable[[Drawn, Sequence[str], float], Result]
Record = Callable[[Drawn, Row], None]


class Limits(NamedTuple):
    """When to stop."""

    end: float
    """No mutant is begun after this reading of ``time.monotonic``."""
    budget: float = BUDGET


def judge(mutants: Sequence[Drawn], record: Record, limits: Limits) -> None:
    """Run the tests of each mutant's lines, and record the results.

    Args:
        mutants: The mutants.
        record: Stores the row of a mutant.
        limits: When to stop.
    """
    covering = Covering.load()
    with tempfile.NamedTemporaryFile("w+") as unpatched:
        # A fork of its own: mutants that are imported need a process without the package.
        session = os.fork()
        if session == 0:
            try:
                _judge_patched(mutants, record, limits, covering, unpatched)
            finally:
                os._exit(0)
        os.waitpid(session, 0)
        unpatched.seek(0)
        keys = set(unpatched.read().split())
    for drawn in mutants:
        if drawn.key in keys:
            record(drawn, _run_tests(drawn, covering, _run_imported, limits.budget))


def _judge_patched(
    mutants: Sequence[Drawn], record: Record, limits: Limits, covering: Covering, unpatched: IO[str]
) -> None:
    def work(session: Session) -> None:
        for drawn in mutants:
            if time.monotonic() > limits.end:
                break
            row = _run_tests(drawn, covering, session.run, limits.budget)
            if row["result"] == "unpatched":
                print(drawn.key, file=unpatched, flush=True)
            else:
                record(drawn, row)

    Session(work).start(sorted({test.partition("::")[0] for test in covering.seconds}))


def _run_imported(drawn: Drawn, tests: Sequence[str], seconds: float) -> Result:
    return run_imported(drawn.path, drawn.mutant.build(), tests, seconds + 30)


def _run_tests(drawn: Drawn, covering: Covering, run: Run, budget: float) -> Row:
    """Run the tests of a mutant's lines: first those of its room, then all others."""
    mutant = drawn.mutant
    tests = covering.find_tests(drawn.file, {mutant.line, mutant.statement})
    own = [test for test in tests if test.startswith((f"tests/{drawn.room}/", drawn.file))]
    seconds, result, left_out = 0.0, Result("untested", "", 0.0), 0
    for part in (own, [test for test in tests if test not in set(own)]):
        chosen = list(_take(part, covering.seconds, budget))
        left_out += len(part) - len(chosen)
        if not chosen:
            continue
        limit = 10 + 4 * sum(covering.seconds[test] for test in chosen)
        result = run(drawn, chosen, limit)
        seconds += result.seconds
        if result.name not in ("survived", "untested"):
            break
    return {
        "result": result.name,
        "test": result.test,
        "tests_left_out": left_out,
        "seconds": round(seconds, 1),
    }


def _take(tests: Sequence[str], seconds: dict[str, float], budget: float) -> Iterator[str]:
    """Yield tests up to a budget in all."""
    total = 0.0
    for test in tests:
        total += seconds[test]
        if total > budget:
            return
        yield test


def run_sample(number: int, seed: int, limits: Limits) -> None:
    """Run drawn mutants that have no row yet; other samples' mutants are not drawn again."""
    rows = [row for row in read_rows(RESULTS) if "sample" in row]
    others = {row["key"] for row in rows if row["sample"] != seed}
    done = {row["key"] for row in rows}

    def record(drawn: Drawn, row: Row) -> None:
        _append({"sample": seed, **_describe(drawn), **row})

    judge([d for d in draw(number, seed, others) if d.key not in done], record, limits)


def run_again(limits: Limits) -> None:
    """Run the survivors again, in order to count what new tests notice."""
    rows = read_rows(RESULTS)
    known = {drawn.key: drawn for room in ROOMS for drawn in list_drawable(room)}
    alive = [
        row["key"]
        for row in rows
        if row["result"] in ("survived", "untested")
        and row.get("after") not in ("killed", "timeout")
        and "equivalent" not in row
        and row.get("key") in known
    ]

    def record(drawn: Drawn, row: Row) -> None:
        rows = read_rows(RESULTS)
        (old,) = (old for old in rows if old.get("key") == drawn.key)
        old.update(after=row["result"], test=row["test"])
        print(old, flush=True)
        _write(rows)

    judge([known[key] for key in alive], record, limits)


def run_glue() -> None:
    """Run the named places of ``glue.py``, in place of their former rows."""
    _write([row for row in read_rows(RESULTS) if "glue" not in row])
    for place in GLUE:
        path = ROOT / "lightning_sd" / place.path
        source = path.read_text(encoding="utf-8")
        if source.count(place.old) != 1:
            raise ValueError(f"{place.path}: {place.old!r} must occur once, for {place.name!r}.")
        tree = ast.parse(source.replace(place.old, place.new))
        result = run_imported(path, tree, [f"tests/{name}" for name in place.tests], 300)
        _append({"glue": place.name, "result": result.name, "test": result.test})


def verify() -> None:
    """Run each test that killed a mutant on the unchanged package, where it has to pass."""
    tests = list(dict.fromkeys(row["test"] for row in read_rows(RESULTS)))
    named = [test for test in tests if "::" in test]
    print(f"{len(named)} tests, unchanged package: {run_imported(None, None, named, 1200)}")


def _describe(drawn: Drawn) -> Row:
    mutant = drawn.mutant
    return {
        "key": drawn.key,
        "room": drawn.room,
        "file": drawn.file,
        "line": mutant.line,
        "change": mutant.change,
        "text": drawn.text,
    }


def _append(row: Row) -> None:
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def _write(rows: Sequence[Row]) -> None:
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glue", action="store_true", help="run the named places")
    parser.add_argument("--number", type=int, default=0, help="size of the sample")
    parser.add_argument("--seed", type=int, default=0, help="which sample")
    parser.add_argument("--again", action="store_true", help="run the survivors again")
    parser.add_argument("--verify", action="store_true", help="run the failing tests unchanged")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after this time")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds of tests, twice")
    args = parser.parse_args()
    limits = Limits(time.monotonic() + 60 * args.minutes, args.budget)
    import_libraries()
    if args.glue:
        run_glue()
    if args.number:
        run_sample(args.number, args.seed, limits)
    if args.again:
        run_again(limits)
    if args.verify:
        verify()
    write_report(RESULTS, HERE / "results.md")


if __name__ == "__main__":
    main()
