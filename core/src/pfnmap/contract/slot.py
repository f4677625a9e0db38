"""A slot: the place of one entry in a page table."""

from __future__ import annotations

from array import array
from typing import NamedTuple

__all__ = ["Slot"]


class Slot(NamedTuple):
    """One entry's place: the `table`, an ``array('Q')`` of entries, and the `index` in it."""

    table: array[int]
    index: int  # type: ignore[assignment]  # nobody looks for an element of a slot (tuple.index)

    @property
    def entry(self) -> int:
        """What the slot holds."""
        return self.table[self.index]

    def set(self, entry: int) -> None:
        """Write an entry (set_pte, set_pmd, ...)."""
        self.table[self.index] = entry
