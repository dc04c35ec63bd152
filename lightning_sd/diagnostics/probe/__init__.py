"""Whether a context is worth distilling, asked before anything is trained."""

from lightning_sd.diagnostics.probe.report import ProbeReport
from lightning_sd.diagnostics.probe.verdict import Thresholds
from lightning_sd.text.leaks import LEAK_PHRASES

__all__ = ["LEAK_PHRASES", "ProbeReport", "Thresholds"]
