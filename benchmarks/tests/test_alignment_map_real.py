"""The map on a real model: its task, its critic, its contexts and its warm-up rows."""

from __future__ import annotations

import json
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
import torch

from benchmarks.alignment_map.real import warm_up
from benchmarks.alignment_map.real.difficulty import choose_mix
from benchmarks.alignment_map.real.report import measure_areas, read_runs, write_differences
from benchmarks.alignment_map.real.rows import SMALL, STEP_PIECES, WarmUpRows
from benchmarks.alignment_map.real.study import (
    CONDITIONS,
    MODELS,
    SEEDS,
    UNTRAINED,
    grpo_runs,
    main_runs,
)
from benchmarks.alignment_map.real.sums import (
    NAMES,
    ORDERS,
    RESULTS,
    compute_results,
    follow_attempt,
    read_kinds,
    read_order,
    write_solution,
)
from benchmarks.alignment_map.real.task import OtherOrder, SumsTask, build_question, repair_attempt
from benchmarks.alignment_map.rows import split_pieces
from lightning_sd.lab.expressions import assign_split
from lightning_sd.text.steps import parse_steps, render_steps
from lightning_sd.types import Rollout

TEXT = "a=7+8,b=9*6,c=52-9"
QUESTION = build_question(TEXT)
RESULT = {"a": 15, "b": 54, "c": 43}
RIGHT = render_steps(["b=54", "c=43", "a=15"], "15,54,43")
WRONG = render_steps(["b=54", "c=33", "a=15"], "15,54,33")


def make_rollout(text: str) -> Rollout:
    return Rollout(QUESTION, (), text, group=0)


def test_every_order_is_right():
    task = SumsTask(train_size=1, val_size=1, test_size=1)
    assert len(ORDERS) == 6
    for order in ORDERS:
        text = write_solution(order, RESULT)
        assert task.verify(QUESTION, text).correct
        assert read_order(TEXT, text) == order
        critique = task.repair(QUESTION, text)
        assert (critique.case, critique.text) == ("A", text)


@pytest.mark.parametrize(
    ("answer", "right"),
    [("15,54,43", 3), ("15,45,43", 2), ("54,15,43", 1), ("15,54", 0), ("15,54,43,1", 0), ("", 0)],
)
def test_the_reward_is_the_share_of_right_results_of_the_answer(answer, right):
    verdict = SumsTask(1, 1, 1).verify(QUESTION, f"<step_1>a=1</step_1><answer>{answer}</answer>")
    assert verdict.reward == right / 3
    assert verdict.correct == (right == 3)
    assert SumsTask(1, 1, 1).verify(QUESTION, "15,54,43").status == "no_answer"


def test_a_wrong_result_is_the_only_wrong_step_and_the_only_change_of_the_critique():
    task = SumsTask(train_size=1, val_size=1, test_size=1)
    for order, wrong in product(ORDERS, NAMES):
        text = write_solution(order, {**RESULT, wrong: RESULT[wrong] + 1})
        assert not task.verify(QUESTION, text).correct
        critique = task.repair(QUESTION, text)
        at = order.index(wrong) + 1
        assert (critique.case, critique.changed) == ("D", (at,))
        assert critique.copied == tuple(n for n in (1, 2, 3) if n != at)
        assert critique.text == write_solution(order, RESULT)


@pytest.mark.parametrize(
    ("bodies", "names", "rights"),
    [
        (["b=54", "b=54", "a=15"], ["b", None, "a"], [True, False, True]),
        (["d=43", "b=", "a=15"], [None, None, "a"], [False, False, True]),
        (["b=54 or so", "c=43"], [None, "c"], [False, True]),
    ],
)
def test_steps_that_are_none_or_repeat_a_sum_are_wrong(bodies, names, rights):
    places = follow_attempt(TEXT, bodies)
    assert [place.name for place in places] == names
    assert [place.right for place in places] == rights


def test_the_critique_drops_repeated_steps_and_adds_missing_sums_at_the_end():
    critique = repair_attempt(TEXT, render_steps(["c=43", "c=43"], "15,54,43"))
    assert parse_steps(critique.text).steps == ("c=43", "a=15", "b=54")
    assert (critique.case, critique.copied, critique.changed) == ("D", (1,), (2,))
    assert critique.added == (2, 3)


def test_a_step_that_was_cut_off_is_completed_and_not_wrong():
    critique = repair_attempt(TEXT, "<step_1>b=54</step_1><step_2>c=4")
    assert (critique.case, critique.copied, critique.changed) == ("C", (1,), (2,))
    assert critique.text == write_solution("bca", RESULT)


