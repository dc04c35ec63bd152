"""One script from Python in an empty folder, and the YAML that it prints on the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = '''
import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

import lightning_sd as lsd
from lightning_sd.functional import fused_linear_divergence
from lightning_sd.types import Question, Rollout

rows = [
    {"question": f"{n}+1", "solution": f"{n}+1 is {n + 1}", "answer": str(n + 1)} for n in range(80)
]
result = lsd.train("package:lightning_sd/lab/solver", rows, "opsd", max_steps=1, batch_size=4)
assert set(result.before) == set(result.after)
print("trained with loss", result.metrics["train/loss"])
with open("method.yaml", "w") as file:
    file.write(lsd.describe_method("opsd"))


class Borrower(pl.LightningModule):
    """A module that knows nothing of this package but a rollout and one call."""

    def __init__(self, tokenizer):
        super().__init__()
        self.tokenizer, self.teacher_context = tokenizer, None
        self.weight = torch.nn.Parameter(torch.ones(6, 4))

    def training_step(self, batch, batch_idx):
        rollouts = [Rollout(question, (5,), "7", i) for i, question in enumerate(batch)]
        views = self.teacher_context.views(rollouts)
        print("the teacher sees", views[0].messages[0]["content"])
        hidden, labels = torch.ones(1, 2, 4), torch.tensor([[1, -100]])
        return fused_linear_divergence(
            hidden, self.weight, hidden, 2 * self.weight.detach(), "js", labels=labels
        )

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


ask = ({"role": "user", "content": "3+1"},)
questions = [Question(str(n), "3+1", ask, reference="3+1 is 4") for n in range(2)]
quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
trainer = pl.Trainer(max_steps=1, callbacks=[lsd.ReferenceSolution()], **quiet)
trainer.fit(Borrower(result.module.tokenizer), DataLoader(questions, 2, collate_fn=list))

metric = lsd.AvgAtK()
metric.update(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
print("the mean is", float(metric.compute()))
'''
SHOWN = ("trained with loss", "the teacher sees 3+1", "3+1 is 4", "the mean is 0.75")


@pytest.mark.slow
def test_a_script_and_the_yaml_that_it_prints(tmp_path: Path) -> None:
    (tmp_path / "day.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    screen = run("day.py")
    for text in SHOWN:
        assert text in screen
    settings = run(
        "-m", "lightning_sd", "fit", "--config", "quickstart", "--config", "method.yaml",
        "--print_config",
    )  # fmt: skip
    assert "class_path: lightning_sd.ReferenceSolution" in settings
