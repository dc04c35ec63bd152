"""Training rows of the RCSD lab solver: poor answers without help, good reading of rubrics.

Rows with a context draw their facts at random, so the facts can only be read from the context. Some
of those answers already have a beginning, right or wrong, and the target continues as the context
says: as a teacher, the solver scores text that a student wrote.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from torch.utils.data import Dataset

from benchmarks.methods.rcsd.wording import (
    ANALYZE,
    ANSWER,
    CONDITIONED,
    DESIGN,
    DESIGN_WITH_RUBRIC,
    REFERENCE,
)
from lightning_sd.contexts.rubrics.rubric import Rubric
from lightning_sd.lab.creature_facts import (
    ASKED,
    ASPECTS,
    THINGS,
    VALUES,
    Fact,
    get_fact,
    get_mistake,
)
from lightning_sd.lab.creature_facts import write_question as ask
from lightning_sd.lab.creature_task import build_creature_rubric, list_spare_questions
from lightning_sd.types import Message, Question

KINDS = ((0.35, 0.03), (0.40, 0.45), (0.25, 0.85))
"""(share of all facts, rate of the common mistake): known, uncertain, wrong."""
ORDER = (
    *("alone", "given", "alone", "thought", "reference", "alone"),
    *("target", "given", "alone", "analysis", "design", "thought"),
)
"""Cycle of the kinds of micro-batches."""


def slip(thing: str, aspect: str) -> float:
    """Return the rate at which the pupil states the common mistake."""
    draw = random.Random(f"rcsd pupil/{thing}/{aspect}").random()
    for share, rate in KINDS:
        if draw < share:
            return rate
        draw -= share
    return KINDS[-1][1]


def pupil_facts(thing: str, aspects: Sequence[str], rng: random.Random) -> list[Fact]:
    """Draw the facts that the pupil states in one answer."""
    return [
        get_mistake(thing, a) if rng.random() < slip(thing, a) else get_fact(thing, a)
        for a in aspects
    ]


def spoken(facts: Sequence[Fact], rng: random.Random) -> str:
    """Render facts as sentences, each in one of its forms."""
    return " ".join(item.write(rng.randrange(2)) for item in facts)


def analysis(facts: Sequence[Fact], wrong: Fact) -> str:
    """Render the analysis: the expected values and the common mistake, in one line."""
    return ", ".join(item.value for item in facts) + f"; not {wrong.value}."


def pupil_rubric(facts: Sequence[Fact], rng: random.Random) -> list[dict[str, object]]:
    """Draw a careless rubric: random weights and mistake, negative criterion often missing."""
    wrong = rng.choice([v for v in VALUES[facts[0].aspect] if v != facts[0].value])
    plain = build_creature_rubric(facts, Fact(facts[0].aspect, wrong)).to_list()
    for criterion in plain[:-1]:
        criterion["weight"] = rng.choice((2, 3, 4, 5))
    return plain if rng.random() < 0.7 else plain[:-1]


@dataclass(frozen=True)
class Rows(Dataset[Question]):
    """Training rows; row i is the same in every process."""

    length: int
    block: int
    """Rows per micro-batch, all of one kind."""
    seed: int = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Question:
        rng = random.Random(f"rcsd row/{self.seed}/{index}")
        kind = ORDER[index // self.block % len(ORDER)]
        if kind == "alone":
            thing, aspects = rng.choice(_SPARE)
            known = pupil_facts(thing, aspects, rng)
            return _row(kind, index, [ask(thing, aspects)], spoken(known, rng))
        thing, aspects = rng.choice(THINGS), tuple(rng.sample(ASPECTS, ASKED))
        drawn = [rng.sample(VALUES[aspect], 2) for aspect in aspects]
        facts = [Fact(a, pair[0]) for a, pair in zip(aspects, drawn, strict=True)]
        return _shown(kind, index, ask(thing, aspects), facts, Fact(aspects[0], drawn[0][1]), rng)


_SPARE = list_spare_questions()


def _shown(
    kind: str, index: int, text: str, facts: list[Fact], wrong: Fact, rng: random.Random
) -> Question:
    """Build a row with a context to read."""
    reference = " ".join(item.write() for item in facts)
    truth = build_creature_rubric(facts, wrong).render()
    design = DESIGN.format(question=text, reference=reference)
    if kind == "design":
        careless = json.dumps(pupil_rubric(facts, rng), separators=(",", ":"))
        return _row(kind, index, [design], careless)
    if kind == "target":
        return _row(kind, index, [DESIGN_WITH_RUBRIC.format(question=design, rubric=truth)], truth)
    first = CONDITIONED.format(question=text, rubric=truth, request=ANALYZE)
    thought = analysis(facts, wrong)
    if kind == "analysis":
        return _row(kind, index, [first], thought)
    turns = {
        "given": [CONDITIONED.format(question=text, rubric=truth, request=ANSWER)],
        "reference": [REFERENCE.format(question=text, reference=reference)],
        "thought": [first, thought, ANSWER],
    }[kind]
    begun = rng.randrange(ASKED)
    said = [Fact(f.aspect, rng.choice((f.value, *VALUES[f.aspect]))) for f in facts[:begun]]
    start = spoken(said, rng) + (" " if said else "")
    return _row(kind, index, turns, spoken(facts[begun:], rng), begun=start)


def _row(kind: str, index: int, turns: Sequence[str], target: str, **extra: str) -> Question:
    roles = ("user", "assistant")
    return Question(
        id=f"{kind}/{index}",
        text=turns[0],
        messages=tuple(Message(role=roles[i % 2], content=turn) for i, turn in enumerate(turns)),
        reference=target,
        extra=extra,
    )


def texts(rows: Sequence[Question]) -> list[str]:
    """List all texts that the vocabulary must encode well."""
    return [t for row in rows for t in (*(m["content"] for m in row.messages), row.reference or "")]


def rubric_of(question: Question) -> str:
    """Render the ground-truth rubric."""
    return Rubric.from_list(question.extra["rubric"]).render()
