"""The methods by name. Their definitions are the shipped configs; there is no other."""

from __future__ import annotations

from typing import Any

import yaml  # type: ignore[import-untyped]

from lightning_sd.cli.errors import suggest
from lightning_sd.cli.shipped import find_configs

_IN_FULL_CONFIG = {
    "step_aligned": "quickstart",
    "resd": "resd",
    "rcsd": "rcsd",
    "echodistill": "echodistill",
}
"""Methods that are defined in a full config, and its name."""
_PARTS = ("teacher", "objective", "samples")
"""Arguments of the module that belong to a method; the others belong to the model and its task."""


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes texts of several lines in double quotes, as the configs do."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style='"' if "\n" in text else None
    ),
)


def list_methods() -> list[str]:
    """List the names of the methods: those of the shipped configs."""
    return sorted(_find_definitions())


def describe_method(name: str) -> str:
    """Return the composition of a method as YAML, which ``--config`` reads as well.

    Args:
        name: Name of the method, such as ``opsd``.

    Raises:
        ValueError: There is no such method.

    Example:
        >>> print(describe_method("reference"))
        teacher_context:
          class_path: ReferenceSolution
    """
    composition: str = yaml.dump(read_method(name), Dumper=_Dumper, sort_keys=False, width=100)
    return composition.rstrip()


def read_method(name: str) -> dict[str, Any]:
    """Read the composition of a method from its shipped config; see :func:`describe_method`."""
    definitions = _find_definitions()
    if name not in definitions:
        raise ValueError(
            f"method={name!r}: there is no such method{suggest(name, definitions)} "
            f"Choose from {', '.join(sorted(definitions))}."
        )
    config = definitions[name]
    module = config.get("model", {"init_args": {}})
    parts = {key: module["init_args"][key] for key in _PARTS if key in module["init_args"]}
    composition = {"teacher_context": config["teacher_context"]}
    return {**composition, "model": {**module, "init_args": parts}} if parts else composition


def build_method(name: str) -> tuple[Any, dict[str, Any]]:
    """Build the parts of a method.

    Args:
        name: Name of the method.

    Returns:
        The teacher context, and the arguments of ``SelfDistillModule`` that belong to the method.

    Raises:
        ValueError: There is no such method.
    """
    from jsonargparse import ArgumentParser

    from lightning_sd.cli.main import load_public_classes
    from lightning_sd.contexts import TeacherContext
    from lightning_sd.objectives import Objective
    from lightning_sd.teachers import TeacherWeights

    composition = read_method(name)
    load_public_classes()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--teacher_context", type=TeacherContext)
    parser.add_argument("--teacher", type=TeacherWeights)
    parser.add_argument("--objective", type=Objective)
    parser.add_argument("--samples", type=int)
    arguments = composition.get("model", {"init_args": {}})["init_args"]
    context = {"teacher_context": composition["teacher_context"]}
    built = parser.instantiate_classes(parser.parse_object({**context, **arguments}))
    return built.teacher_context, {key: built[key] for key in arguments}


def _find_definitions() -> dict[str, Any]:
    """Return the configs that define a method, by its name."""
    configs = {name: yaml.safe_load(path.read_text()) for name, path in find_configs().items()}
    full = {method: configs[name] for method, name in _IN_FULL_CONFIG.items()}
    return {name: c for name, c in configs.items() if "trainer" not in c} | full
