"""The alignment map: its task, its critic, its contexts, its pre-training rows and its masks."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.alignment_map import contexts, side_by_side, study
from benchmarks.alignment_map.cells import Cells, read_cells
from benchmarks.alignment_map.derivations import (
    LENGTH,
    NOTATIONS,
    derive,
    draw_order,
    draw_question,
    follow_attempt,
    write_solution,
)
from benchmarks.alignment_map.heat import list_knobs
from benchmarks.alignment_map.masks import FirstErrorMask, WithoutForm
from benchmarks.alignment_map.report import correlate_ranks, write_report
from benchmarks.alignment_map.rows import EQUAL_LESSON, RECOVERY_LESSON, RowWriter, split_pieces
from benchmarks.alignment_map.run import run_part
from benchmarks.alignment_map.signal import classify_tokens
from benchmarks.alignment_map.task import (
    DerivationTask,
    build_question,
    find_wrong_step,
    read_order,
    repair_attempt,
)
from benchmarks.alignment_map.teach import (
    TRUNK_STEPS,
    Recipe,
    build_row_tokenizer,
    build_rows,
    make_branch,
    scale_errors,
)
from lightning_sd.contexts.templates import REFERENCE
from lightning_sd.lab.expressions import Operation, assign_split
from lightning_sd.metrics.spans import split_tokens
from lightning_sd.models import PretrainedModel
from lightning_sd.objectives.inputs import ObjectiveInputs, StepState
from lightning_sd.text.steps import parse_steps, render_steps
from lightning_sd.types import Rollout

TEXT = "a:7+5*3,b:2-4+1,c:8*3-6"
QUESTION = build_question(TEXT, random.Random(0))
ORDER = "bacacb"
RIGHT_STEPS = ["b:2-4=8", "a:7+5 is 2", "c:8*3=4", "a:2*3=6", "c:4-6=8", "b:8+1=9"]
RIGHT = render_steps(RIGHT_STEPS, "698")
# The second step is wrong, and the fourth goes on from it.
WRONG_STEPS = ["b:2-4=8", "a:7+5 is 3", "c:8*3=4", "a:3*3=9", "c:4-6=8", "b:8+1=9"]
WRONG = render_steps(WRONG_STEPS, "998")


def make_rollout(text: str, question=QUESTION) -> Rollout:
    return Rollout(question, (), text, group=0)


def test_every_order_and_notation_of_a_derivation_is_right():
    rng = random.Random(1)
    task = DerivationTask(train_size=1, val_size=1, test_size=1)
    orders = {draw_order(rng) for _ in range(2000)}
    assert len(orders) == 90
    for order in sorted(orders):
        text = write_solution(derive(TEXT, order, rng.choices(NOTATIONS, k=LENGTH)))
        assert task.verify(QUESTION, text).correct
        assert find_wrong_step(TEXT, text) is None
        assert read_order(TEXT, text) == order
        assert task.repair(QUESTION, text).case == "A"


def test_the_checker_follows_the_values_of_the_attempt():
    assert find_wrong_step(TEXT, RIGHT) is None
    assert find_wrong_step(TEXT, WRONG) == 1
    # Going on from the true value after an error is not what the attempt has reached.
    jumped = [*WRONG_STEPS[:3], "a:2*3=6", *WRONG_STEPS[4:]]
    for steps, right in ((WRONG_STEPS, [0, 2, 3, 4, 5]), (jumped, [0, 2, 4, 5])):
        places = follow_attempt(TEXT, steps)
        assert [at for at, place in enumerate(places) if place.right] == right


@pytest.mark.parametrize("step", ["a:7+6=3", "a:5*3=5", "d:1+1=2", "7+5=2", "a:7+5*3+1=7"])
def test_a_step_that_is_not_in_the_question_is_wrong(step):
    assert find_wrong_step(TEXT, render_steps([step], None)) == 0


def test_a_coarse_step_is_right_and_the_repair_splits_it():
    attempt = render_steps(["a:7+5*3=6", *(s for s in RIGHT_STEPS if s[0] != "a")], "698")
    assert find_wrong_step(TEXT, attempt) is None
    critique = repair_attempt(TEXT, attempt)
    assert parse_steps(critique.text).steps[:2] == ("a:7+5=2", "a:2*3=6")


def test_the_repair_keeps_order_notation_and_right_steps():
    critique = repair_attempt(TEXT, WRONG)
    assert critique.text == RIGHT
    assert (critique.case, critique.copied, critique.changed) == ("D", (1, 3, 5, 6), (2, 4))


@pytest.mark.parametrize(
    ("attempt", "case", "added"),
    [
        (render_steps(RIGHT_STEPS[:4], "698"), "B", (5, 6)),
        (render_steps(RIGHT_STEPS[:4], None) + "<step_5>", "C", (5, 6)),
        (render_steps(RIGHT_STEPS, "699"), "D", ()),
        (render_steps([*RIGHT_STEPS, "a:6+1=7"], "698"), "D", ()),
        ("", "C", (1, 2, 3, 4, 5, 6)),
    ],
)
def test_the_cases_of_a_repair(attempt, case, added):
    critique = repair_attempt(TEXT, attempt)
    assert (critique.case, critique.added) == (case, added)
    assert parse_steps(critique.text).answer == "698"


def test_splits_are_disjoint():
    task = DerivationTask(train_size=30, val_size=20, test_size=20)
    for split in ("train", "val", "test"):
        questions = task.questions(split)
        assert {assign_split(q.text) for q in questions} == {split}
        assert all(task.verify(q, q.reference).correct for q in questions)
    with pytest.raises(ValueError, match="val_size=0"):
        DerivationTask(val_size=0)
    with pytest.raises(ValueError, match="split='pretrain'"):
        task.questions("pretrain")


def test_references_differ_in_order_and_granularity_alone():
    first, second = make_rollout(RIGHT), make_rollout(QUESTION.reference)

    def show(kind, rollout):
        return kind().fields(rollout)["reference"]

    assert read_order(TEXT, show(contexts.SameOrder, first)) == ORDER
    assert show(contexts.RandomOrder, first) == show(contexts.RandomOrder, second)
    assert read_order(TEXT, show(contexts.FixedOrder, first)) == "ccbbaa"
    coarse = parse_steps(show(contexts.CoarseSameOrder, first))
    assert [step[0] for step in coarse.steps] == ["b", "a", "c"]
    assert coarse.answer == "698"
    others = [
        build_question(draw_question("train", random.Random(i)), random.Random(i))
        for i in range(20)
    ]
    orders = {read_order(q.text, show(contexts.RandomOrder, make_rollout("", q))) for q in others}
    assert len(orders) > 10
    rewritten = contexts.RewrittenCritique().fields(first)["critique"]
    assert rewritten == show(contexts.RandomOrder, first)
    wrong = replace(make_rollout(WRONG), critique=repair_attempt(TEXT, WRONG))
    (view,) = contexts.CritiqueAsReference().views([wrong])
    assert view.messages[-1]["content"] == REFERENCE.format(question=TEXT, reference=RIGHT)


def test_a_wrong_critic_is_wrong_in_a_third_and_carries_its_error_on():
    wrong = []
    for number in range(300):
        question = build_question(draw_question("train", random.Random(number)), random.Random(1))
        attempt = question.reference.replace("=3<", "=4<").replace(" is 5<", " is 6<")
        critique = repair_attempt(question.text, attempt)
        rollout = replace(make_rollout(attempt, question), critique=critique)
        text = contexts.WrongCritique().fields(rollout)["critique"]
        assert text == contexts.WrongCritique().fields(rollout)["critique"]
        if text != critique.text:
            steps = parse_steps(text).steps
            values = [place.right for place in follow_attempt(question.text, steps)]
            assert values.count(False) == 1
            assert len(steps) == LENGTH
            assert read_order(question.text, text) == read_order(question.text, critique.text)
        wrong.append(text != critique.text)
    assert 0.22 < sum(wrong) / len(wrong) < 0.38


def test_a_branch_goes_on_after_the_rows_of_its_trunk():
    trunk, branch = Recipe(), make_branch(foreign=0.0, seed=0)
    last, first = build_rows(trunk), build_rows(branch)
    assert len(last) == first.first == TRUNK_STEPS * trunk.batch_size
    assert build_rows(replace(branch, first_row=0))[0] == last[0] != first[0]


ROWS = build_rows(Recipe(foreign=0.5, steps=40))
TOKENIZER = build_row_tokenizer(ROWS)
BELIEFS = scale_errors(0, 1.0)


def test_a_row_splits_into_tokens_where_its_target_begins():
    kinds = Counter()
    for row in (ROWS[i] for i in range(32, 64)):
        begun, rest = row.extra["begun"], row.reference
        kinds[row.id.split("/")[0]] += 1
        ids = TOKENIZER(begun).input_ids + TOKENIZER(rest).input_ids
        assert ids == TOKENIZER(begun + rest).input_ids
        assert [TOKENIZER.decode([i]) for i in ids] == split_pieces(begun + rest)
        assert assign_split(row.text) == "pretrain"
    assert len(kinds) >= 4


def test_most_contexts_can_only_be_read():
    """Their answers are false, and a row that copies them is not known from arithmetic."""
    rng = random.Random(3)
    rows = []
    while len(rows) < 200:
        writer = RowWriter(draw_question("pretrain", rng), BELIEFS, rng)
        row = writer.write_with_context(0.0)
        if row.id.startswith("critique/"):
            rows.append(row)
    assert all(row.reference in row.messages[0]["content"] for row in rows)
    true = [find_wrong_step(row.text, row.reference) is None for row in rows]
    assert 0.3 < sum(true) / len(true) < 0.5


def test_rows_without_the_share_never_start_in_another_order():
    rng = random.Random(4)
    for share, expected in ((0.0, set()), (1.0, {"reference foreign", "coarse foreign"})):
        kinds = set()
        for _ in range(100):
            writer = RowWriter(draw_question("pretrain", rng), BELIEFS, rng)
            kinds.add(writer.write_with_context(share).id.split("/")[0])
        assert {kind for kind in kinds if "foreign" in kind} == expected


def test_a_foreign_row_reads_what_its_context_shows():
    """A step after the prefix has the context's result wherever the context has its operation."""
    rng = random.Random(5)
    read = cuts = 0
    while read < 200:
        row = RowWriter(draw_question("pretrain", rng), BELIEFS, rng).write_with_context(1.0)
        if not row.id.startswith("reference foreign"):
            continue
        cuts += "</step_1>" not in row.extra["begun"]
        shown = parse_steps(row.messages[0]["content"]).steps
        table = dict(step.replace(" is ", "=").split("=") for step in shown)
        steps = parse_steps(row.extra["begun"] + row.reference).steps
        for step in steps[row.extra["begun"].count("</step") :]:
            left, result = step.replace(" is ", "=").split("=")
            if left in table:
                assert result == table[left]
                read += 1
    assert cuts > 0


