"""Work of one rank in which every rank takes part, because it gathers a sharded student.

Ranks do different amounts of such work: a context writes texts on some of them, and validation may
have one batch more on some. So ranks tell each other what they are about to do, and a rank with
nothing of its own helps the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


class SharedWork:
    """Lets the ranks of a sharded student do the same kinds of work in the same order.

    Args:
        helpers: What a rank does while others do work of a kind that it has none of, by the name of
            the kind. It must take part in their collectives.
        sharded: False: every rank has the whole student, and works alone.
    """

    def __init__(self, helpers: dict[str, Callable[[], object]], *, sharded: bool) -> None:
        self.helpers, self.sharded = helpers, sharded

    def run(self, kind: str, work: Callable[[], T]) -> T:
        """Do work of a kind, and help with what other ranks do meanwhile.

        Args:
            kind: A name among the helpers.
            work: The work; its collectives depend on the kind only.
        """
        for other in self._list_kinds(kind):
            if other == kind:
                result = work()
            else:
                self.helpers[other]()
        return result

    def help_others(self) -> None:
        """Help other ranks until each of them is here as well."""
        while kinds := self._list_kinds(None):
            for kind in kinds:
                self.helpers[kind]()

    def _list_kinds(self, own: str | None) -> list[str]:
        """Return the kinds of work that ranks begin now, in one order."""
        kinds = [own]
        if self.sharded:
            kinds = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(kinds, own)
        return sorted({kind for kind in kinds if kind is not None})
