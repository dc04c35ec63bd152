"""The report in a real browser: hostile text, sorting, keyboard, themes, no network."""

from __future__ import annotations

import shutil

import pytest

from lightning_sd.diagnostics.analysis.html import write_page
from lightning_sd.diagnostics.analysis.summary import summarize_rows
from tests.diagnostics.analysis.rows import row, written

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")

EVIL = (
    "<step_1></textarea></script><script>window.hurt = 1</script><img src=x onerror='hurt=1'>"
    "</step_1><step_2>\U0001f600\U0001f468‍\U0001f469 שלום עולם ‮drow‬ &amp; <!-- \u2028"
    "\n\n so</step_2><answer>5</answer>"
)
LONG = "<step_1>" + "7+5 " * 2100 + "</step_1><step_2>2*3=7</step_2>"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Opens a report of rows; afterwards nothing may have gone wrong in it."""
    errors, requests, pages = [], [], []

    def show(rows, **options):
        path = tmp_path / "report.html"
        write_page(rows, summarize_rows(rows), path)
        page = browser.new_page(**options)
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield show
    for page in pages:
        page.close()
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert sum(url.startswith("file:") for url in requests) == len(pages)


def stream(page, number=0):
    """The texts of the tokens under one context."""
    return page.evaluate(
        "n => [...document.querySelectorAll('.tokens')[n].querySelectorAll('.t:not(.special)')]"
        ".map(t => t.textContent).join('')",
        number,
    )


def chosen(page):
    return page.locator('#list [aria-selected="true"] .question').text_content()


def test_hostile_text_is_text(open_page, tokenizer):
    page = open_page([written(tokenizer, EVIL, f"{EVIL} ‮?", context=EVIL)])
    assert stream(page) == stream(page, 1) == EVIL
    assert page.locator("#detail .message >> nth=0").text_content() == EVIL
    page.locator(".context details summary").first.click()
    assert page.locator(".context .message div").first.text_content() == EVIL
    assert page.evaluate("window.hurt") is None
    assert page.locator("#detail img, #detail script, #detail textarea").count() == 0
    # An override of the direction ends with its token.
    assert page.locator(".t").first.evaluate("t => getComputedStyle(t).unicodeBidi") == "isolate"
    assert page.locator("h2 bdi").get_attribute("dir") == "auto"


def test_thousands_of_tokens_can_be_walked_through(open_page, tokenizer):
    rows = [written(tokenizer, LONG, "long"), row("short")]
    tokens = len(rows[0]["tokens"])
    assert tokens > 4000
    page = open_page(rows)
    assert page.locator(".tokens").first.locator(".t").count() == tokens
    page.keyboard.press("e")
    start = rows[0]["steps"][1][0]
    assert page.locator("#readout").text_content().startswith(f"token {start + 1} of {tokens}")
    place = page.locator(".t.active").first.bounding_box()
    line = page.locator("#readout").bounding_box()
    assert 0 <= place["y"] < place["y"] + place["height"] <= line["y"]
    page.keyboard.press("ArrowLeft")
    assert page.locator("#readout").text_content().startswith(f"token {start} of")
    for key, question in (("j", "short"), ("k", "long")):
        page.keyboard.press(key)
        assert chosen(page) == question
        assert page.locator("#detail").bounding_box()["y"] > -1  # its beginning is in sight


ROWS = [
    row("a", one=(-3.0, -1.0), two=(0.0, -1.0)),
    row("b", right=True, wrong=()),
    row("c", one=(0.0, -1.0), two=(-3.0, -1.0)),
    row("d", one=(-1.0, -1.0), two=(-1.0, -1.0)),
    row("d", right=True, wrong=(), one=(1.0, 1.0), two=None),
]


@pytest.mark.parametrize(
    ("by", "sort", "order"),
    [
        ("One", "sampled", "abcdd"),
        ("One", "accuracy-up", "acddb"),
        ("One", "accuracy-down", "bddac"),
        ("One", "localization-down", "cdabd"),  # those without a wrong step come last
        ("One", "localization-up", "adcbd"),
        ("Two", "localization-down", "adcbd"),
    ],
)
def test_sorting(open_page, by, sort, order):
    page = open_page(ROWS)
    page.select_option("#by", by)
    page.select_option("#sort", sort)
    assert "".join(page.locator("#list .question").all_text_contents()) == order
    assert chosen(page) == order[0]


def test_filtering(open_page):
    page = open_page(ROWS)
    page.select_option("#filter", "wrong")
    assert "".join(page.locator("#list .question").all_text_contents()) == "acd"
    assert page.locator("#number").text_content() == "3 of 5 rollouts"
    only_right = open_page([ROWS[1]])
    only_right.select_option("#filter", "error")
    assert "No rollout" in only_right.locator("#detail").text_content()
    only_right.keyboard.press("j")
    only_right.keyboard.press("ArrowRight")


def test_the_keyboard_alone(open_page):
    page = open_page(ROWS)
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.id || document.activeElement.className")
        )
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", reached[-1]
    for name in ("theme", "sort", "by", "filter", "list", "tokens"):
        assert name in reached
    page.locator("#list").focus()
    seen = [chosen(page)]
    for key in ("j", "ArrowDown", "k", "ArrowUp", "ArrowUp", "End", "Home"):
        page.keyboard.press(key)
        seen.append(chosen(page))
    assert seen == ["a", "b", "c", "b", "a", "a", "d", "a"]
    active = page.locator("#list").get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"
    page.keyboard.press("ArrowRight")
    assert "One \u22123.000 · Two +0.000" in page.locator("#readout").text_content()
    assert page.locator(".t.active").count() == 2


def test_steps_and_the_first_error_are_marked(open_page):
    page = open_page([row("a", wrong=(1, 2))])
    marks = page.locator(".tokens").first.locator(".step")
    assert marks.all_text_contents() == ["\u2717 step 1: first error", "\u2717 step 2"]
    assert page.locator(".step.first").count() == 2  # once a context


def test_light_and_dark(open_page):
    def background(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = "rgb(255, 255, 255)", "rgb(20, 22, 26)"
    page = open_page(ROWS, color_scheme="dark")
    assert background(page) == dark
    button = page.locator("#theme")
    button.click()
    assert (button.text_content(), background(page)) == ("Theme: light", light)
    button.click()
    assert (button.text_content(), background(page)) == ("Theme: dark", dark)
    button.click()
    assert (button.text_content(), background(page)) == ("Theme: auto", dark)
    assert background(open_page(ROWS, color_scheme="light")) == light


def contrast(one, other):
    """Of two colours by WCAG 2."""

    def light(colour):
        parts = [c / 255 for c in colour]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_on_full_colour_can_be_read(open_page, scheme):
    page = open_page([row("a", one=(5.0, -5.0), two=(5.0, -5.0))], color_scheme=scheme)
    painted = page.evaluate(
        """() => [...document.querySelectorAll('.t')].map(t => {
            const often = {willReadFrequently: true};
            const canvas = document.createElement('canvas').getContext('2d', often);
            const pixel = (...colours) => {
                for (const c of colours) { canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); }
                return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
            };
            const style = getComputedStyle(t);
            const page = getComputedStyle(document.body).backgroundColor;
            return [pixel(page, style.backgroundColor), pixel(style.color), pixel(page)];
        })"""
    )
    for ground, text, plain in painted:
        assert contrast(ground, text) >= 4.5
        assert ground != plain
