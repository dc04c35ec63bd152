from __future__ import annotations

import hashlib
import json
import random
import re
import socket
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from lightning_sd.contexts.templates import REFERENCE, STEP_ALIGNED
from lightning_sd.lab.arithmetic import ArithmeticTask
from lightning_sd.lab.expressions import assign_split
from lightning_sd.lab.recipe.__main__ import main
from lightning_sd.lab.recipe.card import write_card
from lightning_sd.lab.recipe.careless_solver import CarelessSolver
from lightning_sd.lab.recipe.evaluate import Report, Solver, evaluate
from lightning_sd.lab.recipe.train import ContinuingModule, Recipe
from lightning_sd.lab.recipe.training_rows import Lesson, TrainingRows
from lightning_sd.lab.recipe.vocabulary import CHAT_TOKENS, STEP_TAGS
from lightning_sd.lab.step_repair import find_wrong_step, repair_attempt, write_reference
from lightning_sd.models import LoadedModel, PretrainedModel
from lightning_sd.text.steps import parse_steps

SOURCE = PretrainedModel("package:lightning_sd/lab/solver")
MODEL, TOKENIZER = SOURCE.load()
TASK = ArithmeticTask(train_size=1, val_size=60, test_size=1)


@pytest.fixture(scope="module")
def report() -> Report:
    solver = Solver(MODEL, TOKENIZER, torch.Generator().manual_seed(1))
    return evaluate(solver, TASK, TASK.questions("val"), samples=4)


def card() -> dict[str, float]:
    """The card's table: label to share."""
    folder = SOURCE.path()
    assert folder is not None
    text = (folder / "README.md").read_text(encoding="utf-8")
    return {
        label: float(percent) / 100
        for label, percent in re.findall(r"^\| (.+) \| ([0-9.]+)% \|$", text, re.MULTILINE)
    }


def test_it_loads_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the embedded solver asked for a network connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    model, tokenizer = SOURCE.load()
    assert sum(p.numel() for p in model.parameters()) < 1_000_000
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert tokenizer.chat_template


def test_the_folder_is_whole_and_small() -> None:
    folder = SOURCE.path()
    assert folder is not None
    names = {path.name for path in folder.iterdir()}
    assert {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    } == names
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4e6
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == TOKENIZER.eos_token_id
    assert generation["pad_token_id"] == TOKENIZER.pad_token_id != TOKENIZER.eos_token_id


def test_alone_it_is_right_on_about_half_and_fails_by_wrong_steps(report: Report) -> None:
    assert 0.3 < report.avg < 0.6
    assert report.malformed < 0.01
    assert report.wrong_step > 0.97
    assert report.passed > report.avg + 0.2  # what it gets wrong it can often get right


def test_it_uses_what_is_in_its_prompt(report: Report) -> None:
    assert report.with_critique >= 0.85
    assert report.verbatim >= 0.85
    assert report.with_reference >= 0.85


def test_the_card_is_what_its_generator_writes(tmp_path: Path) -> None:
    numbers = list(card().values())
    avg, passed, majority, malformed, wrong_step, critique, verbatim, reference = numbers
    shown = Report(
        questions=200,
        samples=12,
        avg=avg,
        passed=passed,
        majority=majority,
        malformed=malformed,
        wrong_step=wrong_step,
        with_critique=critique,
        verbatim=verbatim,
        with_reference=reference,
    )
    parameters = sum(p.numel() for p in MODEL.parameters())
    write_card(tmp_path, Recipe(), shown, parameters=parameters, minutes=27, threads=1)
    folder = SOURCE.path()
    assert folder is not None
    assert (tmp_path / "README.md").read_text() == (folder / "README.md").read_text()


def test_the_cards_numbers_are_what_it_does(report: Report) -> None:
    numbers = card()
    assert len(numbers) == 8
    # 240 answers against the card's 2,400: five standard errors.
    assert report.avg == pytest.approx(numbers["correct without a context (Avg@12)"], abs=0.16)
    assert report.with_critique == pytest.approx(
        numbers["correct on failed attempts, given the critique"], abs=0.08
    )
    assert report.with_reference == pytest.approx(
        numbers["correct on failed attempts, given the reference"], abs=0.12
    )


def test_it_answers_in_plain_transformers() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = SOURCE.path()
    assert folder is not None
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    questions = TASK.questions("val")[:8]
    prompts = tokenizer.apply_chat_template(
        [list(question.messages) for question in questions],
        add_generation_prompt=True,
        padding=True,
        return_tensors="pt",
        return_dict=True,
    )
    torch.manual_seed(0)
    ids = model.generate(**prompts)[:, prompts["input_ids"].shape[1] :]
    for text in tokenizer.batch_decode(ids, skip_special_tokens=True):
        trace = parse_steps(text)
        assert trace.well_formed
        assert len(trace.steps) == 4


def test_tags_are_tokens_that_survive_and_chat_tokens_are_not() -> None:
    for tag in STEP_TAGS:
        ids = TOKENIZER(tag).input_ids
        assert len(ids) == 1
        assert TOKENIZER.decode(ids, skip_special_tokens=True) == tag
    for token in CHAT_TOKENS:
        ids = TOKENIZER(token).input_ids
        assert len(ids) == 1
        assert TOKENIZER.decode(ids, skip_special_tokens=True) == ""
    assert len(TOKENIZER) == MODEL.get_input_embeddings().weight.shape[0]


