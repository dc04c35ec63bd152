"""Wrong settings end in one line that names the field, the value and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lightning_sd.cli.run import run
from lightning_sd.models import PretrainedModel
from tests.cli.test_configs import CONFIGS, TINY

QUICK = ["fit", "--config", str(CONFIGS / "quickstart.yaml"), *TINY]

FOLDER = ["--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.dirpath=ckpt"]
FOLDER += ["--trainer.enable_checkpointing=true"]
CASES = {
    "command": (["fti"], "fti: there is no such command; did you mean fit?"),
    "nothing": (["fit"], "--config quickstart"),
    "no config": (["fit", "--config", "nope.yaml"], "nope.yaml"),
    "option": ([*QUICK, "--modle.samples=3"], "did you mean model.samples?"),
    "trainer": ([*QUICK, "--trainer.max_stepz=3"], "did you mean trainer.max_steps?"),
    "argument": ([*QUICK, "--model.smaples=3"], "model.smaples: unknown option of SelfDistill"),
    "nested": ([*QUICK, "--model.objective.kindd=x"], "did you mean kind?"),
    "class": ([*QUICK, "--teacher_context=RefrenceSolution"], "did you mean ReferenceSolution?"),
    "objective": ([*QUICK, "--model.objective=Distilation"], "did you mean Distillation?"),
    "callback": ([*QUICK, "--trainer.callbacks=SampleTabel"], "did you mean SampleTable?"),
    "type": ([*QUICK, "--model.samples=abc"], "model.samples=abc: must be of type int"),
    "choice": ([*QUICK, "--data.on_refusal=drp"], "did you mean drop?"),
    "constructor": ([*QUICK, "--model.samples=0"], "samples=0: must be at least 1."),
    "size": ([*QUICK, "--data.task.train_size=0"], "error: train_size=0: must be at least 1."),
    "report": (
        [*QUICK, "--trainer.callbacks=TrainingReport", "--trainer.callbacks.rows=0"],
        "error: rows=0: must be at least 1.",
    ),
    "inner": ([*QUICK, "--model.objective.top_k=0"], "top_k=0"),
    "template": ([*QUICK, "--teacher_context.template={question}"], "add {critique}"),
    "field": (
        [*QUICK, "--teacher_context.template={question} {critiqe}"],
        "no field {critiqe}; did you mean critique?",
    ),
    "checkpoint": ([*QUICK, "--ckpt_path=nope.ckpt"], "ckpt_path=nope.ckpt: there is no such file"),
    "quantization": ([*QUICK, "--model.model.quantization=nf4"], "--model.model.lora=LoRA"),
    "bar": (
        [*QUICK, "--trainer.callbacks=StepProgressBar"],
        "trainer.enable_progress_bar=false: StepProgressBar is among trainer.callbacks; remove it",
    ),
    "task": ([*QUICK, "--data.task=Nope"], "Choose from ArithmeticTask, "),
    "optimizer": ([*QUICK, "--model.optimizer=Adan"], "did you mean Adam? Choose from ASGD, "),
    "option of torch": (
        [*QUICK, "--model.optimizer.lrr=3"],
        "model.optimizer.lrr: unknown option of AdamW; did you mean lr?",
    ),
    "number": (
        [*QUICK, "--model.optimizer.lr=abc"],
        "optimizer.lr=abc: must be of type float.",
    ),
    "union": ([*QUICK, "--model.objective.top_k=x"], "top_k=x: must be of type int or null."),
    "literals": (
        [*QUICK, "--trainer.precision=17"],
        "precision=17: choose one of ",
    ),
    "seed": ([*QUICK, "--seed_everything=x"], "seed_everything=x: must be of type bool or int."),
    "logger": ([*QUICK, "--trainer.logger=CSVLoger"], "did you mean CSVLogger?"),
    "of Lightning": ([*QUICK, "--trainer.callbacks=EarlyStoping"], "did you mean EarlyStopping?"),
    "model": ([*QUICK, "--model.model.name=./nope"], "model name='./nope': there is no such file"),
    "package": ([*QUICK, "--model.model.name=package:nope"], "nope"),
    "vllm": ([*QUICK, "--model.sampler=VLLMSampler"], 'pip install "lightning_sd[vllm]"'),
    "no template": (
        [*QUICK, "--teacher_context=own.NoTemplate"],
        "NoTemplate.template: the class ",
    ),
    "no fields": (
        [*QUICK, "--teacher_context=own.NoFields"],
        "the class is abstract; define fields.",
    ),
    "bare loss": (
        [*QUICK, "--model.objective=own.BareLoss"],
        "returned a Tensor; return TokenLoss",
    ),
    "mean loss": ([*QUICK, "--model.objective=own.MeanLoss"], "a loss of shape [] for 2 tokens"),
    "verify": (
        ["fit", "--config", "own.yaml", *[word for word in TINY if "task" not in word]],
        "OwnTask.verify returned 1.0 (float) for question 'val'. Return a Verdict",
    ),
    "attempts": ([*QUICK, "--model.attempts=stored"], "has no attempt: map a column to `attempt`"),
    "cache command": (
        ["critique", "stat"],
        "critique stat: there is no such command; did you mean stats?",
    ),
    "cache option": (["critique", "stats", "--foo=1", "out"], "--foo: unknown option"),
    "last": ([*QUICK, *FOLDER, "--ckpt_path=last"], "ckpt_path=last: no last*.ckpt in ['/"),
    "last for test": (
        ["test", *QUICK[1:], *FOLDER, "--ckpt_path=last"],
        "ckpt_path=last: no last*.ckpt in ['/",
    ),
}
OWN = """
from dataclasses import dataclass
from lightning_sd import LogprobObjective, Objective, Question, Task, TeacherContext

