"""Whether the wording of prompts and blocks can work, asked before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lightning_sd.contexts.base import fill
from lightning_sd.contexts.reflection.prompts import BLOCKS


def check_wording(prompt: str, fields: Sequence[str], *, required: Sequence[str]) -> None:
    """Refuse a prompt that cannot work.

    Args:
        prompt: Its wording.
        fields: Which it may hold.
        required: Which it must hold.

    Raises:
        ValueError: It lacks a field, or names one that does not exist.
    """
    marks: Mapping[str, str] = {field: f"\0{field}\0" for field in fields}
    try:
        filled = fill(prompt, marks)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"prompt: it may hold the fields {', '.join(f'{{{f}}}' for f in fields)}; other braces "
            f"are written twice. Problem: {error!r}."
        ) from error
    for field in required:
        if marks[field] not in filled:
            raise ValueError(f"prompt: it lacks {{{field}}}, without which it cannot work.")


def checked_blocks(blocks: dict[str, str]) -> dict[str, str]:
    """Refuse blocks that do not exist or lack their field; an empty wording hides a block.

    Raises:
        ValueError: Which one.
    """
    check_blocks_exist("blocks", blocks)
    for name, wording in blocks.items():
        if wording:
            check_wording(wording, [name], required=[name])
    return blocks


def check_blocks_exist(option: str, names: Iterable[str]) -> None:
    """Refuse names of no block.

    Raises:
        ValueError: The option that holds them, and which they are.
    """
    unknown = sorted(set(names) - BLOCKS.keys())
    if unknown:
        raise ValueError(f"{option}: {unknown} are no blocks; choose among {list(BLOCKS)}.")
