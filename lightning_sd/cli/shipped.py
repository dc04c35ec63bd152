"""Find, list and copy the configs that come with the package."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import lightning_sd
from lightning_sd.cli.errors import suggest

_PACKAGE = Path(lightning_sd.__file__).parent
_CONFIG_OPTIONS = ("--config", "-c")


def find_configs() -> dict[str, Path]:
    """Return the shipped configs by name: in the wheel, or beside the package in a clone."""
    folders = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def resolve_config(name: str) -> str:
    """Return the path of a config.

    Args:
        name: An existing file, which wins, or the name of a shipped config. A text with a colon
            (YAML, a URL) is returned as it is.

    Raises:
        FileNotFoundError: There is neither a file nor a shipped config of this name.
    """
    if ":" in name or Path(name).is_file():
        return name
    configs = find_configs()
    if name in configs:
        return str(configs[name])
    hint = suggest(Path(name).stem, configs)
    raise FileNotFoundError(
        f"config={name}: neither a file nor a shipped config{hint} Shipped: {', '.join(configs)}."
    )


def resolve_words(words: Sequence[str]) -> list[str]:
    """Replace the names of shipped configs in a command line by their paths.

    Example:
        >>> resolve_words(["fit", "--config=quickstart"])[1].endswith("configs/quickstart.yaml")
        True
    """
    resolved = list(words)
    for index, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in _CONFIG_OPTIONS and equals:
            resolved[index] = f"{option}={resolve_config(value)}"
        elif index and words[index - 1] in _CONFIG_OPTIONS:
            resolved[index] = resolve_config(word)
    return resolved


def list_configs() -> None:
    """List the shipped configs with one line each."""
    texts = {name: path.read_text(encoding="utf-8") for name, path in find_configs().items()}
    whole = {name for name, text in texts.items() if {"trainer", "teacher_context"} <= _keys(text)}
    part = set(texts) - whole
    for title, names in (
        ("Full configs, for --config NAME:", whole),
        ("Methods and devices, behind a full config (--config quickstart --config NAME):", part),
    ):
        print(title)
        for name in sorted(names):
            print(f"  {name:<22}{texts[name].splitlines()[0].removeprefix('# ')}")


def _keys(text: str) -> set[str]:
    """Return the keys at the top of a YAML text."""
    return set(re.findall(r"^(\w+):", text, re.MULTILINE))


def copy_config(name: str) -> None:
    """Write a commented copy of a shipped config into the current folder.

    Args:
        name: Name of the config; ``lightning-sd configs`` lists them.

    Raises:
        FileNotFoundError: There is no such config.
        FileExistsError: The current folder has a file of that name.
    """
    configs = find_configs()
    if name not in configs:
        raise FileNotFoundError(
            f"{name}: no shipped config{suggest(name, configs)} Choose from {', '.join(configs)}."
        )
    target = Path(f"{name}.yaml")
    if target.exists():
        raise FileExistsError(f"{target}: the file exists; move it away first.")
    text = configs[name].read_text(encoding="utf-8")
    target.write_text(text.replace(f"--config {name}\n", f"--config {target}\n", 1))
    print(f"Wrote {target}; its first lines say how to run it.")


def main(words: Sequence[str]) -> None:
    """Run ``configs`` or ``init``.

    Args:
        words: The command and its options.
    """
    from jsonargparse import auto_cli

    auto_cli({"configs": list_configs, "init": copy_config}, args=list(words), prog="lightning-sd")
