"""Rubrics are written once a question, whatever stopped the run before."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from lightning_sd.contexts.rubrics import Rubric
from lightning_sd.contexts.rubrics.generate import Generator, write_rubrics
from lightning_sd.contexts.rubrics.sources import GeneratedRubric
from lightning_sd.contexts.rubrics.store import TextStore
from lightning_sd.lab import CreatureTask
from lightning_sd.rollout.base import Completion, Sampler
from tests.contexts.rubrics.test_rubric import criteria

DESIGN = "{question} {reference}"
QUESTIONS = CreatureTask(train_size=7, val_size=1, test_size=1).questions("train")


class Scripted(Sampler):
    """Writes what the script says, by the number of prompts that it has seen."""

    def __init__(self, tokenizer, script=lambda number: json.dumps(criteria()), stop_at=None):
        self.tokenizer, self.script, self.stop_at = tokenizer, script, stop_at
        self.asked, self.draws = 0, []

    def sample(self, model, prompts, *, samples, stop_ids, generator):
        found = []
        self.draws.append(int(torch.randint(2**60, (1,), generator=generator)))
        for i, _ in enumerate(prompts):
            if self.asked == self.stop_at:
                raise KeyboardInterrupt
            text = self.script(self.asked)
            ids = self.tokenizer(text, add_special_tokens=False).input_ids
            found.append(Completion(i, tuple(ids), (0.0,) * len(ids), finished=True))
            self.asked += 1
        return found


@pytest.fixture
def run(tiny_llama, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_sd.contexts.rubrics.generate.describe", lambda sampler: "same")

    def write(sampler, **kwargs):
        generator = Generator(tiny_llama, tokenizer, sampler, DESIGN)
        store = TextStore(tmp_path / "rubrics.jsonl")
        return write_rubrics(generator, QUESTIONS, store, batch_size=3, **kwargs)

    return write


def test_a_stopped_run_goes_on_and_a_third_asks_nothing(run, tokenizer, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Scripted(tokenizer, stop_at=5))  # the second batch is lost, the first is on disk
    second = Scripted(tokenizer)
    report = run(second)
    assert (report.stored, report.written, second.asked) == (3, 4, 4)
    third = Scripted(tokenizer)
    assert run(third).stored == 7
    assert third.asked == 0
    found = GeneratedRubric(str(tmp_path / "rubrics.jsonl")).read_rubrics(QUESTIONS)
    assert found == [Rubric.from_list(criteria())] * 7


def test_refusals_are_counted_kept_and_asked_again_only_if_wanted(run, tokenizer, tmp_path):
    bad = lambda number: "no" if number in (1, 4) else json.dumps(criteria())  # noqa: E731
    report = run(Scripted(tokenizer, bad))
    assert (report.written, report.refused) == (5, {"no JSON array of criteria": 2})
    assert GeneratedRubric(str(tmp_path / "rubrics.jsonl")).read_rubrics(QUESTIONS).count(None) == 2
    again = Scripted(tokenizer)
    assert run(again).stored == 7
    assert again.asked == 0
    report = run(again, asks=2)
    assert (report.stored, report.written, again.asked) == (5, 2, 2)
    assert None not in GeneratedRubric(str(tmp_path / "rubrics.jsonl")).read_rubrics(QUESTIONS)


def test_asking_twice_in_one_run_draws_anew(run, tokenizer):
    sampler = Scripted(tokenizer, lambda number: "no" if number < 7 else json.dumps(criteria()))
    report = run(sampler, asks=2)
    assert (report.written, sum(report.refused.values())) == (7, 7)
    assert len(set(sampler.draws)) == 6


def test_other_weights_or_wording_are_another_generator(tiny_llama, make_llama, tokenizer):
    from lightning_sd.rollout import TransformersSampler

    base = Generator(tiny_llama, tokenizer, TransformersSampler(), DESIGN)
    others = [
        replace(base, model=make_llama(seed=1)),
        replace(base, design=DESIGN + "!"),
        replace(base, sampler=TransformersSampler(temperature=0.5)),
    ]
    assert len({one.compute_digest() for one in (base, *others)}) == 4
    assert replace(base).compute_digest() == base.compute_digest()


def test_a_question_without_reference_is_an_error(run, tokenizer, tiny_llama, tmp_path):
    generator = Generator(tiny_llama, tokenizer, Scripted(tokenizer), DESIGN)
    bare = [replace(QUESTIONS[0], reference=None)]
    with pytest.raises(ValueError, match="no reference answer"):
        write_rubrics(generator, bare, TextStore(tmp_path / "x.jsonl"))
