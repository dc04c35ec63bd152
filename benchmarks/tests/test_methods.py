"""The study of all methods: its grids parse, the dialect, and the report from rows."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch

from benchmarks.methods import continual, lab, pages, report, style
from benchmarks.methods.dialect import DialectTask
from benchmarks.methods.echodistill import run as echodistill
from benchmarks.methods.rcsd import run as rcsd
from lightning_sd.cli.main import main
from lightning_sd.lab import ArithmeticTask
from lightning_sd.types import Question, Rollout, TeacherView

TASK = DialectTask(train_size=60, val_size=20, test_size=20)


def meant(text):
    """The dialect, worked out by hand."""
    value = int(text[0])
    for sign, digit in zip(text[1::2], text[2::2], strict=True):
        right = int(digit)
        value = {"+": value - right, "-": value + right, "*": value * right}[sign] % 10
    return str(value)


def test_the_dialect_turns_two_signs_round():
    for split in ("train", "val", "test"):
        for question in TASK.questions(split):
            bare = question.text.removeprefix("now ")
            assert question.text == f"now {bare}" == question.messages[-1]["content"]
            assert question.answer == meant(bare)
            assert TASK.verify(question, question.reference).correct
            assert not TASK.verify(question, "<answer>x</answer>").correct
    assert TASK.question("3*3").answer == ArithmeticTask().question("3*3").answer


def test_the_dialects_splits_are_disjoint_and_conflict_with_the_lab():
    questions = [q for split in ("train", "val", "test") for q in TASK.questions(split)]
    assert len({q.id for q in questions}) == len(questions) == 100
    lab_answers = [ArithmeticTask().question(q.text[4:]).answer for q in questions]
    same = sum(q.answer == a for q, a in zip(questions, lab_answers, strict=True))
    assert 0 < same < 40  # a digit in ten agrees by chance, and some signs cancel


def test_without_its_marker_the_dialect_looks_like_the_first_task():
    plain = DialectTask(marker="", train_size=1, val_size=1, test_size=1).question("7-5+1")
    assert (plain.text, plain.answer) == ("7-5+1", "1")


def test_own_words_tell_the_same():
    own = DialectTask(own_words=True, train_size=60, val_size=20, test_size=20)
    for a, b in zip(own.questions("train"), TASK.questions("train"), strict=True):
        assert (a.id, a.answer) == (b.id, b.answer)
        assert "get" in b.reference
        assert "get" not in a.reference


def command_of(run):
    (words,) = run.commands
    return words[words.index("fit") :]


@pytest.mark.parametrize(
    "run",
    [
        *echodistill.build_grid(list(echodistill.METHODS), [1], 3, Path("model")),
        *rcsd.build_grid(list(rcsd.METHODS), [1], 3, Path("model")),
    ],
    ids=lambda run: run.key,
)
def test_the_grids_with_models_of_their_own_parse(run, capsys):
    for command in run.commands:
        if command[0] == "-m":
            continue
        with pytest.raises(SystemExit) as stopped:
            main([*command, "--print_config"])
        printed = capsys.readouterr().out
        assert stopped.value.code in (0, None), printed
        assert f"name: {Path('model').resolve()}" in printed


@pytest.mark.parametrize(
    "run",
    [
        *lab.lab_runs(list(lab.METHODS), [1]),
        *lab.rare_runs([1]),
        *continual.continual_runs([1])[1:4],
    ],
    ids=lambda run: run.key,
)
def test_every_run_of_the_grid_parses(run, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command_of(run), "--print_config"])
    assert stopped.value.code in (0, None)
    printed = capsys.readouterr().out
    assert f"max_steps: {run.facts['steps']}" in printed
    assert "ModelCheckpoint" not in printed
    if run.facts == {"steps": lab.STEPS}:  # the table tells how many rollouts a question
        assert f"samples: {report.ROLLOUTS[run.name]}\n" in printed


def test_the_grid_holds_every_method_and_seed_once():
    runs = [*lab.lab_runs(list(lab.METHODS), [1, 2, 3]), *continual.continual_runs([1, 2, 3])]
    assert len({run.key for run in runs}) == len(runs) == 17 * 3 + (6 + 1) * 3
    assert set(report.ROLLOUTS) == set(lab.METHODS)


class Scorer:
    """Stands for a module: log-probabilities by the prompt's last word."""

    def compute_advantages(self, rollouts, views):
        return [
            None if v is None else tuple(float(v.messages[-1]["content"]) for _ in r.ids)
            for r, v in zip(rollouts, views, strict=True)
        ]


