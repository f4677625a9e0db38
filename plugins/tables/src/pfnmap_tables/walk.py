"""A walk of real page tables: whole tables at a time, by the geometry of the linked kernel, decoded by its ops.

drgn's own helpers give neither level nor entry. A table is read once; what cannot be read, and a table that is met for
the second time, is a gap that is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy
from drgn import Program

from pfnmap.contract.geometry import Fields
from pfnmap.errors import Refused
from pfnmap_tables.memory import DAMAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pfnmap.contract.entry import Level
    from pfnmap.kernel import Kernel

__all__ = ["Run", "Walk", "walk"]


@dataclass(frozen=True, slots=True)
class Run:
    """Leaves of one level one after another whose addresses follow each other, and that differ in nothing else:
    `entry` and `phys` (the physical address, bytes) are the first's; `length` is that of all."""

    va: int
    length: int
    level: Level
    count: int
    entry: int
    phys: int


class Walk(NamedTuple):
    """What was found: the leaves in ascending order, bytes of the tables below the top one, tables that could not be
    read or were met again."""

    runs: tuple[Run, ...]
    table_bytes: int
    unreadable: int


def walk(program: Program, kernel: Kernel, pgd: int, start: int, end: int) -> Walk:
    """Walk the tables from the top one at physical address `pgd` over [start, end).

    Raises Refused for an architecture that does not say what its words look like.
    """
    walker = _Walker(program, kernel)
    runs = tuple(_joined(walker.below(pgd, 0, start, end)))
    return Walk(runs, walker.bytes, walker.unreadable)


def _joined(runs: Iterator[Run]) -> Iterator[Run]:
    """Join runs that go on in the next table."""
    held: Run | None = None
    for run in runs:
        if held is not None and (
            (held.va + held.length, held.phys + held.length, held.level, held.entry ^ held.phys)
            == (run.va, run.phys, run.level, run.entry ^ run.phys)
        ):
            held = replace(held, length=held.length + run.length, count=held.count + run.count)
            continue
        if held is not None:
            yield held
        held = run
    if held is not None:
        yield held


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

    def below(self, table: int, depth: int, start: int, end: int) -> Iterator[Run]:
        """Yield the leaves of a table and of those below it; runs end with their table."""
        level, how = self.levels[depth], self.formats[depth]
        assert how is not None
        size, span = 1 << level.shift, level.ptrs << level.shift
        base = start // span * span
        first, last = (start - base) >> level.shift, min((end - 1 - base) >> level.shift, level.ptrs - 1)
        words = self._words(table, first, last - first + 1, depth)
        empty = self.kernel.arch.empty(level.name)
        for at, count in _alike(words, size, empty):
            word, va = int(words[at]), base + (first + at) * size
            if word == empty:
                continue
            if how.table is not None and word & how.table[0] == how.table[1] and depth + 1 < len(self.levels):
                for n in range(count):  # tables that lie one behind the other
                    here = int(words[at + n])
                    next_table = _gathered(how.next_table if how.next_table is not None else how.address, here)
                    low = va + n * size
                    yield from self.below(next_table, depth + 1, max(start, low), min(end, low + size))
            else:
                phys = _gathered(how.address, word) // size * size
                yield Run(va, count * size, level.name, count, word, phys)

    def _words(self, table: int, first: int, count: int, depth: int) -> NDArray[numpy.uint64]:
        if table in self.seen:
            self.unreadable += 1
            return numpy.empty(0, numpy.uint64)
        self.seen.add(table)
        if depth:
            self.bytes += self.levels[depth].ptrs * 8
        try:
            raw = self.program.read(table + 8 * first, 8 * count, physical=True)
        except DAMAGE:
            self.unreadable += 1
            return numpy.empty(0, numpy.uint64)
        return numpy.frombuffer(raw, "<u8")


def _alike(words: NDArray[numpy.uint64], size: int, empty: int) -> Iterator[tuple[int, int]]:
    """Yield where runs of words begin, and how many there are: empty ones, or each by `size` above the one before."""
    nothing = words == empty
    goes_on = numpy.where(nothing[:-1], nothing[1:], numpy.diff(words) == size)
    cuts = [0, *(numpy.flatnonzero(~goes_on) + 1).tolist(), len(words)]
    yield from ((low, high - low) for low, high in pairwise(cuts) if high > low)


def _gathered(fields: Fields, word: int) -> int:
    address = 0
    for mask, shift in fields:
        address |= (word & mask) << shift if shift >= 0 else (word & mask) >> -shift
    return address