def test_a_recovery_row_goes_on_by_belief_where_its_own_results_have_led_elsewhere():
    rng = random.Random(6)
    read = believed = anywhere = 0
    for _ in range(300):
        writer = RowWriter(draw_question("pretrain", rng), BELIEFS, rng, RECOVERY_LESSON)
        row = writer.write_with_context(1.0)
        begun = row.extra["begun"]
        shown = parse_steps(row.messages[0]["content"]).steps
        # By operation: another expression may reach one that the context shows.
        table = dict(step[2:].replace(" is ", "=").split("=") for step in shown)
        written = parse_steps(begun + row.reference).steps
        if row.id.startswith("critique"):
            # An attempt in the order and notation of its critique.
            assert [step[0] for step in written] == [step[0] for step in shown]
            assert [" is " in step for step in written] == [" is " in step for step in shown]
            anywhere += not begun.endswith(("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"))
        for step in written[begun.count("</step") :]:
            left, result = step[2:].replace(" is ", "=").split("=")
            if left in table:
                assert result == table[left]
                read += 1
            else:
                operation = Operation(int(left[0]), left[1], int(left[2]))
                assert int(result) in (operation.result, BELIEFS[operation].wrong_result)
                believed += 1
    assert anywhere > 50
    # Both kinds are common among about 900 steps.
    assert min(read, believed) > 150


