"""Step tags, removal of a model's thinking, cleaning of texts, phrases that leak the context."""

from lightning_sd.text.cleaning import clean_question, clean_text, clean_value
from lightning_sd.text.leaks import LEAK_PHRASES
from lightning_sd.text.steps import StepTrace, parse_steps, render_steps
from lightning_sd.text.thinking import extract_response, strip_thinking

__all__ = [
    "LEAK_PHRASES",
    "StepTrace",
    "clean_question",
    "clean_text",
    "clean_value",
    "extract_response",
    "parse_steps",
    "render_steps",
    "strip_thinking",
]
