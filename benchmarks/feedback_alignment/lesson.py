"""Training rows of the study's solver: every form of context in equal shares."""

from __future__ import annotations

import random

from benchmarks.feedback_alignment.forms import FORMS
from lightning_sd.contexts.templates import REFERENCE, STEP_ALIGNED
from lightning_sd.lab.recipe.careless_solver import write_right_solution
from lightning_sd.lab.recipe.training_rows import Lesson
from lightning_sd.lab.step_repair import repair_attempt, write_reference

TAUGHT = (*FORMS, "reference")


def draw_lesson(text: str, attempt: str, rng: random.Random) -> Lesson:
    """Draw a form and build one row with that context.

    For every form of a critique the target is the repaired attempt, also where the form does not
    show its words: there the solver can only learn that any notation is accepted. The critique of
    another attempt and of the weak critic are not separate forms: their text cannot be
    distinguished from the partial form. False corrections are never training data.
    """
    kind = rng.choice(TAUGHT)
    if kind == "reference":
        prompt = REFERENCE.format(question=text, reference=write_reference(text))
        return Lesson(kind, prompt, write_right_solution(text, rng))
    critique = repair_attempt(text, attempt)
    shown = FORMS[kind](attempt, critique)
    return Lesson(kind, STEP_ALIGNED.format(question=text, critique=shown), critique.text)
