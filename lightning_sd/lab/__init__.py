"""Toy tasks, the embedded solver and its training recipe."""

from lightning_sd.lab.arithmetic import ArithmeticTask
from lightning_sd.lab.creature_task import CreatureTask
from lightning_sd.lab.hard_arithmetic import HardArithmeticTask
from lightning_sd.lab.spoken_digits import SpokenDigitsTask

__all__ = [
    "ArithmeticTask",
    "CreatureTask",
    "HardArithmeticTask",
    "SpokenDigitsTask",
]
