"""Simulated physical memory, as far as it holds page tables and private pages."""

from __future__ import annotations

import mmap
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from pfnmap.contract.slot import Table
from pfnmap.errors import Refused
from pfnmap.limits import TABLE_BYTES, bounded
from pfnmap.records import dataclass

if TYPE_CHECKING:  # for the type checker alone: numpy is imported where it is used
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Page", "PhysicalMemory"]

_start = attrgetter("start")


@dataclass(slots=True)
class Page:
    """struct page of a page that is mapped: how many entries map it, how many references and pins gup holds, whether
    it belongs to one process alone (PageAnonExclusive: fork clears it, a write or unshare fault sets it), whether it is
    anonymous (else the page cache holds a reference), whether MADV_FREE gave it up (no swap backing), and whether it is
    dirty itself, whatever its entries say (told of the page cache alone)."""

    mapcount: int = 1
    refs: int = 0
    pins: int = 0
    exclusive: bool = True
    anon: bool = True
    lazyfree: bool = False
    dirty: bool = False

    @property
    def can_reuse(self) -> bool:
        """wp_can_reuse_anon_folio: one entry maps it and nobody else holds it."""
        return self.mapcount == 1 and not self.refs and not self.pins


class _Section(NamedTuple):
    """A stretch of memory that is there: [start, end) in bytes, and its words."""

    start: int
    end: int
    words: Table


_SECTION = 1 << 18
"""Bytes of the first section; each later one is as large as all before it, up to the largest."""
_LARGEST_SECTION = 1 << 26
_LARGE = 1 << 22