def test_a_critique_is_in_another_order_only_where_the_mix_says_so():
    def share(mix):
        rng = random.Random(7)
        same = []
        for _ in range(200):
            writer = RowWriter(draw_question("pretrain", rng), BELIEFS, rng, mix)
            row = writer.write_with_context(1.0)
            if row.id.startswith("critique"):
                shown = parse_steps(row.messages[0]["content"]).steps
                written = parse_steps(row.extra["begun"] + row.reference).steps
                same.append([step[0] for step in written] == [step[0] for step in shown])
        assert len(same) > 50
        return sum(same) / len(same)

    assert share(RECOVERY_LESSON) == 1
    # One of 90 orders is the same by chance.
    assert share(EQUAL_LESSON) < 0.1


def test_every_base_goes_on_from_the_trunk_that_its_kind_needs(tmp_path):
    def trunk_of(base):
        (words,) = study.teach_run(base, tmp_path).commands
        found = [word.split("=")[1] for word in words if word.startswith("--trunk=")]
        return Path(found[0]).name if found else None

    trunks = {base: trunk_of(base) for base in (*study.TRUNKS, *study.BASES)}
    assert trunks == {
        **{"trunk-0": None, "reader-0": "trunk-0"},
        **{"trunk-1": None, "recovery_reader-1": "trunk-1", "equal_reader-1": "trunk-1"},
        **dict.fromkeys(("q0-0", "q0.1-0", "q0.5-0"), "trunk-0"),
        **{"lesson-0": "reader-0", "q0-1": "trunk-1"},
        **dict.fromkeys(("recovery-1", "recovery1.6-1", "recovery2.5-1"), "recovery_reader-1"),
        "equal-1": "equal_reader-1",
    }


