"""Places between the parts that a test must notice when they break."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """One text of a file, and what breaks it."""

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


GLUE: tuple[Place, ...] = ()
