"""The usual layouts of data sets, recognized by their column names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lightning_sd.tasks.cells import find_column

LAYOUTS: Mapping[str, Mapping[str, str]] = {
    "verl": {"question": "prompt", "answer": "reward_model.ground_truth"},
    "OpenAI messages": {"question": "messages", "reference": "messages"},
    "ShareGPT": {"question": "conversations", "reference": "conversations"},
    "TRL prompt-completion": {"question": "prompt", "reference": "completion"},
    "TRL preference": {"question": "prompt", "reference": "chosen"},
    "TRL preference without prompt": {"question": "chosen", "reference": "chosen"},
    "TRL prompt with answer": {"question": "prompt", "answer": "answer"},
    "TRL prompt with ground truth": {"question": "prompt", "answer": "ground_truth"},
    "TRL prompt with solution": {"question": "prompt", "reference": "solution"},
    "question, solution and answer": {
        "question": "question",
        "reference": "solution",
        "answer": "answer",
    },
    "question and answer": {"question": "question", "answer": "answer"},
    "problem, solution and answer": {
        "question": "problem",
        "reference": "solution",
        "answer": "answer",
    },
    "problem and answer": {"question": "problem", "answer": "answer"},
    "problem and solution": {"question": "problem", "reference": "solution"},
}
"""Column of each field, by the name of the layout. The first layout that fits is used."""


def recognize_layout(existing: Iterable[str], where: str) -> Mapping[str, str]:
    """Return the column of each field, for a data set without mapped columns.

    Args:
        existing: The data set's columns.
        where: Name of the data set, for the error message.

    Raises:
        ValueError: No layout fits.

    Example:
        >>> recognize_layout(["prompt", "completion"], "my.jsonl")
        {'question': 'prompt', 'reference': 'completion'}
    """
    names = list(existing)
    for columns in LAYOUTS.values():
        if all(find_column(names, column) for column in columns.values()):
            return columns
    raise ValueError(
        f"columns=None: the layout of {where} with the columns {', '.join(sorted(names))} is not "
        "known. Map them, for example {question: text, answer: label}."
    )
