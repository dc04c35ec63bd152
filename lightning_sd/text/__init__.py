"""Step tags, removal of a model's thinking, and phrases that leak the context."""

from lightning_sd.text.leaks import LEAKS
from lightning_sd.text.steps import StepTrace, parse_steps, render_steps
from lightning_sd.text.thinking import strip_thinking, without_thinking

__all__ = [
    "LEAKS",
    "StepTrace",
    "parse_steps",
    "render_steps",
    "strip_thinking",
    "without_thinking",
]