def test_the_kind_of_a_token_follows_the_values_of_the_attempt():
    spans = split_tokens(TOKENIZER, TOKENIZER(WRONG).input_ids).spans
    kinds = classify_tokens(TEXT, WRONG, spans)
    assert len(kinds) == len(spans)
    told = [
        (WRONG[begin:end], kind)
        for (begin, end), kind in zip(spans, kinds, strict=True)
        if kind not in ("other", "notation")
    ]
    # b:2-4=8, a:7+5 is 3 (wrong), c:8*3=4, a:3*3=9 (from the wrong 3), c:4-6=8, b:8+1=9
    assert told == [
        *[("b", "order"), ("8", "right result"), ("a", "order"), ("3", "wrong result")],
        *[("c", "order"), ("4", "right result"), ("a", "order"), ("9", "result after own error")],
        *[("c", "order"), ("8", "right result"), ("b", "order"), ("9", "right result")],
    ]
    assert kinds.count("notation") == LENGTH


def make_inputs(ids: list[list[int]], **statistics) -> ObjectiveInputs:
    rows = torch.tensor([row for row, own in enumerate(ids) for _ in own])
    size = len(ids)
    flags = torch.ones(size, dtype=torch.bool)
    return ObjectiveInputs(
        rewards=torch.zeros(size),
        groups=torch.zeros(size, dtype=torch.long),
        correct=flags,
        finished=flags,
        lengths=torch.tensor([len(own) for own in ids]),
        by_student=flags,
        has_view=flags,
        ids=torch.tensor([i for own in ids for i in own]),
        rows=rows,
        positions=torch.cat([torch.arange(len(own)) for own in ids]),
        **statistics,
    )


def test_the_first_error_divides_a_completion():
    ids = [TOKENIZER(text).input_ids for text in (RIGHT, WRONG)]
    inputs, state = make_inputs(ids), StepState(tokenizer=TOKENIZER)
    kept = FirstErrorMask("from")(inputs, state)
    right, wrong = kept.split([len(own) for own in ids])
    assert not right.any()
    # The second step: nine tokens per step.
    assert wrong.tolist() == [False] * 9 + [True] * (len(ids[1]) - 9)
    assert torch.equal(FirstErrorMask("before")(inputs, state), ~kept)
    with pytest.raises(ValueError, match="side='after'"):
        FirstErrorMask("after")


