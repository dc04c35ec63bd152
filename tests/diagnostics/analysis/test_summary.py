"""Sums over rollouts by hand, and what is written of them."""

from __future__ import annotations

import builtins
import json

import pytest

from lightning_sd.contexts import ReferenceSolution, StepAlignedCritique
from lightning_sd.diagnostics.analysis.figure import choose_typical_row, draw_figure
from lightning_sd.diagnostics.analysis.html import build_page_data, embed_json, write_page
from lightning_sd.diagnostics.analysis.report import AnalysisReport
from lightning_sd.diagnostics.analysis.rows import append_rows, read_rows
from lightning_sd.diagnostics.analysis.run import name_contexts
from lightning_sd.diagnostics.analysis.summary import summarize_rows
from tests.diagnostics.analysis.rows import row

ROWS = [
    row("a", one=(0.0, -1.0), two=(-1.0, -1.0)),
    row("a", one=(-1.0, -3.0), two=None),
    row("b", right=True, wrong=(), one=(1.0, 1.0), two=(1.0, 1.0)),
    row("c", one=(-1.0, 0.0), two=(0.0, -1.0)),
]


def test_means_by_hand():
    found = summarize_rows(ROWS)
    assert (found["questions"], found["rollouts"], found["with_error"]) == (3, 4, 3)
    assert found["accuracy"]["value"] == 0.25
    one, two = found["contexts"]["One"], found["contexts"]["Two"]
    assert (one["scored"], two["scored"], two["scored_with_error"]) == (4, 3, 2)
    mass = one["measures"]["negative_mass"]
    assert mass["value"] == pytest.approx((1 + 0.75 + 0) / 3)
    assert (mass["chance"], mass["rollouts"], mass["questions"]) == (0.5, 3, 2)
    assert one["measures"]["step_auroc"]["value"] == pytest.approx((1 + 1 + 0) / 3)
    assert one["measures"]["mean"]["value"] == pytest.approx(-4 / 8)
    assert one["measures"]["mean_abs"]["value"] == pytest.approx(8 / 8)


def test_intervals_hold_the_mean_and_come_from_questions():
    mass = summarize_rows(ROWS)["contexts"]["One"]["measures"]["negative_mass"]
    # Only a, only c, or both can be drawn: from 0 to the mean of a's two rollouts.
    assert (mass["low"], mass["high"]) == (0.0, pytest.approx(0.875))
    alone = summarize_rows(ROWS[:2])["contexts"]["One"]["measures"]["negative_mass"]
    assert (alone["low"], alone["high"]) == (None, None)


def test_differences_are_of_rollouts_that_both_scored():
    (difference,) = summarize_rows(ROWS)["differences"]
    assert (difference["of"], difference["minus"]) == ("One", "Two")
    mass = difference["measures"]["negative_mass"]
    assert mass["rollouts"] == 2
    assert mass["value"] == pytest.approx((1 + 0) / 2 - (0.5 + 1) / 2)


def test_nothing_is_an_error():
    with pytest.raises(ValueError, match="no rollout"):
        summarize_rows([])


def test_rows_come_back_from_disk(tmp_path):
    hostile = row("\ud800 <b>\u2028")
    append_rows(tmp_path / "rows.jsonl", ROWS)
    append_rows(tmp_path / "rows.jsonl", [hostile])
    assert read_rows(tmp_path / "rows.jsonl") == [*ROWS, hostile]


def test_everything_is_written(tmp_path, capsys):
    report = AnalysisReport.from_rows(ROWS)
    report.save(tmp_path)
    report.show()
    assert json.loads((tmp_path / "summary.json").read_text()) == summarize_rows(ROWS)
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"
    assert "4 rollouts of 3 questions" in capsys.readouterr().out


def test_without_matplotlib_the_rest_is_written(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.warns(UserWarning, match=r"lightning_sd\[report\]"):
        AnalysisReport.from_rows(ROWS).save(tmp_path)
    assert not (tmp_path / "figure.png").exists()
    assert (tmp_path / "report.html").exists()


def test_the_figure_shows_neither_the_best_nor_the_worst():
    rows = [row(one=(-a, -1.0)) for a in (0.0, 0.5, 2.0, 9.0, 1.0)]
    assert choose_typical_row(rows) == rows[4]
    assert choose_typical_row([row(two=None, wrong=())]) == row(two=None, wrong=())
    assert choose_typical_row([]) is None


def test_no_figure_of_nothing(tmp_path):
    draw_figure([], tmp_path / "figure.png")
    assert not (tmp_path / "figure.png").exists()


def test_the_page_holds_no_markup_of_models_and_no_address(tmp_path):
    path = tmp_path / "report.html"
    rows = [row("</script><script>alert(1)</script><!-- http://example.org @STYLE@")]
    write_page(rows, summarize_rows(rows), path)
    text = path.read_text()
    assert text.count("<script") == 2
    assert "alert(1)</script>" not in text
    markup = text[: text.index('id="data"')]
    assert "http:" not in markup
    assert "https:" not in markup
    assert json.loads(embed_json(build_page_data(rows, summarize_rows(rows)))) == build_page_data(
        rows, summarize_rows(rows)
    )


def test_contexts_of_one_class_are_told_apart():
    found = [StepAlignedCritique(), ReferenceSolution(), ReferenceSolution()]
    names = ["StepAlignedCritique", "ReferenceSolution", "ReferenceSolution 2"]
    assert name_contexts(found) == names
