"""Refuse configs that expand without bound or that hold values that cannot be read."""

from __future__ import annotations

from typing import Any

import yaml  # type: ignore[import-untyped]
from jsonargparse import get_loader, set_loader
from lightning.pytorch.cli import LightningArgumentParser

from lightning_sd.cli.errors import OneLineErrors

MAX_CONFIG_VALUES = 100_000
"""Largest number of values in one config after its aliases are expanded."""


class OneLineParser(OneLineErrors, LightningArgumentParser):
    """The parser of Lightning's command line, with errors in one line."""


def install_yaml_guard() -> None:
    """Make the command line refuse YAML that cannot be read, or that expands to too many values.

    A file of a few hundred bytes can expand to 10**9 values through nested aliases, which fills the
    memory. The guard counts before anything is expanded.
    """
    load: Any = get_loader("yaml")
    if getattr(load, "is_guarded", False):
        return

    def load_guarded(text: str) -> Any:
        try:
            if "*" in text:  # the sign of an alias
                check_aliases(text)
            return load(text)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            # Errors of PyYAML's constructors, such as for an integer of 5,000 digits.
            raise yaml.YAMLError(
                f"a YAML value cannot be read ({error}); check tags (`!!`) and long numbers."
            ) from error

    load_guarded.is_guarded = True  # type: ignore[attr-defined]
    set_loader("yaml", load_guarded, exceptions=(yaml.YAMLError,))


def check_aliases(text: str) -> None:
    """Refuse YAML that expands to more than ``MAX_CONFIG_VALUES`` values, or without end.

    Raises:
        yaml.YAMLError: It does, or it is not valid YAML.
    """
    node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if node is not None and _count_values(node, {}) > MAX_CONFIG_VALUES:
        raise yaml.YAMLError(
            f"config: its YAML aliases expand to more than {MAX_CONFIG_VALUES} values. Write the "
            "values out, or use fewer aliases."
        )


def _count_values(node: yaml.Node, counts: dict[int, int]) -> int:
    """Count the values below a node, each node once; a node that contains itself is too large."""
    if id(node) not in counts:
        counts[id(node)] = MAX_CONFIG_VALUES + 1  # the answer for an alias to an open node
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        counts[id(node)] = 1 + sum(_count_values(child, counts) for child in children)
    return counts[id(node)]
