"""The page at the end of a run."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from lightning_sd import (
    BeforeAfter,
    ExactResume,
    ReferenceSolution,
    StepMonitor,
    TrainingReport,
)
from lightning_sd.callbacks.report_page import Page, draw_curve, format_page
from tests.stubs import LabData, module, trainer

HOSTILE = "</td><script>alert(1)</script><img src=x>"


class Balance(HTMLParser):
    """Checks that every element is closed, and collects the names."""

    VOID = ("meta", "link", "br")

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parse(text):
    parser = Balance()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser.seen


def test_a_run_leaves_a_page(make_llama, tokenizer, tmp_path):
    path = tmp_path / "deep" / "report.html"
    config = {"model": {"lr": 0.1}, "note": HOSTILE}
    callbacks = [BeforeAfter(), StepMonitor(), ExactResume(config), TrainingReport(str(path))]
    run = trainer(tmp_path, ReferenceSolution(), *callbacks, max_steps=3)
    run.fit(module(make_llama(), tokenizer), datamodule=LabData())
    text = path.read_text()
    seen = parse(text)
    assert "script" not in seen
    for word in ("Held-out questions", "reward", "grad_norm", "of the first step", "lr: 0.1"):
        assert word in text
    assert "3 optimizer steps" in text
    steps = re.search(r'aria-label="loss: \S+ at step (\d+), \S+ at step (\d+)"', text)
    assert steps.groups() == ("1", "3")
    report = callbacks[-1]
    assert [step for step, _ in report.series["train/reward"]] == [1, 2, 3]
    again = TrainingReport()
    again.load_state_dict(report.state_dict())
    assert again.series == report.series


def test_a_failed_run_leaves_a_page_with_the_error(make_llama, tokenizer, tmp_path):
    class Failing(StepMonitor):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 2:
                raise RuntimeError("the disk <is> gone")

    path = tmp_path / "report.html"
    parts = [ReferenceSolution(), TrainingReport(str(path)), Failing()]
    with pytest.raises(RuntimeError, match="disk"):
        trainer(tmp_path, *parts, max_steps=3).fit(
            module(make_llama(), tokenizer), datamodule=LabData()
        )
    assert "RuntimeError: the disk &lt;is&gt; gone" in path.read_text()


def test_texts_of_models_are_not_markup():
    page = Page(
        title=HOSTILE,
        error=HOSTILE,
        series={"train/" + HOSTILE: [(1, 0.5)]},
        answers=[(HOSTILE, "1", "2", "3")],
        columns=("attempt",),
        samples={"first": [(HOSTILE,)]},
        settings={"a": HOSTILE},
        command=HOSTILE,
        versions={},
    )
    assert not {"script", "img"} & set(parse(format_page(page)))


@pytest.mark.parametrize("points", [[(5, 1.0)], [(1, 2.0), (9, 2.0)], [(1, 0.0), (2, -1e9)]])
def test_any_curve_stays_within_its_frame(points):
    drawn = re.search(r'polyline points="([^"]+)"', draw_curve("x", points))[1]
    for x, y in (map(float, pair.split(",")) for pair in drawn.split()):
        assert 0 <= x <= 360
        assert 0 <= y <= 190


def test_rows_are_checked():
    with pytest.raises(ValueError, match="rows=0"):
        TrainingReport(rows=0)
