"""The analysis as one HTML file: tokens coloured by advantage, contexts side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from lightning_sd.diagnostics.analysis.rows import Row
from lightning_sd.diagnostics.analysis.table import cell, headline, number
from lightning_sd.metrics.rollout_measures import FIGURES

MOST_ROLLOUTS = 500
"""More would make the file slow to open; ``rows.jsonl`` holds them all."""
_SHOWN = ("negative_mass", "step_auroc", "prefix_sign", "mean", "style_share")


def write_report(rows: Sequence[Row], summary: Mapping[str, Any], path: Path) -> None:
    """Write a file that a browser shows without a network.

    What models wrote is data in it, never markup.

    Args:
        rows: Of an analysis; the first 500 are shown.
        summary: As :func:`.summary.summarise` gives it.
        path: The file.
    """
    page = files("lightning_sd.diagnostics.analysis") / "page"
    html, style, script = (
        (page / name).read_text(encoding="utf-8")
        for name in ("report.html", "report.css", "report.js")
    )
    data = embedded(report_data(rows, summary))
    # The data last: whatever it holds is not looked through for the other marks.
    for mark, text in (("@STYLE@", style), ("@SCRIPT@", script), ("@DATA@", data)):
        before, after = html.split(mark)
        html = before + text + after
    path.write_text(html, encoding="utf-8")


def embedded(data: Any) -> str:
    r"""JSON that may stand inside a script element, whatever text it holds.

    Example:
        >>> embedded("</script>é")
        '"\\u003c/script\\u003e\\u00e9"'
    """
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def report_data(rows: Sequence[Row], summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the page's script reads."""
    shown = rows[:MOST_ROLLOUTS]
    right: dict[str, list[bool]] = {}
    for row in rows:
        right.setdefault(row["id"], []).append(bool(row["correct"]))
    headings = headline(summary)
    if len(shown) < len(rows):
        headings += f" The first {len(shown)} are shown here; rows.jsonl holds them all."
    return {
        "headline": headings,
        "scale": colour_scale(shown),
        "contexts": list(summary["contexts"]),
        "columns": [
            *summary["contexts"],
            *(f"{part['of']} \u2212 {part['minus']}" for part in summary["differences"]),
        ],
        "table": _table(summary),
        "rows": [
            {**_row(row), "accuracy": sum(right[row["id"]]) / len(right[row["id"]])}
            for row in shown
        ],
    }


def colour_scale(rows: Sequence[Row]) -> float:
    """The advantage, in nats, at which colours are full: 98 of 100 tokens lie below it."""
    values = [
        abs(value)
        for row in rows
        for found in row["contexts"].values()
        if found
        for value in found["advantages"]
    ]
    if not values:
        return 1.0
    ordered = torch.tensor(values).sort().values
    return max(0.05, round(float(ordered[int(0.98 * (len(values) - 1))]), 2))


def _table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Lines of the summary's table: a label, what it means, and a cell a column."""
    columns = [part["figures"] for part in (*summary["contexts"].values(), *summary["differences"])]
    return [
        {
            "label": figure.label,
            "explanation": figure.explanation,
            "cells": [cell(found.get(key), figure) for found in columns],
        }
        for key, figure in FIGURES.items()
        if any(key in found for found in columns)
    ]


def _row(row: Row) -> dict[str, Any]:
    kept = ("id", "question", "gold", "attempt", "answer", "correct", "finished", "refused")
    more = ("tokens", "special", "steps", "wrong", "errors_by")
    contexts = {name: _context(found) for name, found in row["contexts"].items() if found}
    return {**{name: row[name] for name in (*kept, *more)}, "contexts": contexts}


def _context(found: Row) -> dict[str, Any]:
    figures = found["figures"]
    facts = []
    for key in _SHOWN:
        if key in figures:
            total, count, chance = figures[key]
            text = number(total / count, FIGURES[key])
            by_chance = "" if chance is None else number(chance / count, FIGURES[key])
            facts.append([FIGURES[key].label, text, by_chance])
    mass = figures.get("negative_mass")
    return {
        "messages": found["messages"],
        "advantages": [round(value, 4) for value in found["advantages"]],
        "facts": facts,
        "localisation": None if mass is None else round(mass[0], 4),
    }
