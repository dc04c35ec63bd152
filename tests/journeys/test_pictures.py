"""The documentation's pictures of terminals show what the commands print."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from benchmarks.pictures import FOLDER, TERMINALS, draw_terminal, run_command

ROOT = Path(__file__).parents[2]


def read_text(svg: str) -> list[str]:
    """Return the words of a picture."""
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", svg)
    return " ".join(html.unescape(text).replace("\xa0", " ") for text in texts).split()


@pytest.mark.parametrize("name", TERMINALS)
def test_a_picture_shows_its_command_and_how_it_ends(name: str) -> None:
    words = read_text((FOLDER / f"{name}.svg").read_text(encoding="utf-8"))
    begin = ["lightning-sd", "$", "lightning-sd", *TERMINALS[name].split()]
    assert words[: len(begin)] == begin
    status = {"quickstart": "0]", "failing_critic": "1]", "misspelled_option": "2]"}
    assert words[-3:] == ["[exit", "status", status[name]]


@pytest.mark.slow
def test_the_picture_of_a_misspelled_option_is_what_is_printed(tmp_path: Path) -> None:
    command = TERMINALS["misspelled_option"]
    drawn = draw_terminal(command, run_command(command, tmp_path))
    shown = (FOLDER / "misspelled_option.svg").read_text(encoding="utf-8")
    assert read_text(drawn) == read_text(shown)


def test_every_picture_is_on_a_page() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in ROOT.glob("docs/**/*.md"))
    for picture in FOLDER.iterdir():
        assert re.search(rf"!\[[^\]]+\]\([./]*pictures/{picture.name}", pages), picture.name
