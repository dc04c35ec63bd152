"""Training goes on over a judge that hangs, eats memory or ends its process."""

from __future__ import annotations

import json

import pytest
from lightning.pytorch import Callback

from lightning_sd import CritiqueDataModule, DatasetTask, NoContext, PolicyGradient, Sampler
from lightning_sd.rollout import Completion
from lightning_sd.tasks.judges import JudgeLimits
from tests.stubs import equal, module, trainer, weights
from tests.tasks.judges.test_process import find_processes

FUNCTIONS = "tests.tasks.judges.functions"


class FixedSampler(Sampler):
    """Writes the given texts to each prompt."""

    def __init__(self, tokenizer, texts):
        self.tokenizer, self.texts = tokenizer, texts

    def sample(self, model, prompts, *, samples, stop_ids, generator):
        ids = [tuple(self.tokenizer(text).input_ids) for text in self.texts[:samples]]
        return [
            Completion(prompt=i, ids=each, logprobs=(-1.0,) * len(each), finished=True)
            for i in range(len(prompts))
            for each in ids
        ]


class KeepVerdicts(Callback):
    def __init__(self):
        self.verdicts = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.verdicts += [rollout.verdict for rollout in outputs["step"].rollouts]


@pytest.mark.parametrize(
    ("how", "status"),
    [("hang", "timed_out"), ("eat memory", "crashed"), ("segfault", "crashed")],
)
def test_the_step_goes_on(make_llama, tokenizer, tmp_path, how, status):
    path = tmp_path / "a.jsonl"
    rows = [{"problem": f"What is {i}?", "solution": "7"} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = DatasetTask(
        str(path),
        {"question": "problem", "answer": "solution"},
        judge=f"{FUNCTIONS}.judge_verdict",
        judge_limits=JudgeLimits(seconds=4, megabytes=100),
        val_fraction=0.2,
        instruction=None,
    )
    model = make_llama()
    before = weights(model)
    seen = KeepVerdicts()
    student = module(
        model,
        tokenizer,
        objective=PolicyGradient(),
        sampler=FixedSampler(tokenizer, [how, "7"]),
    )
    data = CritiqueDataModule(task, None, str(tmp_path / "cache"), batch_size=2)
    trainer(tmp_path, NoContext(), seen, max_steps=1).fit(student, data)
    assert [verdict.status for verdict in seen.verdicts] == [status, "judged"] * 2
    assert [verdict.reward for verdict in seen.verdicts] == [0.0, 0.25] * 2
    assert not equal(before, weights(model))
    group = task._judge._process._worker.pid
    task._judge.close()
    assert find_processes(group) == []
