"""Simulated physical memory, as far as it holds page tables and private pages."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

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

    Frames are handed out from `base` upwards and reused after they were freed. Words are logical values.
    """

    base = 0x10_0000

    def __init__(self, page_size: int, limit: int = 1 << 64, reserved: Iterable[tuple[int, int]] = ()) -> None:
        """`limit`: the first address (bytes) that no entry can hold; `reserved`: as for `reserve`, (address, size)."""
        self._page_size = page_size
        self._limit = limit
        self._next = self.base
        self._free: dict[int, list[int]] = {}
        self._reserved = sorted((address, address + size) for address, size in reserved)
        self.tables: dict[int, array[int]] = {}
        self._table_bytes = 0
        self.table_limit = TABLE_BYTES
        """Bytes of page tables that there may be."""
        self.ram: dict[int, Page] = {}
        self.zero_page = self.alloc_page()

    def alloc(self, size: int) -> int:
        """Return the physical address (bytes) of `size` free bytes, aligned to their size rounded up to a power of
        two. Raises Refused where what is reserved leaves no room that an entry can point to."""
        size = max(1 << (size - 1).bit_length(), self._page_size)
        if free := self._free.get(size):
            return free.pop()
        address = -(-self._next // size) * size
        for start, end in self._reserved:  # ascending
            if address < end and start < address + size:
                address = -(-end // size) * size
        if address + size > self._limit:
            raise Refused(
                "RAM", f"the BARs leave no room for it below {self._limit:#x}, the most that an entry can hold"
            )
        self._next = address + size
        return address

    def reserve(self, address: int, size: int) -> None:
        """Keep out of [address, address + size): a BAR is there. To be said before much is handed out."""
        self._reserved = sorted([*self._reserved, (address, address + size)])

    def free(self, address: int, size: int) -> None:
        """Give `size` bytes back."""
        size = max(1 << (size - 1).bit_length(), self._page_size)
        self._free.setdefault(size, []).append(address)

    def alloc_table(self, template: array[int]) -> int:
        """Return the physical address of a new table with the entries of `template`."""
        size = len(template) * 8
        self._table_bytes = bounded("RAM", self._table_bytes + size, self.table_limit, "bytes of page tables")
        address = self.alloc(size)
        self.tables[address] = template[:]
        return address

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
        size = len(self.tables.pop(address)) * 8
        self._table_bytes -= size
        self.free(address, size)
