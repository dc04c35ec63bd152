"""Read the JSON that a language model wrote, possibly inside other text."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, get_args

from lightning_sd.contexts.reflection.playbook import Addition, Tag

MAX_CHARACTERS = 50_000
"""The rest of a longer text is not read."""
PARTS = ("error_identification", "root_cause_analysis", "correct_approach", "key_insight")
"""Keys of a reflection, in the order in which the teacher sees them."""


def find_json_object(text: str, wanted: Collection[str]) -> dict[str, Any] | None:
    """Return the first JSON object in a text that has one of the wanted keys, or None.

    Args:
        text: A model's text; prose, code fences and broken objects are skipped.
        wanted: Keys.

    Example:
        >>> find_json_object('Sure! {oops} ```{"key_insight": "carry"}```', ["key_insight"])
        {'key_insight': 'carry'}
    """
    decoder = json.JSONDecoder(strict=False)
    for brace in re.finditer(r"\{", text[:MAX_CHARACTERS]):
        try:
            value, _ = decoder.raw_decode(text, brace.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and not value.keys().isdisjoint(wanted):
            return value
    return None


def read_reflection_parts(value: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of a reflection that are not empty, by key.

    Args:
        value: The JSON object of a reflection.
    """
    parts = {name: value.get(name) for name in PARTS}
    return {name: t.strip() for name, t in parts.items() if isinstance(t, str) and t.strip()}


def read_tags(value: Mapping[str, Any]) -> dict[str, Tag]:
    """Return the tags of lessons by their ids; invalid entries are skipped, and the last one wins.

    Args:
        value: The JSON object of a reflection.

    Example:
        >>> read_tags({"bullet_tags": [{"id": "[p1]", "tag": "Helpful"}, {"id": "p2"}, 3]})
        {'p1': 'helpful'}
    """
    tags: dict[str, Tag] = {}
    entries = value.get("bullet_tags")
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        name, tag = entry.get("id"), entry.get("tag")
        if isinstance(name, str) and isinstance(tag, str) and tag.lower() in get_args(Tag):
            tags[name.strip(" []")] = tag.lower()  # type: ignore[assignment]
    return tags


def read_additions(value: Mapping[str, Any]) -> tuple[Addition, ...] | None:
    """Return the lessons that a curator adds; other operations are skipped.

    Args:
        value: The JSON object that a curator wrote.

    Returns:
        None if there is no list of operations.
    """
    operations = value.get("operations")
    if not isinstance(operations, list):
        return None
    additions = []
    for operation in operations:
        if not isinstance(operation, dict) or str(operation.get("type", "")).upper() != "ADD":
            continue
        content, section = operation.get("content"), operation.get("section")
        if isinstance(content, str) and content.strip():
            additions.append(Addition(section if isinstance(section, str) else "", content.strip()))
    return tuple(additions)
