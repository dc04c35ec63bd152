"""Check the wording of prompts and blocks at configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lightning_sd.contexts.base import fill
from lightning_sd.contexts.reflection.prompts import BLOCKS


def check_prompt(prompt: str, fields: Sequence[str], *, required: Sequence[str]) -> None:
    """Refuse a prompt that cannot be filled or lacks a required field.

    Args:
        prompt: The wording.
        fields: Fields that it may have.
        required: Fields that it must have.

    Raises:
        ValueError: The prompt lacks a field, or names one that does not exist.
    """
    marks: Mapping[str, str] = {field: f"\0{field}\0" for field in fields}
    try:
        filled = fill(prompt, marks)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"prompt={prompt!r} cannot be filled ({error!r}): use the fields "
            f"{', '.join(f'{{{f}}}' for f in fields)} and write other braces twice, {{{{ and }}}}."
        ) from error
    for field in required:
        if marks[field] not in filled:
            raise ValueError(f"prompt={prompt!r} lacks {{{field}}}; add it.")


def check_blocks(blocks: Mapping[str, str]) -> None:
    """Refuse unknown blocks, and blocks that lack their field; an empty wording is allowed.

    Raises:
        ValueError: The message names the block.
    """
    check_block_names("blocks", blocks)
    for name, wording in blocks.items():
        if wording:
            check_prompt(wording, [name], required=[name])


def check_block_names(option: str, names: Iterable[str]) -> None:
    """Refuse names that are not a block.

    Args:
        option: Name of the option that holds them, for the error message.
        names: Names of blocks.

    Raises:
        ValueError: The message names the option and the unknown names.
    """
    unknown = sorted(set(names) - BLOCKS.keys())
    if unknown:
        raise ValueError(f"{option}: unknown blocks {unknown}; choose among {list(BLOCKS)}.")