def test_a_missing_wrong_hint_leaves_nan():
    def view(*numbers):
        messages = [({"role": "user", "content": str(n)},) for n in numbers]
        return TeacherView(messages[0], contrasts=tuple(messages[1:]))

    question = Question("q", "q", ({"role": "user", "content": "q"},))
    rollouts = [Rollout(question, (5, 6), "", 0), Rollout(question, (7,), "", 0)]
    found = style.wrong_advantages(Scorer(), rollouts, [view(-1, -2, -3), view(-1, -4)])
    assert [table.shape for table in found] == [(2, style.WRONG), (1, style.WRONG)]
    assert found[0][0, :2].tolist() == [-2, -3]
    assert found[0][:, 2:].isnan().all()
    assert found[1][0, 0] == -4
    assert found[1][0, 1:].isnan().all()
    expected = math.log((math.exp(-2) + math.exp(-3)) / 2)
    assert style.log_mean_prob(found[0])[0] == pytest.approx(expected)


def test_signal_is_a_ratio_of_sums_not_a_mean_of_ratios():
    rows = [
        {
            "question": "a",
            "tokens": {"style": 1, "task": 9},
            "one_sided": {"style": 3.0, "task": 1.0},
        },
        {
            "question": "b",
            "tokens": {"style": 3, "task": 7},
            "one_sided": {"style": 1.0, "task": 3.0},
        },
    ]
    found = report.measure_style(rows, "one_sided", 50)
    assert found["share"].value == pytest.approx(0.5)
    assert found["style"].value == pytest.approx(1.0)
    assert found["ratio"].value == pytest.approx((4 / 4) / (4 / 16))
    assert found["share"].low == pytest.approx(0.25)
    assert found["share"].high == pytest.approx(0.75)


def asked(right, length=30.0):
    rows = [
        {"id": f"q{i}", "avg": right + i / 100, "pass": 1.0, "maj": 1.0, "length": length + i}
        for i in range(4)
    ]
    random.Random(right).shuffle(rows)
    return lab.columns(rows)


def trained(name, seed, right, length):
    return {
        "key": f"{name}-{seed}",
        "name": name,
        "seed": seed,
        "steps": 40,
        "minutes": 1.5,
        "questions": {"before": asked(0.4), "after": asked(right, length)},
        "train": {"has_teacher": 0.5, "silent": 0.25},
    }


def with_reward(questions):
    return {**questions, "reward": [value / 2 for value in questions["avg"]]}


def test_tables_of_the_studies_with_models_of_their_own():
    runs = [
        trained(n, s, r, 30.0)
        for n, r in (("GRPO", 0.5), ("RCSD", 0.7), ("OPSD", 0.6))
        for s in (1, 2)
    ]
    for run in runs:
        run["questions"] = {when: with_reward(found) for when, found in run["questions"].items()}
    whole = trained(rcsd.GENERATED, 1, 0.7, 30.0)
    whole["questions"] = dict(runs[0]["questions"])
    whole |= {"stage": {"steps": 60, "questions": runs[2]["questions"]}, "rubrics": 0.75}
    text = "\n".join(
        rcsd.format_table([*runs, whole], ["GRPO", "OPSD", "RCSD", rcsd.GENERATED], 50)
    )
    assert "| untrained | 2 | | 20.8 [" in text
    assert "| GRPO | 2 | 10,240 | 25.8 [" in text
    assert "| RCSD | 2 | 5,120 | 35.8 [" in text
    assert "RCSD minus OPSD, Avg@12 in points: 10.0 [10.0, 10.0]." in text
    assert "Stage I, 60 steps" in text
    assert "| after | 35.8 [" in text
    assert "75.0% of the training questions got a rubric" in text

    names = ("EchoDistill", "GRPO")
    rows = [trained(n, s, r, 9.0) for n, r in zip(names, (0.4, 0.6), strict=True) for s in (1, 2)]
    rows += [trained(echodistill.UNTRAINED, 1, 0.4, 9.0)]
    for row in rows:
        row["questions"]["clean"] = asked(0.9)
    text = "\n".join(echodistill.format_table(rows, names, 50))
    assert "| untrained | 1 | 41.5 [" in text
    assert "| GRPO | 2 | 61.5 [" in text
    assert "EchoDistill minus GRPO, Avg@4 in noise, in points: -20.0 [-20.0, -20.0]." in text