class NoTemplate(TeacherContext):
    def fields(self, rollout):
        return {}

class NoFields(TeacherContext):
    template = "{question}"

@dataclass(frozen=True)
class BareLoss(Objective):
    def token_loss(self, student_logits, teacher_logits, tokens):
        return student_logits.logsumexp(-1)

@dataclass(frozen=True)
class MeanLoss(LogprobObjective):
    def logprob_loss(self, logprobs, teacher_logprobs, tokens):
        return -logprobs.mean()

class OwnTask(Task):
    def questions(self, split):
        return [Question(split, split, ({"role": "user", "content": split},), "a")]

    def verify(self, question, completion):
        return 1.0
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(self):
        raise AssertionError("a model was loaded before the settings were checked")

    monkeypatch.setattr(PretrainedModel, "load", load)
    Path("own.py").write_text(OWN)
    task = {"task": {"class_path": "own.OwnTask"}}
    config = yaml.safe_load((CONFIGS / "quickstart.yaml").read_text())
    config["data"]["init_args"] |= {**task, "critic": None}
    config["teacher_context"] = {"class_path": "ReferenceSolution"}
    Path("own.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_one_line(name, capsys):
    words, expected = CASES[name]
    with pytest.raises(SystemExit) as stopped:
        run(words)
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert expected in lines[0]
    assert "Traceback" not in lines[0]
    assert "Namespace(" not in lines[0]


def test_a_misspelled_option_in_a_file(capsys):
    Path("own.yaml").write_text("model: {init_args: {smaples: 3}}\n")
    with pytest.raises(SystemExit):
        run([*QUICK, "--config", "own.yaml"])
    assert "did you mean samples?" in capsys.readouterr().err


def test_debug_shows_the_usage_or_the_traceback(capsys, monkeypatch):
    monkeypatch.setenv("LIGHTNING_SD_DEBUG", "1")  # so that it is removed afterwards
    with pytest.raises(SystemExit):
        run([*QUICK, "--model.smaples=3", "--debug"])
    assert "usage:" in capsys.readouterr().err
    with pytest.raises(ValueError, match="samples=0"):
        run([*QUICK, "--model.samples=0", "--debug"])


def test_a_missing_extra_is_named_before_the_model_is_loaded(capsys, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "peft" else real(name, *a)
    )
    with pytest.raises(SystemExit):
        run([*QUICK, "--model.model.lora=LoRA"])
    assert 'pip install "lightning_sd[lora]"' in capsys.readouterr().err


def test_passwords_are_hidden(capsys):
    critic = ["--data.critic=ServerCritic", "--data.critic.url=ftp://user:hunter2@host/v1"]
    with pytest.raises(SystemExit):
        run([*QUICK, *critic, "--data.critic.model=m"])
    assert "hunter2" not in capsys.readouterr().err