def test_a_right_solution_with_a_wrong_answer_is_wrong_although_each_step_is_copied():
    critique = repair_attempt(TEXT, render_steps(["b=54", "c=43", "a=15"], "15,54,33"))
    assert (critique.case, critique.copied, critique.changed) == ("D", (1, 2, 3), ())
    assert critique.text == RIGHT


def test_the_reference_is_right_and_never_in_the_order_of_the_attempt():
    drawn = set()
    for order in ORDERS:
        text = write_solution(order, RESULT)
        fields = OtherOrder().fields(make_rollout(text))
        assert SumsTask(1, 1, 1).verify(QUESTION, fields["reference"]).correct
        assert fields == OtherOrder().fields(make_rollout(text))
        drawn.add((order, read_order(TEXT, fields["reference"])))
    assert all(own != shown for own, shown in drawn)
    assert len({shown for _, shown in drawn}) > 2
    view = OtherOrder().views([make_rollout(WRONG)])[0]
    assert "43" in view.messages[-1]["content"]
    assert "33" not in view.messages[-1]["content"]


@pytest.mark.parametrize("products", [0.0, 0.5, 1.0])
def test_questions_are_disjoint_by_split_and_have_results_of_two_digits(products):
    task = SumsTask(train_size=50, val_size=20, test_size=20, products=products)
    for split, size in (("train", 50), ("val", 20), ("test", 20)):
        texts = [question.text for question in task.questions(split)]
        assert len(set(texts)) == size
        assert {assign_split(text) for text in texts} == {split}
        assert all(set(compute_results(text).values()) <= set(RESULTS) for text in texts)
        kinds = Counter(kind for text in texts for kind in read_kinds(text).values())
        share = kinds["product"] / (3 * size)
        assert abs(share - products) <= (0.2 if products == 0.5 else 0)
        assert kinds["sum"] + kinds["product"] == 3 * size


def read_rows(count: int = 800):
    rows = WarmUpRows(seed=0, length=count, block=4, shares=SMALL, context_every=2)
    found = []
    for row in (rows[i] for i in range(count)):
        prompt = row.messages[0]["content"]
        begun = row.extra["begun"]
        shown = parse_steps(prompt).steps
        found.append((row, prompt, shown, begun, parse_steps(begun + row.reference)))
    return found


def test_warm_up_rows_are_other_questions_and_half_of_them_are_bare():
    rows = read_rows()
    assert {assign_split(row.text) for row, *_ in rows} == {"pretrain"}
    kinds = Counter(row.id.split("/")[0] for row, *_ in rows)
    assert kinds["alone"] == 400
    read = kinds["critique read"] + kinds["reference read"]
    assert 0.7 * 400 < read < 0.8 * 400
    for row, prompt, _, begun, trace in rows:
        if row.id.startswith("alone"):
            assert (prompt, begun) == (row.text, "")
            assert SumsTask(1, 1, 1).verify(build_question(row.text), row.reference).correct
        assert trace.well_formed
        assert sorted(step[0] for step in trace.steps) == sorted(NAMES)


def test_one_block_of_four_has_contexts_in_the_second_phase():
    rows = WarmUpRows(seed=0, length=32, block=4, shares=SMALL, context_every=4)
    bare = [rows[i].id.startswith("alone") for i in range(32)]
    assert bare == 2 * [*[True] * 12, *[False] * 4]


def test_results_of_counterfactual_rows_can_only_be_read():
    hits = Counter()
    for row, _, shown, begun, trace in read_rows():
        if " read/" not in row.id:
            continue
        true = compute_results(row.text)
        given = len(split_pieces(begun)) // STEP_PIECES
        context = dict(step.split("=") for step in shown)
        for step in trace.steps[given:]:
            name, result = step.split("=")
            assert result == context[name]
            hits["true"] += int(result) == true[name]
            hits["all"] += 1
    # A result that is drawn from 90 numbers is true by chance in about 1%.
    assert hits["all"] > 400
    assert hits["true"] < 0.03 * hits["all"]


def test_a_row_has_the_order_of_its_critique_and_another_one_than_its_reference():
    begun_apart = 0
    for row, _, shown, begun, trace in read_rows():
        kind = row.id.split()[0]
        context = [step[0] for step in shown]
        own = [step[0] for step in trace.steps]
        if kind == "critique":
            assert own == context
        elif kind == "reference":
            stated = parse_steps(begun).steps
            stated = [step[0] for step in stated if step]
            rest = [name for name in context if name not in stated]
            assert own[len(stated) :] == rest
            begun_apart += own != context
    assert begun_apart > 50


