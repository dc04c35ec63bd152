"""Show where the teacher's signal falls, token by token, under one or several contexts."""

from lightning_sd.diagnostics.analysis.report import AnalysisReport
from lightning_sd.diagnostics.analysis.run import analyze

__all__ = ["AnalysisReport", "analyze"]
