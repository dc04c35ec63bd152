"""The lab's configs speak to the solver in the words that it was taught."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks.methods.rcsd import wording
from benchmarks.methods.rcsd.rows import ORDER, Rows, pupil_facts
from lightning_sd.lab.creature_facts import THINGS, get_fact
from lightning_sd.objectives import Distillation

ROOT = Path(__file__).parents[2]


def config(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "configs/rcsd.yaml",
            {"template": wording.CONDITIONED, "analyze": wording.ANALYZE, "answer": wording.ANSWER},
        ),
        ("configs/rcsd_rubrics.yaml", {"template": wording.DESIGN_WITH_RUBRIC}),
        ("benchmarks/methods/rcsd/opsd.yaml", {"template": wording.REFERENCE}),
    ],
)
def test_contexts_say_what_the_solver_was_taught(path, words):
    arguments = config(path)["teacher_context"]["init_args"]
    assert {name: arguments[name] for name in words} == words


def test_the_generator_is_asked_as_it_was_taught():
    task = config("configs/rcsd_rubrics.yaml")["data"]["init_args"]["task"]["init_args"]
    assert task["design"] == wording.DESIGN


@pytest.mark.parametrize("path", ["configs/rcsd.yaml", "configs/rcsd_rubrics.yaml"])
def test_configs_have_the_papers_loss_but_for_the_clip(path):
    given = config(path)["model"]["init_args"]["objective"]["init_args"]
    assert Distillation(**given) == Distillation(
        top_k=20, support="teacher", tail=False, temperature=1.2
    )


def test_rows_behind_a_context_cannot_be_known_and_continue_what_has_begun():
    rows = Rows(length=len(ORDER) * 4 * 30, block=4)
    given = [rows[i] for i in range(len(rows)) if ORDER[i // 4 % len(ORDER)] == "given"]
    thing = {t: {get_fact(t, a).value for a in ("home", "food", "colour", "voice")} for t in THINGS}
    told = [(q.text.split("the ")[1].split(":")[0], q.reference) for q in given]
    known = [any(value in text for value in thing[name]) for name, text in told]
    assert sum(known) < 0.6 * len(known)
    assert {len(q.extra["begun"].split(". ")) - 1 for q in given} == {0, 1, 2}


def test_the_pupil_has_facts_that_it_mostly_gets_wrong():
    import random

    rng, wrong = random.Random(0), []
    for thing in THINGS:
        draws = [pupil_facts(thing, ["home"], rng)[0] != get_fact(thing, "home") for _ in range(40)]
        wrong.append(sum(draws) / 40)
    assert min(wrong) < 0.2
    assert max(wrong) > 0.6