def test_the_answer_of_a_row_repeats_its_own_steps():
    wrong = 0
    for _, _, shown, _, trace in read_rows():
        own = dict(step.split("=") for step in trace.steps)
        assert trace.answer == ",".join(own[name] for name in NAMES)
        wrong += bool(shown) and sorted(trace.steps) != sorted(shown)
    assert wrong > 50


@pytest.mark.parametrize(
    ("sums", "products", "mix"), [(0.9, 0.2, 0.25), (0.6, 0.1, 0.0), (0.9, 0.68, 1.0)]
)
def test_the_mix_has_the_predicted_accuracy_nearest_to_the_target(sums, products, mix):
    assert choose_mix(sums, products) == mix


def test_the_conditions_of_a_seed_differ_in_their_context_and_objective_alone():
    runs = [*main_runs(Path("base")), *grpo_runs(Path("base"))]
    assert len(runs) == len(SEEDS) * (1 + len(CONDITIONS))
    for seed in SEEDS:
        fits = [run for run in runs if run.seed == seed and run.name != UNTRAINED]
        own = [set(run.commands[0]) - set(CONDITIONS[run.name]) for run in fits]
        assert all(words == own[0] for words in own)
        assert f"--data.init_args.seed={seed}" in own[0]


def test_areas_are_paired_by_seed_and_one_seed_has_no_interval():
    def make_row(name, seed, *curve):
        points = [{"rollouts": 8 * n, "val/reward": value} for n, value in enumerate(curve)]
        return {"name": name, "seed": seed, "curve": points}

    rows = [
        make_row(UNTRAINED, 2, 0.4),
        make_row(UNTRAINED, 1, 0.2),
        make_row("grpo", 2, 0.4, 0.4, 0.4),
        make_row("critique", 2, 0.4, 0.6, 0.8),
        make_row("critique", 1, 0.2, 0.4, 0.2),
    ]
    for row in rows[2:]:
        # A run's own curve begins at its first validation.
        row["curve"] = row["curve"][1:]
    runs = read_runs(rows)
    assert list(runs) == [UNTRAINED, "critique", "grpo"]
    assert measure_areas(runs, "critique") == pytest.approx({1: 0.3, 2: 0.6})
    assert write_differences(runs)[2:] == [
        "| critique minus grpo | one seed | 20.0 |",
        "| critique minus untrained | 15.0 [-48.5, 78.5] | 10.0, 20.0 |",
        "| grpo minus untrained | one seed | 0.0 |",
    ]


@pytest.mark.parametrize(
    ("words", "recipe"),
    [
        ([], warm_up.Recipe("smollm2", None, "format", steps=60)),
        (["--start", "a"], warm_up.Recipe("smollm2", "a", "task", steps=45)),
        (["--model", "gemma"], warm_up.Recipe("gemma", None, "format", steps=40)),
        (
            ["--model", "gemma", "--start", "a", "--phase", "sums"],
            warm_up.Recipe("gemma", "a", "sums", steps=25),
        ),
    ],
)
def test_a_phase_follows_its_start(words, recipe, monkeypatch):
    found = []
    monkeypatch.setattr(warm_up, "warm_up", lambda *args: found.append(args))
    monkeypatch.setattr("sys.argv", ["warm_up", "--out", "b", *words])
    threads = torch.get_num_threads()
    warm_up.main()
    torch.set_num_threads(threads)
    assert found == [(recipe, Path("b"))]


def test_a_phase_that_a_model_does_not_have_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["warm_up", "--out", "b", "--start", "a", "--phase", "sums"])
    with pytest.raises(SystemExit):
        warm_up.main()
    assert "--model smollm2 has format, task" in capsys.readouterr().err


def test_each_model_has_a_base_and_rows_of_its_own():
    assert set(MODELS) == set(warm_up.STEPS) == set(warm_up.CHAT_TEMPLATES)
    bases, results = zip(*MODELS.values(), strict=True)
    assert len(set(bases)) == len(set(results)) == len(MODELS)


def test_a_start_of_another_model_is_refused(tmp_path):
    record = {"recipe": {"model": "gemma"}}
    (tmp_path / "training.json").write_text(json.dumps(record))
    warm_up.check_start(str(tmp_path), "gemma")
    with pytest.raises(ValueError, match="add --model gemma"):
        warm_up.check_start(str(tmp_path), "smollm2")
