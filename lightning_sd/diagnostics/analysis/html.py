"""Write an analysis as one HTML file with tokens colored by advantage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from lightning_sd.diagnostics.analysis.rows import Row
from lightning_sd.diagnostics.analysis.table import describe_summary, format_cell, format_value
from lightning_sd.metrics.measures import MEASURES

MOST_ROLLOUTS = 500
"""Maximum number of rollouts in the file, because browsers open larger files slowly."""
_FACTS = ("negative_mass", "step_auroc", "prefix_sign", "mean", "style_share")


def write_page(rows: Sequence[Row], summary: Mapping[str, Any], path: Path) -> None:
    """Write a self-contained page.

    Texts of models are data in the page, never markup.

    Args:
        rows: Rows of an analysis; the first 500 are shown.
        summary: Their summary, from :func:`.summary.summarize_rows`.
        path: The file.
    """
    page = files("lightning_sd.diagnostics.analysis") / "page"
    html, style, script = (
        (page / name).read_text(encoding="utf-8")
        for name in ("report.html", "report.css", "report.js")
    )
    data = embed_json(build_page_data(rows, summary))
    # The data come last, so that marks in texts of models are not replaced.
    for mark, text in (("@STYLE@", style), ("@SCRIPT@", script), ("@DATA@", data)):
        before, after = html.split(mark)
        html = before + text + after
    path.write_text(html, encoding="utf-8")


def embed_json(data: Any) -> str:
    r"""Format data as JSON that is safe inside a script element.

    Example:
        >>> embed_json("</script>é")
        '"\\u003c/script\\u003e\\u00e9"'
    """
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def build_page_data(rows: Sequence[Row], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Build the data that the page's script reads.

    Args:
        rows: Rows of an analysis; the first 500 are kept.
        summary: Their summary.
    """
    shown = rows[:MOST_ROLLOUTS]
    right: dict[str, list[bool]] = {}
    for row in rows:
        right.setdefault(row["id"], []).append(bool(row["correct"]))
    headline = describe_summary(summary)
    if len(shown) < len(rows):
        headline += f" The first {len(shown)} are shown here; rows.jsonl holds them all."
    return {
        "headline": headline,
        "scale": choose_color_scale(shown),
        "contexts": list(summary["contexts"]),
        "columns": [
            *summary["contexts"],
            *(f"{part['of']} \u2212 {part['minus']}" for part in summary["differences"]),
        ],
        "table": _build_table(summary),
        "rows": [
            {**_build_row(row), "accuracy": sum(right[row["id"]]) / len(right[row["id"]])}
            for row in shown
        ],
    }


def choose_color_scale(rows: Sequence[Row]) -> float:
    """Return the advantage, in nats, of full color: the 98th percentile of absolute values."""
    values = [
        abs(value)
        for row in rows
        for scored in row["contexts"].values()
        if scored
        for value in scored["advantages"]
    ]
    if not values:
        return 1.0
    ordered = torch.tensor(values).sort().values
    return max(0.05, round(float(ordered[int(0.98 * (len(values) - 1))]), 2))


def _build_table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Build the lines of the summary's table, each with one cell per column."""
    columns = [
        part["measures"] for part in (*summary["contexts"].values(), *summary["differences"])
    ]
    return [
        {
            "label": measure.label,
            "explanation": measure.explanation,
            "cells": [format_cell(means.get(key), measure) for means in columns],
        }
        for key, measure in MEASURES.items()
        if any(key in means for means in columns)
    ]


def _build_row(row: Row) -> dict[str, Any]:
    kept = ("id", "question", "gold", "attempt", "answer", "correct", "finished", "refused")
    more = ("tokens", "special", "steps", "wrong", "errors_by")
    contexts = {name: _build_context(part) for name, part in row["contexts"].items() if part}
    return {**{name: row[name] for name in (*kept, *more)}, "contexts": contexts}


def _build_context(scored: Row) -> dict[str, Any]:
    measures = scored["measures"]
    facts = []
    for key in _FACTS:
        if key in measures:
            total, count, chance = measures[key]
            text = format_value(total / count, MEASURES[key])
            by_chance = "" if chance is None else format_value(chance / count, MEASURES[key])
            facts.append([MEASURES[key].label, text, by_chance])
    mass = measures.get("negative_mass")
    return {
        "messages": scored["messages"],
        "advantages": [round(value, 4) for value in scored["advantages"]],
        "facts": facts,
        "localization": None if mass is None else round(mass[0], 4),
    }
