"""Turn the kit's results into one table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def format_report(results: dict[str, Any]) -> str:
    """Return the results as Markdown, one row per measurement."""
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items() if value)
    lines = [f"Machine: {machine}.", "", "| part | what | result |", "|---|---|---|"]
    for name, part in results["parts"].items():
        rows = list(list_rows(name, part)) or [("", part["status"])]
        lines += [f"| {name} | {what} | {result} |" for what, result in rows]
    return "\n".join(lines)


def list_rows(name: str, part: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a part measured, as text."""
    if part["status"] != "ok":
        return
    for row in part.get("rows", []):
        yield describe_row(row)
    if name.startswith("step"):
        yield from list_step_rows(part)
    if name == "profile":
        for row in part["profile"]:
            yield f"`{row['operation']}`", f"{row['ms']:.1f} ms in {row['calls']} calls"


def describe_row(row: dict[str, Any]) -> tuple[str, str]:
    """Describe a row of the parts numerics, paths and loss."""
    if "precision" in row:
        verdict = "ok" if row["ok"] else "TOO LARGE"
        errors = f"{row['loss_error']:.1e}, gradient {row['gradient_error']:.1e}"
        return f"{row['loss']}, {row['precision']}", f"relative error: loss {errors} ({verdict})"
    name = str(row.get("path", row.get("way")))
    if not row["ran"]:
        return name, f"did not run: {row['reason'].replace('|', '/')}"
    time = f"{1000 * row['seconds']:.1f} ms"
    if "path" in row:
        return f"{name}, {row['dtype']}", f"{time}, relative error {row['error']:.1e}"
    return name, f"{time}, {row['grown_mib']:.0f} MiB, loss {row['loss']:.5g}"


def list_step_rows(part: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the rows of a measured training step."""
    seconds = sum(part["seconds"]) / len(part["seconds"])
    least = part["roofline"]["scoring"] + part["roofline"]["decoding"]
    yield "seconds per step", f"{seconds:.3g} ({seconds / least:.2g}x the roofline)"
    yield "completion tokens/s", f"{part['tokens_per_second']:.0f}"
    yield "peak memory", f"{part['peak_mib']:.0f} MiB"
