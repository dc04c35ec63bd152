"""Reading the JSON that a language model wrote, however it wrote it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, get_args

from lightning_sd.contexts.reflection.playbook import Addition, Tag

MAX_CHARACTERS = 50_000
"""Beyond it a text is not read: no reflection is that long."""
PARTS = ("error_identification", "root_cause_analysis", "correct_approach", "key_insight")


def json_object(text: str, wanted: Collection[str]) -> dict[str, Any] | None:
    """The first JSON object in a text that has one of the wanted keys.

    Args:
        text: What a model wrote: prose, code fences and broken objects may stand around it.
        wanted: Keys.

    Returns:
        None: there is none.

    Example:
        >>> json_object('Sure! {oops} ```{"key_insight": "carry"}```', ["key_insight"])
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


def reflection_parts(value: Mapping[str, Any]) -> dict[str, str]:
    """The texts of a reflection that are there, stripped."""
    found = {name: value.get(name) for name in PARTS}
    return {name: t.strip() for name, t in found.items() if isinstance(t, str) and t.strip()}


def tags_in(value: Mapping[str, Any]) -> dict[str, Tag]:
    """Tags by the ids of lessons; what is none is passed over, and the last one counts.

    Example:
        >>> tags_in({"bullet_tags": [{"id": "[p1]", "tag": "Helpful"}, {"id": "p2"}, 3]})
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


def additions_in(value: Mapping[str, Any]) -> tuple[Addition, ...] | None:
    """The lessons that a curator adds; other operations are passed over.

    Returns:
        None: no list of operations at all.
    """
    operations = value.get("operations")
    if not isinstance(operations, list):
        return None
    found = []
    for operation in operations:
        if not isinstance(operation, dict) or str(operation.get("type", "")).upper() != "ADD":
            continue
        content, section = operation.get("content"), operation.get("section")
        if isinstance(content, str) and content.strip():
            found.append(Addition(section if isinstance(section, str) else "", content.strip()))
    return tuple(found)
