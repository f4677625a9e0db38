"""A walk of real page tables: whole tables at a time, by the geometry of the linked kernel, decoded by its ops.

drgn's own helpers give neither level nor entry. A table is read once; what cannot be read is a gap that is said.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from drgn import FaultError, Program

from pfnmap.contract.geometry import Fields
from pfnmap.errors import Refused

if TYPE_CHECKING:
    from pfnmap.contract.entry import Level
    from pfnmap.kernel import Kernel

__all__ = ["Leaf", "Walk", "walk"]


class Leaf(NamedTuple):
    """An entry that maps something: its address, level, value, and the physical address (bytes)."""

    va: int
    size: int
    level: Level
    entry: int
    phys: int


class Walk(NamedTuple):
    """What was found: the leaves in ascending order, bytes of the tables below the top one, tables that could not be
    read."""

    leaves: tuple[Leaf, ...]
    table_bytes: int
    unreadable: int


def walk(program: Program, kernel: Kernel, pgd: int, start: int, end: int) -> Walk:
    """Walk the tables from the top one at physical address `pgd` over [start, end).

    Raises Refused for an architecture that does not say what its words look like.
    """
    walker = _Walker(program, kernel)
    leaves = tuple(walker.below(pgd, 0, start, end))
    return Walk(leaves, walker.bytes, walker.unreadable)


class _Walker:
    def __init__(self, program: Program, kernel: Kernel) -> None:
        self.program = program
        self.kernel = kernel
        self.levels = kernel.geometry.walk
        self.formats = [kernel.arch.word_format(one.name) for one in self.levels]
        if None in self.formats:
            raise Refused("tables", f"{kernel.arch.name} does not say what its words look like")
        self.bytes = 0
        self.unreadable = 0
        self.seen: set[int] = set()

    def below(self, table: int, depth: int, start: int, end: int) -> Iterator[Leaf]:
        """Yield the leaves of a table and of those below it."""
        level, how = self.levels[depth], self.formats[depth]
        assert how is not None
        size, span = 1 << level.shift, level.ptrs << level.shift
        base = start // span * span
        first, last = (start - base) >> level.shift, (end - 1 - base) >> level.shift
        words = self._words(table, first, min(last, level.ptrs - 1), depth)
        empty = self.kernel.arch.empty(level.name)
        for index, word in words:
            if word == empty:
                continue
            va = base + index * size
            if how.table is not None and word & how.table[0] == how.table[1] and depth + 1 < len(self.levels):
                next_table = _gathered(how.next_table if how.next_table is not None else how.address, word)
                yield from self.below(next_table, depth + 1, max(start, va), min(end, va + size))
            else:
                yield Leaf(va, size, level.name, word, _gathered(how.address, word) // size * size)

    def _words(self, table: int, first: int, last: int, depth: int) -> list[tuple[int, int]]:
        if depth and table not in self.seen:
            self.seen.add(table)
            self.bytes += self.levels[depth].ptrs * 8
        try:
            raw = self.program.read(table + 8 * first, 8 * (last - first + 1), physical=True)
        except (FaultError, ValueError, OverflowError):
            self.unreadable += 1
            return []
        return list(enumerate(struct.unpack(f"<{last - first + 1}Q", raw), first))


def _gathered(fields: Fields, word: int) -> int:
    address = 0
    for mask, shift in fields:
        address |= (word & mask) << shift if shift >= 0 else (word & mask) >> -shift
    return address
