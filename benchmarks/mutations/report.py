"""Write ``results.md`` from the rows of the mutants."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.grid import Row, read_rows

HEADER = (
    "| room | run | killed | survived | of these equivalent | killed by new tests | open |",
    "|---|---|---|---|---|---|---|",
)


def write_report(rows: Path, path: Path) -> str:
    """Write the counts per sample and room and the list of survivors, and return the text."""
    found = read_rows(rows)
    lines = ["# Mutation test", "", "Method and commands: [README.md](README.md).", ""]
    for sample in sorted({row["sample"] for row in found if "sample" in row}):
        lines += _describe_sample(sample, [row for row in found if row.get("sample") == sample])
    lines += ["## Named places", "", "| broken place | result | failing test |", "|---|---|---|"]
    for row in found:
        if "glue" in row:
            lines.append(f"| {row['glue']} | {row['result']} | {_escape(row['test'])} |")
    text = "\n".join([*lines, ""])
    path.write_text(text, encoding="utf-8")
    return text


def _describe_sample(sample: int, rows: Sequence[Row]) -> Iterator[str]:
    yield from (f"## Sample with seed {sample}", "", *HEADER)
    for room in dict.fromkeys(sorted(row["room"] for row in rows)):
        own = Counter(_judge(row) for row in rows if row["room"] == room)
        yield f"| {room} | {_list_counts(own)} |"
    counts = Counter(map(_judge, rows))
    yield f"| **all** | {_list_counts(counts)} |"
    alive = counts["open"] + counts["new"]
    total = counts.total() - counts["equivalent"]
    seconds = sum(row["seconds"] for row in rows) / len(rows)
    yield ""
    yield f"Surviving of those that are not equivalent: {_describe_share(alive, total)}."
    if counts["new"]:
        yield f"With the tests written since: {_describe_share(counts['open'], total)}."
    yield f"Processor seconds per mutant: {seconds:.1f}."
    yield from ("", "| survivor | line | change | verdict |", "|---|---|---|---|")
    for row in sorted(rows, key=lambda row: (row["file"], row["line"])):
        if row["result"] in ("survived", "untested"):
            place = f"{row['file'].removeprefix('lightning_sd/')}:{row['line']}"
            yield f"| {place} | `{_escape(row['text'])}` | {row['change']} | {_explain(row)} |"
    yield ""


def _judge(row: Row) -> str:
    if row["result"] in ("killed", "timeout"):
        return "killed"
    if row.get("equivalent"):
        return "equivalent"
    return "new" if row.get("after") in ("killed", "timeout") else "open"


def _list_counts(counts: Counter[str]) -> str:
    survived = counts.total() - counts["killed"]
    numbers = (counts.total(), counts["killed"], survived)
    return " | ".join(map(str, (*numbers, counts["equivalent"], counts["new"], counts["open"])))


def _explain(row: Row) -> str:
    if _judge(row) == "new":
        return f"killed by {_escape(row['test'])}"
    return f"equivalent: {row['equivalent']}" if row.get("equivalent") else "open"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("tests/", "")


def _describe_share(number: int, total: int) -> str:
    low, high = find_interval(number, total)
    return f"{number} of {total}, {number / total:.1%} (95%: {low:.1%} to {high:.1%})"


def find_interval(number: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return Wilson's 95% interval of a share."""
    share, square = number / total, z * z / total
    center = (share + square / 2) / (1 + square)
    width = z / (1 + square) * math.sqrt(share * (1 - share) / total + square / (4 * total))
    return max(center - width, 0.0), min(center + width, 1.0)