def test_digits_stand_alone() -> None:
    assert [TOKENIZER.decode([i]) for i in TOKENIZER("so 71+5 is 2").input_ids] == [
        "so ",
        *"71+5",
        " is ",
        "2",
    ]


@given(st.lists(st.one_of(st.text(), st.sampled_from([*STEP_TAGS, *CHAT_TOKENS]))).map("".join))
@example("tabs\tand  blanks \n\n é ß 漢字 \U0001f600 \u200b</step_1>\r\n ")
def test_any_text_comes_back_exactly(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER(text).input_ids) == text


ROWS = TrainingRows(CarelessSolver.from_seed(0), seed=0, steps=4, length=1000, block=10)


def test_rows_are_fixed_and_come_from_pretraining_questions() -> None:
    assert len(ROWS) == 1000
    for index in range(100):
        assert ROWS[index] == ROWS[index]
        assert assign_split(ROWS[index].text) == "pretrain"
        alone = ROWS[index].id.startswith("alone/")
        assert alone == (index // 10 % 2 == 0)
        assert alone == (ROWS[index].messages[0]["content"] == ROWS[index].text)


def test_rows_with_a_context_use_it_and_go_on_from_errors() -> None:
    counts = {"critique": 0, "reference": 0, "continued": 0}
    for row in (ROWS[i] for i in range(1000) if i // 10 % 2):
        kind, prompt, target = row.id.split("/")[0], row.messages[0]["content"], row.reference
        begun = row.extra.get("begun", "")
        assert target is not None
        assert parse_steps(begun + target).well_formed
        counts[kind] += 1
        if kind == "reference":
            assert prompt == REFERENCE.format(
                question=row.text, reference=write_reference(row.text)
            )
        else:
            critique = repair_attempt(row.text, begun + target).text
            assert prompt == STEP_ALIGNED.format(question=row.text, critique=critique)
        wrong = find_wrong_step(row.text, begun + target)
        assert (wrong is None) == (begun == "")
        if wrong is not None:
            counts["continued"] += 1
            # The wrong result is the last thing that is given; what follows is to be learnt.
            assert target.startswith(f"</step_{wrong + 1}>")
            assert find_wrong_step(row.text, begun) == wrong
    assert 250 < counts["critique"] < 350
    assert 100 < counts["continued"] < 190  # half of the attempts that fail


def test_the_rows_are_those_that_the_embedded_solver_was_made_from() -> None:
    digest = hashlib.sha256("".join(repr(ROWS[i]) for i in range(400)).encode()).hexdigest()
    assert digest == "340b2f95392c6cf8be1facf77683f8d9bdc6b12e48c6c8a111a911ca926aa149"


def test_other_lessons_take_the_place_of_rows_with_a_context_and_go_on_from_errors_too() -> None:
    def lesson(text: str, attempt: str, rng: random.Random) -> Lesson:
        return Lesson("other", f"{text}?", repair_attempt(text, attempt).text)

    rows = replace(ROWS, make_lesson=lesson)
    taught = [rows[i] for i in range(1000) if i // 10 % 2]
    assert [rows[i] for i in range(10)] == [ROWS[i] for i in range(10)]
    assert {row.id.split("/")[0] for row in taught} == {"other"}
    assert {row.messages[0]["content"] for row in taught} == {f"{row.text}?" for row in taught}
    assert 100 < sum("begun" in row.extra for row in taught) < 190


def test_what_has_begun_is_read_but_not_learnt() -> None:
    row = next(row for row in map(ROWS.__getitem__, range(10, 1000)) if row.extra)
    module = ContinuingModule(LoadedModel(MODEL, TOKENIZER))
    module.configure_model()
    prompts, targets = module.encode([row])
    assert TOKENIZER.decode(prompts[0]) == (
        f"<user>{row.messages[0]['content']}<end><assistant>{row.extra['begun']}"
    )
    assert TOKENIZER.decode(targets[0]) == f"{row.reference}<end>"


def test_a_token_that_begins_texts_does_not_come_between_prompt_and_answer() -> None:
    row = next(row for row in map(ROWS.__getitem__, range(10, 1000)) if row.extra)
    prefixed = deepcopy(TOKENIZER)
    prefixed._tokenizer.post_processor = TemplateProcessing(
        single="<user> $A", special_tokens=[("<user>", TOKENIZER.convert_tokens_to_ids("<user>"))]
    )
    assert len(prefixed("").input_ids) == 1
    encoded = []
    for tokenizer in (TOKENIZER, prefixed):
        module = ContinuingModule(LoadedModel(MODEL, tokenizer))
        module.configure_model()
        encoded.append(module.encode([row, replace(row, extra={})]))
    assert encoded[0] == encoded[1]
    begun = TOKENIZER(row.extra["begun"]).input_ids
    assert encoded[0][0][0][-len(begun) :] == begun


def test_the_recipe_writes_a_whole_folder_and_the_same_one_again(tmp_path: Path) -> None:
    recipe = Recipe(steps=3, batch_size=8, width=16, layers=1, heads=2, feed_forward=16)
    for name in ("one", "two"):
        main(tmp_path / name, recipe, questions=2, threads=1)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
    text = (tmp_path / "one" / "README.md").read_text(encoding="utf-8")
    assert (
        "recipe --out DIR --threads 1 --recipe.steps 3 --recipe.batch_size 8 --recipe.width 16"
        in text
    )
    model, tokenizer = PretrainedModel(str(tmp_path / "one")).load()
    assert model.config.vocab_size == len(tokenizer)
