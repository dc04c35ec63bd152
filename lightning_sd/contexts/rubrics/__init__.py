"""Rubrics: what an answer is judged by, where they come from, and keeping them on disk."""

from lightning_sd.contexts.rubrics.rubric import Criterion, Parsed, Rubric, parse_rubric

__all__ = ["Criterion", "Parsed", "Rubric", "parse_rubric"]
