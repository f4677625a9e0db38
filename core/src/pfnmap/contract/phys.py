"""Simulated physical memory, as far as it holds page tables and private pages."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable

from pfnmap.contract.tables import Tables
from pfnmap.errors import Refused
from pfnmap.limits import TABLE_BYTES, bounded
from pfnmap.records import dataclass

__all__ = ["Page", "PhysicalMemory"]


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


class PhysicalMemory:
    """RAM of the simulated machine, as far as it holds page tables and private pages (`ram`: address -> Page).

    Frames are handed out from `base` upwards; those that were freed are used again first, in their order. Words are
    logical values.
    """

    base = 0x10_0000

    def __init__(self, page_size: int, limit: int = 1 << 64, reserved: Iterable[tuple[int, int]] = ()) -> None:
        """`limit`: the first address (bytes) that no entry can hold; `reserved`: as for `reserve`, (address, size)."""
        self._page_size = page_size
        self._limit = limit
        self._next = self.base
        self._free: dict[int, deque[range]] = {}
        self._reserved = sorted((address, address + size) for address, size in reserved)
        self.tables = Tables(page_size)
        self._table_bytes = 0
        self.table_limit = TABLE_BYTES
        """Bytes of page tables that there may be."""
        self.ram: dict[int, Page] = {}
        self.zero_page = self.alloc_page()

    def alloc(self, size: int) -> int:
        """Return the physical address (bytes) of `size` free bytes, aligned to their size rounded up to a power of
        two. Raises Refused where what is reserved leaves no room that an entry can point to."""
        size = self.rounded(size)
        if free := self._free.get(size):
            return self._freed(free, 1).start
        address = self._place(size)
        self._next = address + size
        return address

    @staticmethod
    def _freed(free: deque[range], count: int) -> range:
        """Take at most `count` that follow each other from the front of what is free."""
        run = free.popleft()
        if len(run) > count:
            free.appendleft(run[count:])
        return run[:count]

    def _place(self, size: int) -> int:
        """Return where `size` bytes come that were never used."""
        address = -(-self._next // size) * size
        for start, end in self._reserved:  # ascending
            if address + size <= start:
                break
            if address < end:
                address = -(-end // size) * size
        if address + size > self._limit:
            raise Refused(
                "RAM", f"the BARs leave no room for it below {self._limit:#x}, the most that an entry can hold"
            )
        return address

    def rounded(self, size: int) -> int:
        """Return the bytes that `size` bytes take: a power of two, a page at least."""
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
        size = self.rounded(size)
        self._free.setdefault(size, deque()).append(range(address, address + size, size))

    def alloc_table(self, ptrs: int, empty: int) -> int:
        """Return the physical address of a new table of `ptrs` slots, all of them `empty`."""
        self._table_bytes = bounded("RAM", self._table_bytes + ptrs * 8, self.table_limit, "bytes of page tables")
        size = self.rounded(ptrs * 8)
        address = self.alloc(size)
        self.tables.add_one(address, size, ptrs)[:] = array("Q", (empty,)) * ptrs
        return address

    def alloc_tables(self, count: int, ptrs: int) -> list[range]:
        """Return runs of the physical addresses of `count` new tables, those that `alloc_table` would return one by
        one. Who asks fills them."""
        self._table_bytes = bounded(
            "RAM", self._table_bytes + count * ptrs * 8, self.table_limit, "bytes of page tables"
        )
        size = self.rounded(ptrs * 8)
        runs = []
        while count:
            free = self._free.get(size)
            run = self._freed(free, count) if free else self._never_used(count, size)
            self.tables.add(run, ptrs)
            runs.append(run)
            count -= len(run)
        return runs

    def _never_used(self, count: int, size: int) -> range:
        """Return addresses of at least one and at most `count` times `size` bytes that were never used."""
        first = self._place(size)
        beyond = min((start for start, _ in self._reserved if start > first), default=self._limit)
        self._next = first + min(count, (beyond - first) // size) * size
        return range(first, self._next, size)

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
        size = self.rounded(self.tables[address].nbytes)
        self.free_tables([range(address, address + size, size)])

    def free_tables(self, runs: list[range]) -> None:
        """Give runs of tables of one size back."""
        self._table_bytes -= self.tables[runs[0].start].nbytes * sum(map(len, runs))
        for run in runs:
            self.tables.remove(run)
        self._free.setdefault(runs[0].step, deque()).extend(runs)
