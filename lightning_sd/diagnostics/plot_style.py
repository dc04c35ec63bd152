"""The look of all figures: a palette for color-blind readers, on light and on dark pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BLUE, VERMILION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
ORANGE, SKY, GRAY = "#e69f00", "#56b4e9", "#8c8c8c"
INK, PAPER, GRID = "#1f2328", "#ffffff", "#d8dee4"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, GRAY)
"""Okabe and Ito's palette, in the order of use."""
ON_DARK = {
    **{INK: "#e6edf3", PAPER: "#14171c", GRID: "#3a414a", GRAY: "#9a9a9a"},
    **{BLUE: "#3b8fd4", VERMILION: "#f0803c", GREEN: "#2fc79a", PURPLE: "#e29bc4", SKY: "#a5dcff"},
}
"""Each color's counterpart on a dark page; the others stay."""
_SETTINGS: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "figure.facecolor": PAPER,
    "font.size": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def make_figure(width: float, height: float, rows: int = 1, columns: int = 1, **kwargs: Any) -> Any:
    """Make a figure with a grid of panels.

    Args:
        width: In inches.
        height: In inches.
        rows: Rows of panels.
        columns: Columns of panels.
        **kwargs: Further arguments of ``Figure.subplots``, such as ``sharey``.

    Returns:
        The figure, and its panels as an array ``[rows, columns]``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from cycler import cycler
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('Figures need matplotlib: pip install "lightning_sd[report]".') from error
    settings: Any = {**_SETTINGS, "axes.prop_cycle": cycler(color=SERIES)}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def save_figure(figure: Any, path: Path) -> None:
    """Save a figure; an SVG file follows the reader's choice of a light or a dark page.

    Args:
        figure: From :func:`make_figure`.
        path: The file; its suffix is the format.
    """
    import matplotlib

    if path.suffix != ".svg":
        figure.savefig(path, dpi=150)
        return
    # A fixed salt and no date: the same figure is the same file. Text is drawn as shapes, because
    # the reader's fonts have other widths.
    with matplotlib.rc_context({"svg.hashsalt": "lightning_sd", "svg.fonttype": "path"}):
        figure.savefig(path, metadata={"Date": None})
    path.write_text(_follow_theme(path.read_text(encoding="utf-8")), encoding="utf-8")


def _follow_theme(svg: str) -> str:
    """Replace the palette's colors by variables with a value per theme."""
    names = {color: f"--c{number}" for number, color in enumerate(ON_DARK)}
    for color, name in names.items():
        svg = svg.replace(color, f"var({name})")
    light = ";".join(f"{name}:{color}" for color, name in names.items())
    dark = ";".join(f"{name}:{ON_DARK[color]}" for color, name in names.items())
    # matplotlib writes no color for black shapes, such as the text of legends.
    rules = f"svg{{{light};fill:var({names[INK]})}}"
    rules += f"@media(prefers-color-scheme:dark){{svg{{{dark}}}}}"
    start = svg.index(">", svg.index("<svg")) + 1
    return f"{svg[:start]}<style>{rules}</style>{svg[start:]}"