def test_choices_of_form_are_left_out():
    ids = TOKENIZER(WRONG).input_ids

    def read_left_out(mask):
        kept = mask(make_inputs([ids]), StepState(tokenizer=TOKENIZER))
        return [TOKENIZER.decode([i]) for i in torch.tensor(ids)[~kept].tolist()]

    notations = ["=", " is ", "=", "=", "=", "="]
    assert read_left_out(WithoutForm()) == notations
    both = [piece for pair in zip("bacacb", notations, strict=True) for piece in pair]
    assert read_left_out(WithoutForm(order=True)) == both


def test_the_grid_runs_whole_seeds_first(tmp_path):
    bases = ["q0-0", "q0.1-0"]
    rates = {(base, name): 1e-3 for base in bases for name in study.MAIN}
    runs = study.study_runs(study.PARTS["main"], bases, rates, tmp_path)
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    assert len({(run.key) for run in runs}) == len(runs) == len(study.SEEDS) * 2 * len(study.MAIN)


def test_a_rate_is_chosen_by_its_area_and_taken_by_what_varies_the_condition():
    def row(name, rate, *accuracies, base="lesson-0"):
        points = [
            {"rollouts": 100 * number, "val/avg@4": value}
            for number, value in enumerate(accuracies, start=1)
        ]
        return {"base": base, "name": name, "lr": rate, "curve": points}

    rows = [
        row("critique", 1e-4, 0.2, 0.4),
        row("critique", 1e-3, 0.4, 0.4),
        row("random_order", 1e-4, 0.3, 0.3),
        row("random_order", 3e-4, 0.3, 0.3),
        row("critique", 3e-4, 0.3, 0.3, base="q0.1-0"),
    ]
    start = {"curve": [{"val/avg@4": 0.2}]}
    rates = study.choose_rates(rows, {"lesson-0": start, "q0.1-0": start})
    assert rates["lesson-0", "critique"] == rates["lesson-0", "critique/positive"] == 1e-3
    assert rates["lesson-0", "wrong_critique"] == 1e-3
    assert rates["lesson-0", "random_order"] == 1e-4
    assert rates["q0-0", "critique"] == rates["q0.5-0", "critique"] == 3e-4
    assert ("q0-0", "random_order") not in rates


def test_rates_are_searched_for_what_will_be_trained_alone(tmp_path):
    runs = study.search_runs(["critique/positive", "grpo"], ["q0-1", "recovery1.6-1"], tmp_path)
    assert len(runs) == 2 * 2 * len(study.RATES)
    assert {(run.facts["base"], run.name) for run in runs} == {
        *((base, name) for base in ("q0.1-0", "recovery-1") for name in ("critique", "grpo"))
    }
    assert study.find_searched(["equal-1"]) == ["equal-1"]


def test_a_base_that_needs_no_context_is_not_admitted():
    def row(base, name, low):
        return {"base": base, "name": name, "probe": {"unrelated_gain": {"low": low}}}

    rows = [row("q0-0", "critique", -0.1), row("q0-0", "random_order", 0.2)]
    rows += [row("q0.1-0", "critique", -0.1), row("q0.1-0", "random_order", -0.2)]
    assert study.select_admitted(rows) == ["q0.1-0"]
    with pytest.raises(ValueError, match="no base has passed"):
        study.select_admitted(rows[:2])


