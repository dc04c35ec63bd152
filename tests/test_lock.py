"""The files in requirements/ agree with pyproject.toml."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements" / "ci.txt").read_text(encoding="utf-8")
ENTRY = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)
NOT_LOCKED = {"torch", "lightning-sd"}


def list_requirements(*names: str) -> list[Requirement]:
    """The dependencies and those of the named extras, with the package's own extras resolved."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    found = [Requirement(text) for text in project["dependencies"]]
    waiting = list(names)
    while waiting:
        for text in extras[waiting.pop()]:
            requirement = Requirement(text)
            if canonicalize_name(requirement.name) == "lightning-sd":
                waiting += requirement.extras
            else:
                found.append(requirement)
    return found


def test_the_lock_file_satisfies_the_extra_dev() -> None:
    locked = {canonicalize_name(name): version for name, version in ENTRY.findall(LOCK)}
    requirements = list_requirements("dev")
    assert len(requirements) > 20
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        if name in NOT_LOCKED or (requirement.marker and not requirement.marker.evaluate()):
            continue
        assert name in locked, f"{requirement}: run make lock"
        assert locked[name] in requirement.specifier, f"{requirement}: {locked[name]} is locked"


def test_every_locked_package_has_a_hash_and_no_address() -> None:
    entries = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) > 100
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in LOCK


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    lines = (ROOT / "requirements" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    oldest = {pin.name: Version(str(pin.specifier).removeprefix("==")) for pin in pins}
    bounds = {
        requirement.name: Version(part.version)
        for requirement in list_requirements("lora", "math", "gguf")
        for part in requirement.specifier
        if part.operator == ">="
    }
    assert oldest == bounds
