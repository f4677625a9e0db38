"""The words of page tables in simulated physical memory.

Tables are told of in runs: `range` objects of the physical addresses (bytes) of tables of one size that follow each
other. The words of a run lie in a row, so that numpy works on all of its tables at once without copying; a window on
one table is made when it is first asked for.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pfnmap.contract.slot import Table

if TYPE_CHECKING:  # for the type checker alone: numpy is imported where it is used
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Tables"]


class _Section(NamedTuple):
    """A stretch of memory that is there: [start, end) in bytes, its words, and for each frame the binary logarithm of
    the slots of the table that begins there, or 0."""

    start: int
    end: int
    words: Table
    kinds: bytearray


_SECTION = 1 << 18
"""Bytes of the first section."""
_GROWTH = 15
"""By how much each later section is larger than all before it, up to the largest."""
_LARGEST_SECTION = 1 << 28
_LARGE = 1 << 21
_AT_ONCE = 1 << 19
"""Bytes of tables that are worked on at once, so that they stay in a CPU's cache from one operation to the next."""


def _zeroed(size: int) -> Table:
    """Return words of memory that is there once it is written; a large stretch in large pages."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= _LARGE and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory).cast("Q")


class Tables(Mapping[int, Table]):
    """Physical address (bytes) of each page table that there is -> a window on its words, always the same one."""

    def __init__(self, frame: int) -> None:
        """`frame`: bytes that the address of every table is a multiple of."""
        self._frame = frame
        self._sections: list[_Section] = []
        self._starts: list[int] = []
        self._windows: dict[int, Table] = {}

    def __getitem__(self, address: int) -> Table:
        window = self._windows.get(address)
        if window is None:
            kind = self._kind(address)
            if not kind:
                raise KeyError(address)
            section = self._sections[self._section_of(address)]
            first = (address - section.start) // 8
            window = self._windows[address] = section.words[first : first + (1 << kind)]
        return window

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and self._kind(address) != 0

    def _kind(self, address: int) -> int:
        """Return the binary logarithm of the slots of the table at an address, 0 where no table is."""
        at = self._section_of(address)
        if at < 0 or address >= self._sections[at].end or address % self._frame:
            return 0
        section = self._sections[at]
        return section.kinds[(address - section.start) // self._frame]

    def __iter__(self) -> Iterator[int]:
        for section in self._sections:
            yield from (section.start + n * self._frame for n, kind in enumerate(section.kinds) if kind)

    def __len__(self) -> int:
        return sum(len(section.kinds) - section.kinds.count(0) for section in self._sections)

    def add(self, run: range, ptrs: int) -> None:
        """New tables of `ptrs` slots are there, whose words are what they are."""
        for piece in self._in_sections(run):
            self._mark(piece, ptrs.bit_length() - 1)

    def add_one(self, address: int, size: int, ptrs: int) -> Table:
        """A new table of `ptrs` slots is there, in `size` bytes, whose words are what they are; return its window."""
        at = self._section_of(address)
        if at < 0 or self._sections[at].end < address + size:
            at = self._add_section(address, size)
        section = self._sections[at]
        section.kinds[(address - section.start) // self._frame] = ptrs.bit_length() - 1
        first = (address - section.start) // 8
        window = self._windows[address] = section.words[first : first + ptrs]
        return window

    def remove(self, run: range) -> None:
        """These tables are tables no longer."""
        for piece in self._in_sections(run):
            self._mark(piece, 0)
            few = len(piece) < len(self._windows)
            for address in piece if few else [one for one in self._windows if one in piece]:
                self._windows.pop(address, None)

    def rows(self, runs: Iterable[range], ptrs: int) -> Iterator[NDArray[np.uint64]]:
        """Yield the words of tables of `ptrs` slots, an array of a row for each table."""
        for run in runs:
            for piece in self._at_once(run):
                yield self._rows(piece, ptrs)

    def rows_of(self, runs: Sequence[Iterable[range]], ptrs: int) -> Iterator[tuple[NDArray[np.uint64], ...]]:
        """Yield the words of as many tables of each of several, as `rows` does, up to the end of the shortest."""
        left = [[piece for run in one for piece in self._at_once(run)][::-1] for one in runs]
        while all(left):
            pieces = [one.pop() for one in left]
            count = min(map(len, pieces))
            yield tuple(self._rows(piece[:count], ptrs) for piece in pieces)
            for one, piece in zip(left, pieces, strict=True):
                one += [piece[count:]] if piece[count:] else []

    def read(
        self, addresses: NDArray[np.uint64], which: NDArray[np.intp], index: NDArray[np.intp]
    ) -> NDArray[np.uint64]:
        """Return the words at `index` of the tables at `addresses[which]`, as many as there are of either."""
        import numpy as np

        starts = np.array(self._starts, np.uint64)
        section = np.searchsorted(starts, addresses, "right") - 1
        first = ((addresses - starts[section]) // 8).astype(np.intp)
        at = first[which]
        at += index
        used = np.unique(section).tolist()
        if len(used) == 1:
            return np.frombuffer(self._sections[used[0]].words, np.uint64).take(at, mode="clip")
        found = np.empty(len(at), np.uint64)
        of = section.astype(np.uint8)[which]
        for n in used:
            here = np.flatnonzero(of == n)
            found[here] = np.frombuffer(self._sections[n].words, np.uint64).take(at[here], mode="clip")
        return found

    def _rows(self, piece: range, ptrs: int) -> NDArray[np.uint64]:
        import numpy as np

        section = self._sections[self._section_of(piece.start)]
        words = np.frombuffer(
            section.words, np.uint64, (piece[-1] - piece.start) // 8 + ptrs, piece.start - section.start
        )
        if piece.step == ptrs * 8:
            return words.reshape(-1, ptrs)
        return np.lib.stride_tricks.as_strided(words, (len(piece), ptrs), (piece.step, 8))

    def _mark(self, piece: range, kind: int) -> None:
        section = self._sections[self._section_of(piece.start)]
        first, step = (piece.start - section.start) // self._frame, piece.step // self._frame
        section.kinds[first : first + (len(piece) - 1) * step + 1 : step] = bytes((kind,)) * len(piece)

    def _at_once(self, run: range) -> Iterator[range]:
        count = max(_AT_ONCE // run.step, 1)
        for piece in self._in_sections(run):
            yield from (piece[n : n + count] for n in range(0, len(piece), count))

    def _in_sections(self, run: range) -> Iterator[range]:
        """Yield the parts of a run that are each in one section; new sections are made where there are none."""
        while run:
            at = self._section_of(run.start)
            if at < 0 or self._sections[at].end < run.start + run.step:
                at = self._add_section(run.start, run.step)
            count = (self._sections[at].end - run.start) // run.step
            yield run[:count]
            run = run[count:]

    def _section_of(self, address: int) -> int:
        return bisect_right(self._starts, address) - 1

    def _add_section(self, address: int, size: int) -> int:
        there = sum(section.end - section.start for section in self._sections)
        size = max(size, min(max(there * _GROWTH, _SECTION), _LARGEST_SECTION))
        at = self._section_of(address) + 1
        if at < len(self._sections):
            size = min(size, self._sections[at].start - address)
        self._starts.insert(at, address)
        self._sections.insert(at, _Section(address, address + size, _zeroed(size), bytearray(size // self._frame)))
        return at
