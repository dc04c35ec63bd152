"""Format the page of a training run as HTML with SVG curves, without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 360, 190, 54, 34, 12
GROUPS = {
    "Validation": "val/",
    "Training": "train/",
    "Signal": "advantage/",
    "Measurements": "monitor/",
}
STYLE = """
:root { color-scheme: light dark; --line: #0072b2; --grid: #8885; --dim: #777; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.error { border-left: 4px solid #d55e00; padding: .4rem .8rem; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(290px, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-weight: 600; } figcaption span { color: var(--dim); }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: currentColor; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem;
  border-bottom: 1px solid var(--grid); white-space: pre-wrap; overflow-wrap: anywhere;
  min-width: 4.5em; }
pre { overflow-x: auto; padding: .6rem; border: 1px solid var(--grid); }
@media (prefers-color-scheme: dark) { :root { --line: #56b4e9; } }
"""


@dataclass(frozen=True)
class Page:
    """The content of the page."""

    title: str
    error: str | None
    """The error that ended the run; None if it ended normally."""
    series: Mapping[str, Sequence[tuple[int, float]]]
    """(step, value) pairs by metric."""
    answers: Sequence[Sequence[str]]
    """Rows of name, before, after and difference."""
    columns: Sequence[str]
    """Columns of the sample tables."""
    samples: Mapping[str, Sequence[Sequence[str]]]
    """Sample tables by name."""
    settings: Mapping[str, Any]
    command: str
    versions: Mapping[str, str]


def write_page(page: Page, path: Path) -> None:
    """Write the page.

    Args:
        page: Its content; all texts are escaped.
        path: The file; it is overwritten.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(format_page(page), encoding="utf-8", errors="replace")


def format_page(page: Page) -> str:
    """Format the page as HTML."""
    error = f'<p class="error" role="alert">{escape(page.error)}</p>' if page.error else ""
    parts = [f"<h1>{escape(page.title)}</h1>", error]
    if page.answers:
        head = ("", "before", "after", "after minus before")
        parts += [
            "<h2>Held-out questions</h2>",
            _format_table(head, page.answers),
            "<p>In brackets: 95% intervals, bootstrap over questions.</p>",
        ]
    for heading, prefix in GROUPS.items():
        own = {n: p for n, p in sorted(page.series.items()) if n.startswith(prefix) and p}
        zero = [n for n, points in own.items() if all(value == 0 for _, value in points)]
        curves = [draw_curve(n.removeprefix(prefix), own[n]) for n in own if n not in zero]
        if own:
            parts += [f"<h2>{heading}</h2>", f'<div class="curves">{"".join(curves)}</div>']
        if zero:
            names = ", ".join(name.removeprefix(prefix) for name in zero)
            parts.append(f"<p>Zero in every step: {escape(names)}.</p>")
    for name, rows in page.samples.items():
        if rows:
            heading = f"Rollouts of the {escape(name)} step"
            parts += [f"<h2>{heading}</h2>", _format_table(page.columns, rows)]
    settings = yaml.safe_dump(dict(page.settings), sort_keys=False, allow_unicode=True)
    versions = ", ".join(f"{name} {version}" for name, version in page.versions.items())
    parts += [
        "<h2>Reproduce</h2>",
        f"<pre>{escape(page.command)}</pre><p>{escape(versions)}</p>",
        f"<details><summary>All settings</summary><pre>{escape(settings)}</pre></details>",
    ]
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<link rel="icon" href="data:,"><title>{escape(page.title)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def draw_curve(name: str, points: Sequence[tuple[int, float]]) -> str:
    """Draw one metric over optimizer steps as SVG.

    Args:
        name: The metric.
        points: (step, value) pairs, at least one, in order.
    """
    steps, values = [step for step, _ in points], [value for _, value in points]
    first, last, low, high = min(steps), max(steps), min(values), max(values)
    width, height = WIDTH - LEFT - 8, HEIGHT - TOP - BOTTOM

    def place(step: int, value: float) -> str:
        x = LEFT + width * ((step - first) / (last - first) if last > first else 0.5)
        y = TOP + height * ((high - value) / (high - low) if high > low else 0.5)
        return f"{x:.1f},{y:.1f}"

    line = " ".join(place(*point) for point in points)
    dots = "".join(
        '<circle cx="{}" cy="{}" r="2.5" fill="var(--line)"/>'.format(*place(*point).split(","))
        for point in (points if len(points) < 20 else ())
    )
    labels = [(TOP + 4, high), (TOP + height + 4, low)] if high > low else [(TOP + height / 2, low)]
    texts = "".join(
        f'<text x="{LEFT - 6}" y="{y:.0f}" text-anchor="end">{value:.4g}</text>'
        for y, value in labels
    )
    base = TOP + height
    return (
        f"<figure><figcaption>{escape(name)} <span>last {values[-1]:.4g}</span></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name)}: '
        f'{values[0]:.4g} at step {first}, {values[-1]:.4g} at step {last}">'
        f'<path d="M{LEFT},{TOP}V{base}H{WIDTH - 8}" fill="none" stroke="var(--grid)"/>{texts}'
        f'<text x="{LEFT}" y="{base + 16}">{first}</text>'
        f'<text x="{WIDTH - 8}" y="{base + 16}" text-anchor="end">{last}</text>'
        f'<text x="{LEFT + width / 2:.0f}" y="{base + 28}" text-anchor="middle">'
        f'optimizer step</text><polyline points="{line}" fill="none" stroke="var(--line)" '
        f'stroke-width="1.6"/>{dots}</svg></figure>'
    )


def _format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        "<tr>" + "".join(f'<td dir="auto">{escape(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    table = f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table>{table}</table></div>'
