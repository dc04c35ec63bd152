"""Whether a context is worth distilling, asked before anything is trained."""

from lightning_sd.diagnostics.probe.report import ProbeReport
from lightning_sd.diagnostics.probe.verdict import Thresholds
from lightning_sd.text.leaks import LEAKS

__all__ = ["LEAKS", "ProbeReport", "Thresholds"]
