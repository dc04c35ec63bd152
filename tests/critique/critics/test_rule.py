import pytest

from lightning_sd.critique import RuleCritic
from lightning_sd.critique.base import CritiqueRequest
from lightning_sd.lab.arithmetic import ArithmeticTask
from lightning_sd.text.steps import render_steps
from tests.critique.cache.fakes import NumberTask


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
