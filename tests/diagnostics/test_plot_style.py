"""Figures have one look, which follows the reader's theme."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from lightning_sd.diagnostics.plot_style import INK, ON_DARK, SERIES, make_figure, save_figure

pytest.importorskip("matplotlib")


def draw(path):
    figure, [[axes]] = make_figure(4, 3)
    axes.set_title("Title")
    for i, color in enumerate(SERIES):
        axes.plot([0, 1], [0, i], color=color, label=str(i))
    axes.legend()
    save_figure(figure, path)
    return path.read_bytes()


def test_an_svg_has_a_color_per_theme(tmp_path):
    text = draw(tmp_path / "figure.svg").decode()
    ET.fromstring(text)
    light, dark = re.search(
        r"<style>svg{(.*?)}@media\(prefers-color-scheme:dark\){svg{(.*?)}}", text
    ).groups()
    body = text.partition("</style>")[2]
    for number, (color, other) in enumerate(ON_DARK.items()):
        assert f"--c{number}:{color}" in light
        assert f"--c{number}:{other}" in dark
        assert color not in body
    # Text of the legend has no color of its own in matplotlib's files.
    assert f"fill:var(--c{list(ON_DARK).index(INK)})" in light


def test_the_same_figure_is_the_same_file(tmp_path):
    assert draw(tmp_path / "a.svg") == draw(tmp_path / "b.svg")


def test_other_formats_are_plain(tmp_path):
    assert draw(tmp_path / "figure.png")[:4] == b"\x89PNG"


def contrast(first, second):
    """Contrast ratio of WCAG 2."""

    def luminance(color):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_text_is_legible_on_both_pages():
    paper = "#ffffff"
    assert contrast(INK, paper) > 7
    assert contrast(ON_DARK[INK], ON_DARK[paper]) > 7
    for color in SERIES:
        assert contrast(ON_DARK.get(color, color), ON_DARK[paper]) > 3
