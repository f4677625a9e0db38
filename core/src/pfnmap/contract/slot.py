"""A slot: the place of one entry in a page table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

__all__ = ["Slot", "Table", "slot_of"]

Table: TypeAlias = "memoryview[int]"
"""The words of a table, each an entry: a window on simulated physical memory, which numpy takes without copying."""


class Slot(NamedTuple):
    """One entry's place: the `table`, and the `index` in it."""

    table: Table
    index: int  # type: ignore[assignment]  # nobody looks for an element of a slot (tuple.index)

    @property
    def entry(self) -> int:
        """What the slot holds."""
        return self.table[self.index]

    def set(self, entry: int) -> None:
        """Write an entry (set_pte, set_pmd, ...)."""
        self.table[self.index] = entry


slot_of: Callable[[tuple[Table, int]], Slot] = partial(tuple.__new__, Slot)
"""Return the slot of a table and an index, in a third of the time that `Slot` takes: a fault makes many."""
