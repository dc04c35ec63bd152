"""Whether a context is worth distilling, asked before anything is trained."""

from lightning_sd.probe.leaks import LEAKS
from lightning_sd.probe.report import ProbeReport
from lightning_sd.probe.verdict import Thresholds

__all__ = ["LEAKS", "ProbeReport", "Thresholds"]
