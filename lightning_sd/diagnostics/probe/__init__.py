"""Measure, before training, whether a teacher context is worth distilling."""

from lightning_sd.diagnostics.probe.report import ProbeReport
from lightning_sd.diagnostics.probe.run import probe
from lightning_sd.diagnostics.probe.verdict import Thresholds

__all__ = ["ProbeReport", "Thresholds", "probe"]