def _zeroed(size: int) -> Table:
    """Return words of memory that is there once it is written; a large stretch in large pages."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= _LARGE and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory).cast("Q")


class PhysicalMemory:
    """RAM of the simulated machine, as far as it holds page tables and private pages (`ram`: address -> Page).

    Frames are handed out from `base` upwards; those that were freed are used again first, in their order. Words are
    logical values, and those of tables whose addresses follow each other lie in a row: `tables` (address -> words) are
    windows on them.
    """

    base = 0x10_0000

    def __init__(self, page_size: int, limit: int = 1 << 64, reserved: Iterable[tuple[int, int]] = ()) -> None:
        """`limit`: the first address (bytes) that no entry can hold; `reserved`: as for `reserve`, (address, size)."""
        self._page_size = page_size
        self._limit = limit
        self._next = self.base
        self._free: dict[int, deque[int]] = {}
        self._reserved = sorted((address, address + size) for address, size in reserved)
        self._sections: list[_Section] = []
        self._freed: dict[int, Table] = {}
        self.tables: dict[int, Table] = {}
        self._table_bytes = 0
        self.table_limit = TABLE_BYTES
        """Bytes of page tables that there may be."""
        self.ram: dict[int, Page] = {}
        self.zero_page = self.alloc_page()

    def alloc(self, size: int) -> int:
        """Return the physical address (bytes) of `size` free bytes, aligned to their size rounded up to a power of
        two. Raises Refused where what is reserved leaves no room that an entry can point to."""
        size = self._rounded(size)
        if free := self._free.get(size):
            return free.popleft()
        address = self._place(size)
        self._next = address + size
        return address

    def _place(self, size: int) -> int:
        """Return where `size` bytes come that were never used."""
        address = -(-self._next // size) * size
        for start, end in self._reserved:  # ascending
            if address < end and start < address + size:
                address = -(-end // size) * size
        if address + size > self._limit:
            raise Refused(
                "RAM", f"the BARs leave no room for it below {self._limit:#x}, the most that an entry can hold"
            )
        return address

    def _rounded(self, size: int) -> int:
        """Bytes that `size` bytes take: a power of two, a page at least."""
        return max(1 << (size - 1).bit_length(), self._page_size)

    def reserve(self, address: int, size: int) -> None:
        """Keep out of [address, address + size): a BAR is there. To be said before much is handed out."""
        self._reserved = sorted([*self._reserved, (address, address + size)])

    def holds_none_of(self, address: int, size: int) -> bool:
        """Tell whether it is certain that nothing of [address, address + size) was ever handed out: it is reserved, or
        lies beyond."""
        end = address + size
        return address >= self._next or any(start <= address and end <= stop for start, stop in self._reserved)

    def free(self, address: int, size: int) -> None:
        """Give `size` bytes back."""
        size = self._rounded(size)
        self._free.setdefault(size, deque()).append(address)

    def alloc_table(self, ptrs: int, empty: int) -> int:
        """Return the physical address of a new table of `ptrs` slots, all of them `empty`."""
        size = ptrs * 8
        self._table_bytes = bounded("RAM", self._table_bytes + size, self.table_limit, "bytes of page tables")
        address = self.alloc(size)
        self.tables[address] = table = self._window(address, size)
        table[:] = array("Q", (empty,)) * ptrs
        return address

    def alloc_tables(self, count: int, ptrs: int) -> list[int]:
        """Return the physical addresses of `count` new tables, those that `alloc_table` would return one by one. Who
        asks fills them."""
        size = ptrs * 8
        self._table_bytes = bounded("RAM", self._table_bytes + count * size, self.table_limit, "bytes of page tables")
        reused = min(count, len(self._free.get(self._rounded(size), ())))
        addresses = [self.alloc(size) for _ in range(reused)]
        self.tables.update((address, self._window(address, size)) for address in addresses)
        while len(addresses) < count:
            addresses += self._tables_in_a_row(count - len(addresses), ptrs)
        return addresses

    def _tables_in_a_row(self, count: int, ptrs: int) -> range:
        """Return the physical addresses of up to `count` new tables, at least one, in memory that was never used."""
        size = self._rounded(ptrs * 8)
        first = self._place(size)
        section = self._section(first, size)
        beyond = min((start for start, _ in self._reserved if start > first), default=self._limit)
        count = min(count, (min(section.end, beyond) - first) // size)
        self._next = first + count * size
        addresses = range(first, self._next, size)
        at = (first - section.start) // 8
        words = [section.words[n : n + ptrs] for n in range(at, at + count * size // 8, size // 8)]
        self.tables.update(zip(addresses, words, strict=True))
        return addresses

    def rows(self, addresses: Sequence[int], ptrs: int) -> Iterator[tuple[int, NDArray[np.uint64]]]:
        """Yield the words of tables of `ptrs` slots as numpy arrays of a row for each table, without copying: as many
        tables at once as follow each other in memory, with the index of the first of them in `addresses`."""
        import numpy as np

        stride = self._rounded(ptrs * 8)
        first = 0
        while first < len(addresses):
            section = self._sections[self._section_of(addresses[first])]
            last = first + 1
            while last < len(addresses) and addresses[last] == addresses[last - 1] + stride < section.end:
                last += 1
            at = (addresses[first] - section.start) // 8
            size = (last - first - 1) * stride // 8 + ptrs
            words: NDArray[np.uint64] = np.frombuffer(section.words, np.uint64, size, 8 * at)
            yield first, np.lib.stride_tricks.as_strided(words, (last - first, ptrs), (stride, 8))
            first = last

    def _section_of(self, address: int) -> int:
        return bisect_right(self._sections, address, key=_start) - 1

    def _window(self, address: int, size: int) -> Table:
        """Return the window of `size` bytes at an address that was handed out, the same one as long as its size is."""
        window = self._freed.pop(address, None)
        if window is not None and window.nbytes == size:
            return window
        section = self._section(address, size)
        first = (address - section.start) // 8
        return section.words[first : first + size // 8]

    def _section(self, address: int, size: int) -> _Section:
        """Return the section that holds all of [address, address + size), a new one where there is none."""
        at = self._section_of(address)
        if at < 0 or self._sections[at].end < address + size:
            at = self._add_section(address, size)
        return self._sections[at]

    def _add_section(self, address: int, size: int) -> int:
        there = sum(section.end - section.start for section in self._sections)
        size = max(size, min(max(there, _SECTION), _LARGEST_SECTION))
        at = self._section_of(address) + 1
        if at < len(self._sections):
            size = min(size, self._sections[at].start - address)
        self._sections.insert(at, _Section(address, address + size, _zeroed(size)))
        return at

    def alloc_page(self) -> int:
        """Return the physical address of a new page of RAM that one entry maps."""
        address = self.alloc(self._page_size)
        self.ram[address] = Page()
        return address

    def alloc_pages(self, count: int) -> int:
        """Return the physical address of `count` new pages in a row, a power of two of them and aligned to that; each
        is mapped by one entry."""
        address = self.alloc(self._page_size * count)
        self.ram.update((address + n * self._page_size, Page()) for n in range(count))
        return address

    def unmap_page(self, address: int) -> None:
        """An entry that maps a page of RAM goes; the page is freed when nothing holds it."""
        self.ram[address].mapcount -= 1
        self._free_page(address)

    def get_page(self, address: int, pin: bool) -> None:
        """Take a reference of gup on a page of RAM, or a pin."""
        page = self.ram[address]
        if pin:
            page.pins += 1
        else:
            page.refs += 1

    def put_page(self, address: int, pin: bool) -> None:
        """Give a reference of gup, or a pin, back."""
        page = self.ram[address]
        if pin:
            page.pins -= 1
        else:
            page.refs -= 1
        self._free_page(address)

    def _free_page(self, address: int) -> None:
        page = self.ram[address]
        if address != self.zero_page and not (page.mapcount or page.refs or page.pins):
            del self.ram[address]
            self.free(address, self._page_size)

    def free_table(self, address: int) -> None:
        """Give a table back."""
        self.free_tables([address])

    def free_tables(self, addresses: Sequence[int]) -> None:
        """Give tables of one size back."""
        for address in addresses:
            self._freed[address] = self.tables.pop(address)
        size = self._freed[addresses[0]].nbytes
        self._table_bytes -= size * len(addresses)
        self._free.setdefault(self._rounded(size), deque()).extend(addresses)
