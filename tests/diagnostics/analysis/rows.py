"""Rows of an analysis, made by hand."""

from __future__ import annotations

from lightning_sd.diagnostics.analysis.rows import build_row
from lightning_sd.metrics.spans import Pieces
from lightning_sd.metrics.wrong_steps import Steps, find_steps
from lightning_sd.types import Critique, Message, Question, Rollout, TeacherView, Verdict

WORDS = ("so",)


def view(text="seen"):
    return TeacherView((Message(role="user", content=text),))


def row(question="q1", *, right=False, one=(0.0, -1.0), two=(0.5, -0.5), wrong=(2,), texts=None):
    """Two steps of one token each unless ``texts`` gives the tokens; contexts One and Two."""
    texts = texts or ("<step_1>", "<step_2>")
    rollout = Rollout(
        Question(f"id/{question}", question, (), answer="6"),
        tuple(range(len(texts))),
        "".join(texts),
        0,
        verdict=Verdict(float(right), right, "6" if right else "5"),
    )
    spans, position = [], 0
    for text in texts:
        spans.append((position, position + len(text)))
        position += len(text)
    pieces = Pieces(tuple(texts), tuple(spans), (None,) * len(texts))
    steps = Steps(pieces, ((0, 1), (1, 2)), wrong, "task")
    views = {"One": (view(), one), "Two": (view() if two else None, two)}
    return build_row(rollout, steps, views, WORDS)


def written(tokenizer, text, question, *, context="seen", case="D"):
    """One row with a real tokenizer; step 2 is wrong, every other token is disliked."""
    ids = (*tokenizer.encode(text, add_special_tokens=False), 1)
    rollout = Rollout(
        Question("id/hostile", question, ()),
        ids,
        text,
        0,
        verdict=Verdict(0.0, False, "5"),
        critique=Critique("...", case, copied=(1,), changed=(2,)),
    )
    steps = find_steps(rollout, tokenizer)
    values = tuple((-1.0) ** i * (i % 7) / 5 for i in range(len(ids)))
    views = {"One": (view(context), values), "Two": (view(context), values)}
    return build_row(rollout, steps, views, WORDS)
