"""Rubrics: criteria by which an answer is judged, their sources, and their storage on disk."""

from lightning_sd.contexts.rubrics.rubric import Criterion, ParsedRubric, Rubric, parse_rubric

__all__ = ["Criterion", "ParsedRubric", "Rubric", "parse_rubric"]