def continued(name, seed, first, second, **facts):
    tasks = {"first": asked(first), "second": asked(second), "unmarked": asked(0.5), "val": second}
    return {"key": f"{name}{facts}{seed}", "name": name, "seed": seed, **facts, **tasks}


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    methods = {"OPSD": (0.6, 33.0), "RLCSD": (0.7, 31.0), "GRPO": (0.8, 30.0)}
    signal = {"tokens": {"style": 2, "task": 8}, "one_sided": {"style": 2.0, "task": 2.0}}
    signal |= {"contrast": {"style": 0.2, "task": 1.8}, "question": "a", "hint": "sibling"}
    rows = {
        "lab": [trained(n, s, *values) for n, values in methods.items() for s in (2, 1)],
        "rare": [trained(n, s, r, 30.0) for n, r in (("RESD", 0.5), ("SDPO", 0.1)) for s in (1, 2)],
        "style": [signal],
        "continual": [
            *(continued("untrained", s, 0.4, 0.2) for s in (1, 2)),
            *(continued("SDFT", s, 0.35, 0.6, lr=1e-3) for s in (1, 2)),
            *(continued("SDFT", s, 0.30, 0.8, lr=3e-4) for s in (1, 2)),
            *(continued("SFT", s, 0.10, 0.9, lr=3e-4) for s in (1, 2)),
        ],
    }
    for part, found in rows.items():
        text = "".join(json.dumps(row) + "\n" for row in found)
        (folder / f"{part}.jsonl").write_text(text)
    return folder


def test_the_report_is_made_of_the_raw_rows(raw, tmp_path):
    text = report.write_report(raw, tmp_path, draws=50)
    assert "| untrained | 2 | | | 41.5 [" in text
    assert "| OPSD | 2 | 640 | 50% | 61.5 [" in text
    assert "| GRPO | 2 | 5,120 | 50% | 81.5 [" in text
    # 31 against 30 tokens on the same questions, and OPSD 2 above it.
    assert "| RLCSD | 1.00 [1.00, 1.00] |  |" in text
    assert "| OPSD | 3.00 [3.00, 3.00] | 2.00 [2.00, 2.00] |" in text
    assert "| sibling | one-sided | 1 | 50.0 [50.0, 50.0] | 1.000 [" in text
    assert "| sibling | contrast | 1 | 10.0 [" in text
    assert "| sibling | (share of the tokens) | 1 | 20.0 |" in text
    assert "in points: 40.0 [40.0, 40.0], Student over seeds 40.0 [40.0, 40.0]." in text
    # The rate of the best validation, marked; the change is against the untrained solver.
    assert "| **SDFT** | **0.0003** | 2 | 81.5 [" in text
    assert "-10.0 [-10.0, -10.0]" in text
    assert "SDFT minus SFT at the chosen rates, in points: first task 20.0 [20.0, 20.0]" in text
    assert "SFT, own words" not in text.split("![Second")[0].split("## SDFT")[1]
    assert {path.name for path in tmp_path.glob("*.svg")} == {"lab.svg", "continual.svg"}


def test_half_a_study_is_reported_too(raw, tmp_path):
    for part in ("rare", "style", "continual"):
        (raw / f"{part}.jsonl").unlink()
    text = report.write_report(raw, tmp_path, draws=20)
    assert "## All text methods" in text
    assert "RESD minus" not in text


def test_other_questions_are_refused(raw):
    runs = [trained("OPSD", s, 0.5, 30.0) for s in (1, 2)]
    runs[1]["questions"]["after"]["id"] = ["x", *runs[1]["questions"]["after"]["id"][1:]]
    with pytest.raises(ValueError, match="different test questions"):
        report.select_answers(runs, "avg")


def test_the_smaller_of_two_equal_rates_is_chosen():
    rows = [
        continued("SFT", s, 0.1, r, lr=lr) for s in (1, 2) for lr, r in ((1e-3, 0.5), (3e-4, 0.5))
    ]
    assert continual.choose_rates(rows) == {"SFT": 3e-4}


def test_the_log_is_averaged_over_its_steps(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/reward,train/loss,lr\n0,0.5,1.0,\n1,0.7,,0.1\n")
    found = lab.read_log(path)
    assert found["train"] == pytest.approx({"reward": 0.6, "loss": 1.0})
    assert found["curves"] == {"reward": [0.5, 0.7]}
    assert torch.tensor(found["curves"]["reward"]).mean() == pytest.approx(0.6)


def test_pages_are_filled_again_and_again(raw):
    page = "# OPSD\n\nBefore.\n\n<!-- results: opsd -->\n\nAfter.\n\n<!-- other -->\n"
    rows = report.read_rows(raw / "lab.jsonl")
    block = pages.block("opsd", ("OPSD", "OPSD, no clip"), rows, draws=20)
    once = pages.fill(page, "results: opsd", block)
    assert "| untrained | 2 | | 41.5 [" in once
    assert "| OPSD | 2 | 640 | 61.5 [" in once
    assert "no clip" not in once
    assert once.endswith("\n\nAfter.\n\n<!-- other -->\n")
    assert pages.fill(once, "results: opsd", block) == once
    with pytest.raises(ValueError, match="0 times: must be 1"):
        pages.fill(page, "results: sdft", block)


def test_every_page_has_its_mark():
    for name, (mark, methods) in pages.PAGES.items():
        page = (pages.ROOT / "docs" / "methods" / f"{name}.md").read_text()
        assert f"<!-- {mark} -->" in page
        assert set(methods) <= {*lab.METHODS, *lab.RARE}