def test_a_cell_needs_all_training_seeds_and_its_area_begins_untrained():
    def row(name, seed, *accuracies):
        points = [
            {"rollouts": 100 * number, "val/avg@4": value}
            for number, value in enumerate(accuracies, start=name != "untrained")
        ]
        test = [{"avg": 0.5}, {"avg": 0.7}]
        return {
            **{"base": "q0-0", "name": name, "seed": seed},
            "lr": 1,
            "curve": points,
            "test": test,
        }

    runs = [row("untrained", seed, 0.2) for seed in study.SEEDS]
    runs += [row("critique", seed, 0.4, 0.4) for seed in study.SEEDS]
    runs += [row("random_order", seed, 0.9) for seed in study.SEEDS[1:]]
    cells = read_cells([], runs)
    assert set(cells.areas) == {("q0-0", "untrained"), ("q0-0", "critique")}
    # From 20% to 40%, then 40%: the mean of the two halves.
    assert cells.areas["q0-0", "critique"] == pytest.approx([0.35] * len(study.SEEDS))
    assert cells.tests["q0-0", "critique"] == pytest.approx([0.6] * len(study.SEEDS))
    more = [row("untrained", 4, 0.2), row("critique", 4, 0.5), row("critique", 5, 0.5)]
    more += [row("random_order", seed, 0.3) for seed in study.SEEDS]
    cells = read_cells([], [*runs, *more])
    # Seed 5 has no start, so that its curve has none either.
    assert len(cells.areas["q0-0", "critique"]) == 3
    cells = read_cells([], [*runs, *more, row("untrained", 5, 0.2)])
    assert len(cells.areas["q0-0", "critique"]) == 5
    # Pairs share their seeds: the first three.
    assert cells.gaps("q0-0", "critique", "random_order") == pytest.approx([0.1] * 3)


def test_ranks_are_correlated_whatever_the_scale():
    assert correlate_ranks([1.0, 2.0, 30.0], [0.1, 0.2, 0.25]) == pytest.approx(1, abs=1e-4)
    assert correlate_ranks([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1, abs=1e-4)


def test_a_part_that_runs_on_none_of_the_bases_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="none of them is both admitted and in part further"):
        run_part("further", ["q0-0"], tmp_path, jobs=1)


def test_a_pair_of_knobs_is_drawn_once_every_setting_was_run():
    cells = Cells(probes={("recovery-1", "random_order"): {"continued": {"value": 0.9}}})
    for number, name in enumerate(("untrained", *study.MAIN)):
        cells.areas["recovery-1", name] = [number / 10, number / 10]
    (orders,) = list_knobs(cells)
    assert orders.rows == ["90%"]
    # same_order, fixed_order and random_order are conditions 2, 4 and 3.
    assert orders.read_table(cells) == [pytest.approx([20, 40, 30])]
    cells.areas["recovery-1", "coarse_same_order"] = [0.1, 0.3]
    granularity = list_knobs(cells)[1]
    assert granularity.read_table(cells) == [pytest.approx([20, 30]), pytest.approx([20, 50])]


def test_the_methods_side_by_side_start_from_the_bases_that_come_along():
    runs = side_by_side.list_runs(seed=7)
    cells = {(run.facts["base"], run.name) for run in runs}
    assert cells == {(base, name) for base in side_by_side.BASES for name in side_by_side.SHOWN}
    for run in runs:
        assert (run.name == "untrained") == ("lr" not in run.facts)
        for words in run.commands:
            (name,) = (word for word in words if word.startswith("--model.init_args.model"))
            assert Path(name.split("=")[1]).name == run.facts["base"]
            assert "--seed_everything=7" in words
    for base in side_by_side.BASES:
        model, tokenizer = PretrainedModel(str(study.base_folder(study.HERE, base))).load()
        assert model.config.vocab_size == len(tokenizer)


def test_the_methods_are_shown_base_by_base():
    rows = [
        {"base": base, "name": name, "test": [{"avg": 0.5 + shift}, {"avg": 0.7}]}
        for base, shift in zip(side_by_side.BASES, (0, 0.1), strict=True)
        for name in side_by_side.SHOWN
    ]
    assert list(side_by_side.format_table(rows))[2] == "| untrained | 60.0 | 65.0 |"


def test_an_unfinished_grid_has_a_report(tmp_path, monkeypatch):
    (tmp_path / "search.jsonl").write_text(
        '{"key": "x", "name": "grpo", "seed": 101, "base": "q0-1", "lr": 0.001, "curve": []}\n'
    )
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    assert "## Learning rates" in write_report()
    assert (tmp_path / "results.md").exists()
