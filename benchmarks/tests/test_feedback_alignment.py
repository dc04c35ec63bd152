"""The alignment study: forms of critiques, the weak critic, the grid's rules, and the report."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from benchmarks.feedback_alignment import contexts, forms, study
from benchmarks.feedback_alignment.lesson import TAUGHT, draw_lesson
from benchmarks.feedback_alignment.report import write_report
from benchmarks.feedback_alignment.rows import Point, best_within, select_scores
from benchmarks.feedback_alignment.weak import WeakCritic
from lightning_sd.critique.base import CritiqueRequest
from lightning_sd.critique.cache.keys import compute_keys
from lightning_sd.critique.critics.rule import RuleCritic
from lightning_sd.lab import ArithmeticTask
from lightning_sd.lab.recipe.careless_solver import CarelessSolver
from lightning_sd.lab.step_repair import find_wrong_step, read_final_answer, repair_attempt
from lightning_sd.text.steps import parse_steps
from lightning_sd.types import Critique, Rollout, link_siblings

TASK = ArithmeticTask(train_size=300, val_size=1, test_size=1)
QUESTION = TASK.question("7+5*3-4")
# The second step is wrong, and the third goes on from it.
ATTEMPT = (
    "<step_1>7+5=2</step_1><step_2>so 2*3 is 7</step_2><step_3>now 7-4=3</step_3><answer>3</answer>"
)
CRITIQUE = repair_attempt(QUESTION.text, ATTEMPT)
RIGHT = (
    "<step_1>7+5=2</step_1><step_2>so 2*3 is 6</step_2><step_3>now 6-4=2</step_3><answer>2</answer>"
)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("partial", RIGHT),
        (
            "full_repetition",
            "<step_1>7+5=2</step_1><step_2>so 2*3 is 7</step_2> is wrong, it should be "
            "<step_2>so 2*3 is 6</step_2><step_3>now 6-4=2</step_3><answer>2</answer>",
        ),
        (
            "omission",
            "step 1 is right. <step_2>so 2*3 is 6</step_2><step_3>now 6-4=2</step_3>"
            "<answer>2</answer>",
        ),
        (
            "reference_phrasing",
            "<step_1>get 2 from 7+5</step_1><step_2>get 6 from 2*3</step_2>"
            "<step_3>get 2 from 6-4</step_3><answer>2</answer>",
        ),
        ("no_answer", "<step_1>7+5=2</step_1><step_2>so 2*3 is 6</step_2>"),
    ],
)
def test_a_form_tells_the_same_repair(form, expected):
    assert CRITIQUE.changed == (2, 3)
    assert forms.FORMS[form](ATTEMPT, CRITIQUE) == expected


def test_a_right_attempt_has_nothing_to_quote():
    critique = repair_attempt(QUESTION.text, RIGHT)
    assert forms.full_repetition(RIGHT, critique) == forms.partial(RIGHT, critique) == RIGHT
    assert forms.omission(RIGHT, critique) == (
        "step 1 is right. step 2 is right. step 3 is right. <answer>2</answer>"
    )


def test_numbers_of_the_attempt_are_found_behind_a_step_that_it_left_out():
    attempt = "<step_1>7+5=2</step_1><step_2>6-4=2</step_2><answer>2</answer>"
    critique = repair_attempt(QUESTION.text, attempt)
    assert (critique.copied, critique.added) == ((1, 2), (2,))
    assert forms.omission(attempt, critique) == (
        "step 1 is right. <step_2>2*3=6</step_2>step 3 is right. <answer>2</answer>"
    )


def rollout(text, question=QUESTION, critic=None):
    critique = repair_attempt(question.text, text) if critic is None else critic
    return Rollout(question, (), text, 0, verdict=TASK.verify(question, text), critique=critique)


def shown(context, found):
    view = context.views([found])[0]
    return None if view is None else view.messages[-1]["content"]


def test_contexts_show_their_form_under_the_wording_of_the_critique():
    for context in (
        contexts.FullRepetition,
        contexts.Omission,
        contexts.ReferencePhrasing,
        contexts.NoAnswer,
    ):
        text = shown(context(), rollout(ATTEMPT))
        told = context.form(ATTEMPT, CRITIQUE)
        assert text == f"7+5*3-4\nHere is a checked solution, step by step:\n{told}\nNow solve it."
        refused = replace(CRITIQUE, refused="no")
        assert shown(context(), rollout(ATTEMPT, critic=refused)) is None
    one_step = "<step_1>7+5=3</step_1><answer>3</answer>"
    question = TASK.question("7+5")
    assert shown(contexts.NoAnswer(), rollout(one_step, question)) is None


def test_the_other_attempt_is_never_ones_own():
    texts = [ATTEMPT, ATTEMPT, RIGHT, ATTEMPT.replace("7+5=2", "7+5=3")]
    group = link_siblings([rollout(text) for text in texts])
    critiques = [r.critique.text for r in group]
    context = contexts.OtherAttempt()
    for i, found in enumerate(context.fields(r)["critique"] for r in group):
        others = {critiques[j] for j in range(4) if texts[j] != texts[i]}
        assert found in others
    alone = link_siblings([rollout(ATTEMPT), rollout(ATTEMPT)])
    assert context.views(alone) == [None, None]


def requests():
    """Attempts of a careless pupil."""
    pupil, rng = CarelessSolver.from_seed(0), random.Random(0)
    return [
        CritiqueRequest(q, text, TASK.verify(q, text))
        for q in TASK.questions("train")
        for text in (pupil.attempt(q.text, rng) for _ in range(4))
    ]


def criticized(share, asked, seed=0):
    critic = WeakCritic(share, seed=seed)
    critic.setup(TASK)
    return critic.critique(asked)


def test_a_weak_critic_is_wrong_as_often_as_it_says_and_only_where_it_corrects():
    asked = requests()
    exact = RuleCritic()
    exact.setup(TASK)
    truth = [c.text for c in exact.critique(asked)]
    assert [c.text for c in criticized(0, asked)] == truth
    corrections = [bool(c.changed) for c in exact.critique(asked)]
    assert 400 < sum(corrections) < 900
    met = {}
    for share in (0.1, 0.3, 0.5, 1.0):
        found = criticized(share, asked)
        assert [c.text for c in found] == [c.text for c in criticized(share, asked)]
        wrong = [c.text != true for c, true in zip(found, truth, strict=True)]
        met[share] = {i for i, w in enumerate(wrong) if w}
        assert all(corrections[i] for i in met[share])
        assert sum(wrong) / sum(corrections) == pytest.approx(share, abs=0.06)
    assert met[0.1] < met[0.3] < met[0.5] < met[1.0]
    assert met[1.0] == {i for i, c in enumerate(corrections) if c}


def test_a_false_correction_keeps_the_place_and_goes_on_from_its_digit():
    asked = [r for r in requests() if not r.verdict.correct][:200]
    for request, found in zip(asked, criticized(1.0, asked), strict=True):
        if not found.changed:
            continue
        place = find_wrong_step(request.question.text, request.attempt)
        assert find_wrong_step(request.question.text, found.text) == place
        trace, own = parse_steps(found.text), parse_steps(request.attempt)
        assert trace.steps[:place] == own.steps[:place]
        assert trace.steps[place] != own.steps[place]
        values = [body.rstrip(".").split("=")[-1].split(" is ")[-1] for body in trace.steps]
        assert read_final_answer(trace) == values[-1]
        for step, before in zip(trace.steps[place + 1 :], values[place:], strict=False):
            assert next(c for c in step if c.isdigit()) == before
        assert found.changed[0] == place + 1


def test_critics_of_other_shares_do_not_share_a_cache():
    critics = [WeakCritic(0.1), WeakCritic(0.3), WeakCritic(0.3, seed=1)]
    for critic in critics:
        critic.setup(TASK)
    asked = requests()[:1]
    exact = RuleCritic()
    exact.setup(TASK)
    keys = [compute_keys(critic.identity(), asked)[0] for critic in (*critics, exact)]
    assert len(set(keys)) == 4
    with pytest.raises(ValueError, match=r"share=1\.5"):
        WeakCritic(1.5)


def test_every_form_is_taught_as_often_and_answered_by_the_repair():
    pupil, rng = CarelessSolver.from_seed(0), random.Random(1)
    kinds = []
    for question in TASK.questions("train"):
        attempt = pupil.attempt(question.text, rng)
        lesson = draw_lesson(question.text, attempt, rng)
        kinds.append(lesson.kind)
        assert TASK.verify(question, lesson.target).correct
        if lesson.kind != "reference":
            assert lesson.target == repair_attempt(question.text, attempt).text
    assert set(kinds) == set(TAUGHT)
    assert all(25 < kinds.count(kind) < 80 for kind in TAUGHT)


def run_row(name, seed, right, lr=3e-4, **more):
    test = [
        {"id": f"q{i}", "avg": right + i / 100, "pass": 1.0, "maj": 1.0, "length": 30 + i}
        for i in range(4)
    ]
    curve = [
        {
            "step": s,
            "rollouts": 10 * s,
            "sampled": 100 * s,
            "written": 50 * s,
            "cpu_seconds": s,
            "read": s,
            "val/avg@12": right / 2 + s / 20,
        }
        for s in (2, 4)
    ]
    key = f"{name}-lr={lr}-seed{seed}"
    row = {"key": key, "name": name, "seed": seed, "lr": lr, "minutes": 1.0, "step": 4}
    return {**row, "val": right, "curve": curve, "test": test, **more}


@pytest.fixture
def plan(tmp_path):
    plan = study.with_folder(study.LAB, tmp_path)
    plan.results.mkdir()
    base = [run_row("base", s, 0.3, curve=[{"step": 0, "val/avg@12": 0.3}]) for s in (1, 2)]
    for row in base:
        del row["lr"]
    rows = [run_row(name, s, r + s / 50) for name, r in RIGHTS.items() for s in (2, 1)]
    search = [run_row(n, 101, r - abs(lr - 1e-3), lr) for n, r in RIGHTS.items() for lr in RATES]
    mean = {"value": 0.7, "low": 0.6, "high": 0.8, "chance": 0.5}
    names = ("StepAlignedCritique", "ReferenceSolution", "OtherAttempt")
    summary = {
        "rollouts": 8,
        "questions": 2,
        "with_error": 5,
        "contexts": {n: {"scored": 8, "measures": {"step_auroc": mean}} for n in names},
    }
    analysis = [{"key": "a", "name": "step_aligned", "seed": 1, "summary": summary}]
    for name, found in (("runs", base + rows), ("search", search), ("analysis", analysis)):
        text = "".join(json.dumps(row) + "\n" for row in found)
        (plan.results / f"{name}.jsonl").write_text(text)
    return plan


RIGHTS = {"grpo": 0.5, "refsol": 0.6, "step_aligned": 0.7, "weak_critic_30": 0.55}
RATES = (3e-4, 1e-3)


def test_the_report_is_made_of_the_raw_rows(plan):
    text = write_report(plan, draws=50)
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines()[::-1]}
    assert "| step_aligned | 2 | 0.0003 | 4 | 74.5 [" in text
    assert "| base | 2 |  | 4 | 31.5 [" in text
    # Named in advance and marked: 0.7 - 0.6 on every question.
    assert lines["**refsol**"].startswith("| **refsol** | 10.0 [")
    assert "| grpo | 40 | 0 | 400 | 200 | 4 | 4 |" in text
    assert "| weak_critic_30 | 52.9 |" not in text
    assert "0.001 (edge of the grid) |" in text
    assert "| step_aligned | 8 |" in text
    assert "0.700 [0.600, 0.800]; chance 0.500" in text
    names = {path.name for path in plan.results.glob("*.svg")}
    assert names == {"curves.svg", "conditions.svg", "weak_critic.svg"}


def test_a_report_of_half_a_study_is_written_too(plan):
    (plan.results / "search.jsonl").unlink()
    (plan.results / "analysis.jsonl").unlink()
    text = write_report(plan, draws=20)
    assert "## Test questions" in text
    assert "## Learning rates" not in text


def test_seeds_with_other_questions_are_refused():
    rows = [run_row("grpo", 1, 0.5), run_row("grpo", 2, 0.5)]
    rows[1]["test"] = rows[1]["test"][:3]
    with pytest.raises(ValueError, match="different test questions"):
        select_scores(rows, "avg")


def test_a_budget_counts_what_was_seen_within_it():
    points = [Point(0, 0.3), Point(10, 0.6), Point(20, 0.5), Point(30, 0.9)]
    assert best_within(points, 20) == 0.6
    assert best_within(points, 30) == 0.9


def test_the_smaller_of_two_equal_rates_is_chosen():
    rows = [run_row("grpo", 101, r, lr) for lr, r in ((1e-4, 0.5), (3e-4, 0.6), (1e-3, 0.6))]
    assert study.choose_rates(rows, ["grpo"]) == {"grpo": 3e-4}


def test_the_grid_has_the_protocols_runs():
    plan = study.LAB
    rates = dict.fromkeys(plan.conditions, 3e-4)
    runs = study.study_runs(plan, study.TABLE, rates)
    search = study.search_runs(plan, study.TABLE)
    assert len(runs) == 15
    assert not {r.seed for r in runs} & {r.seed for r in search}
    assert all("test" not in command[0] for run in search for command in run.commands)
    keys = [r.key for r in (*runs, *search, *study.base_runs(plan))]
    assert len(set(keys)) == len(keys)
    for name in plan.conditions:
        assert plan.condition(name).exists()


def test_a_critique_that_is_a_string_of_words_has_forms_too():
    free = Critique("It is 2.", "D", changed=(1,))
    assert forms.no_answer("It is 3.", free) == ""
    assert forms.reference_phrasing("It is 3.", free) == ""
