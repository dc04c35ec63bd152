from dataclasses import replace

import pytest

from lightning_sd.critique import RuleCritic
from lightning_sd.critique.base import CritiqueRequest
from lightning_sd.lab.arithmetic import ArithmeticTask
from lightning_sd.text.steps import render_steps
from tests.critique.cache.fakes import CatastrophicTask, NumberTask, echo, request


def ready(task=None):
    critic = RuleCritic()
    critic.setup(task or ArithmeticTask(steps=2, train_size=2, val_size=1, test_size=1))
    return critic


def test_repairs_by_the_tasks_rules():
    task = ArithmeticTask(steps=2, train_size=2, val_size=1, test_size=1)
    question = task.question("7+5*3")
    attempt = render_steps(["7+5=2", "2*3=7"], "7")
    request = CritiqueRequest(question, attempt, task.verify(question, attempt))
    [critique] = ready(task).critique([request])
    assert critique.text == render_steps(["7+5=2", "2*3=6"], "6")
    assert (critique.case, critique.copied, critique.changed) == ("D", (1,), (2,))
    assert critique.seconds > 0


def test_needs_a_task_with_rules():
    with pytest.raises(TypeError, match=r"NumberTask.*LMCritic"):
        ready(NumberTask())
    with pytest.raises(RuntimeError, match="setup"):
        RuleCritic().identity()


class Rewritten(ArithmeticTask):
    """The same rules under another name."""


def test_identity_tells_the_rules_apart():
    other = Rewritten(steps=2, train_size=2, val_size=1, test_size=1)
    assert ready().identity() == ready().identity()
    assert ready().identity() != ready(other).identity()


def test_rules_that_hang_in_compiled_code_are_killed():
    hanging, good = request(1, "a" * 60 + "b"), request(2, "x")
    critic = RuleCritic(seconds=5.0)
    critic.setup(CatastrophicTask())
    hung, repaired = critic.critique([hanging, good])
    assert hung.refused == "failed: timed_out: no result within 5 s"
    assert replace(repaired, seconds=0.25) == echo(good)


def test_a_limit_that_is_not_above_0_is_refused():
    with pytest.raises(ValueError, match="seconds=0"):
        RuleCritic(seconds=0)
