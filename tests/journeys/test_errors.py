"""Wrong settings end in one line that names the field, the value and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_sd.cli.run import run
from lightning_sd.models import PretrainedModel
from tests.cli.test_configs import CONFIGS, TINY

QUICK = ["fit", "--config", str(CONFIGS / "quickstart.yaml"), *TINY]

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
    "inner": ([*QUICK, "--model.objective.top_k=0"], "top_k=0"),
    "template": ([*QUICK, "--teacher_context.template={question}"], "add {critique}"),
    "field": (
        [*QUICK, "--teacher_context.template={question} {critiqe}"],
        "no field {critiqe}; did you mean critique?",
    ),
    "checkpoint": ([*QUICK, "--ckpt_path=nope.ckpt"], "ckpt_path=nope.ckpt: there is no such file"),
    "quantization": ([*QUICK, "--model.model.quantization=nf4"], "--model.model.lora=LoRA"),
    "bar": (
        [*QUICK, "--trainer.callbacks=RichProgressBar"],
        "enable_progress_bar",
    ),
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(self):
        raise AssertionError("a model was loaded before the settings were checked")

    monkeypatch.setattr(PretrainedModel, "load", load)


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
