"""The package's heart: the files that are mutated, by room."""

from __future__ import annotations

from pathlib import Path

from benchmarks.grid import ROOT

ROOMS: dict[str, tuple[str, ...]] = {
    "functional": ("functional",),
    "models": ("models",),
    "rollout": ("rollout",),
    "scoring": ("scoring",),
    "teachers": ("teachers",),
    "objectives": ("objectives",),
    "contexts": (
        "contexts/base.py",
        "contexts/host.py",
        "contexts/hosted.py",
        "contexts/templates.py",
    ),
    "critique": ("critique/check.py", "critique/cache/keys.py"),
    "modules": ("modules",),
}
"""Files and folders below ``lightning_sd/``. Of the contexts and critics only what all share."""


def list_files() -> list[Path]:
    """List the files of all rooms."""
    return [path for room in ROOMS for path in list_room(room)]


def list_room(room: str) -> list[Path]:
    """List the files of a room."""
    package = ROOT / "lightning_sd"
    paths = [package / place for place in ROOMS[room]]
    files = [path for p in paths for path in ([p] if p.suffix else sorted(p.rglob("*.py")))]
    return [path for path in files if path.name != "__init__.py"]


def find_room(file: str) -> str:
    """Return the room of a file, given its path below the repository."""
    return Path(file).parts[1]
