"""Estimate memory, arithmetic and time of a step before anything is loaded or rented."""

from lightning_sd.diagnostics.plan.report import PlanReport
from lightning_sd.diagnostics.plan.run import plan

__all__ = ["PlanReport", "plan"]
