"""Write ``results.md`` from the rows of the mutants."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from benchmarks.grid import read_rows


def write_report(rows: Path, path: Path) -> str:
    """Write the counts per folder and the list of survivors, and return the text."""
    found = read_rows(rows)
    drawn = [row for row in found if "glue" not in row]
    lines = ["# Mutation test", "", "Method and commands: [README.md](README.md).", ""]
    lines += ["| folder | mutants | noticed | survived | equivalent |", "|---|---|---|---|---|"]
    folders = dict.fromkeys(Path(row["file"]).parent.name for row in drawn)
    for folder in folders:
        own = [row for row in drawn if Path(row["file"]).parent.name == folder]
        lines.append(f"| {folder} | {_count(own)} |")
    lines += [f"| **all** | {_count(drawn)} |", "", "## Survivors", ""]
    lines += ["| place | line | change | verdict |", "|---|---|---|---|"]
    for row in drawn:
        if row["result"] == "survived":
            text = row["text"].replace("|", "\\|")
            place = f"{row['file'].removeprefix('lightning_sd/')}:{row['line']}"
            verdict = row.get("equivalent") or "open"
            lines.append(f"| {place} | `{text}` | {row['change']} | {verdict} |")
    lines += ["", "## Named places", "", "| broken place | result |", "|---|---|"]
    lines += [f"| {row['glue']} | {row['result']} |" for row in found if "glue" in row]
    text = "\n".join([*lines, ""])
    path.write_text(text, encoding="utf-8")
    return text


def _count(rows: list[dict[str, str]]) -> str:
    counts = Counter("equivalent" if row.get("equivalent") else row["result"] for row in rows)
    noticed = counts["killed"] + counts["timeout"]
    return f"{len(rows)} | {noticed} | {counts['survived']} | {counts['equivalent']}"
