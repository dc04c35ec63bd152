"""Toy tasks, the embedded solver and the recipe that trained it."""

from lightning_sd.lab.arithmetic import ArithmeticTask
from lightning_sd.lab.rare import RareArithmeticTask
from lightning_sd.lab.rubric import RubricTask
from lightning_sd.lab.spoken_digits import SpokenDigitsTask

__all__ = [
    "ArithmeticTask",
    "RareArithmeticTask",
    "RubricTask",
    "SpokenDigitsTask",
]
