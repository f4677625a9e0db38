"""Page tables in simulated physical memory.

The mm walks the kernel's five levels; a folded level returns its parent's slot (DESIGN rule 5). A *slot* is the pair
(table, index): the table is an ``array('Q')`` of entries that lives at a physical address in `PhysicalMemory`, and bulk
work may take its memory as a numpy array without copying. Sources: include/linux/pgtable.h, mm/memory.c
(free_pgd_range and below), mm/pgtable-generic.c.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from pfnmap.arch import Level
from pfnmap.errors import Refused
from pfnmap.limits import TABLE_BYTES, bounded
from pfnmap.trace import Bug

if TYPE_CHECKING:
    from pfnmap.arch import WalkLevel
    from pfnmap.kernel import Kernel
    from pfnmap.mm.vma import MmStruct

__all__ = ["Page", "PageTables", "PhysicalMemory", "Slot", "free_pgtables"]

Slot: TypeAlias = "tuple[array[int], int]"

_PARENT: dict[Level, Level] = {"p4d": "pgd", "pud": "p4d", "pmd": "pud", "pte": "pmd"}


class Step(NamedTuple):
    """The ops on the slots of a walked level above pte: those of `op`, the lowest level folded into it."""

    op: Level
    none: Callable[[int], int]
    bad: Callable[[int], int]
    leaf: Callable[[int], int]
    pgtable: Callable[[int], int]


_COUNTED = ("pud", "pmd", "pte")
"""What VmPTE counts (mm_inc_nr_puds, _pmds, _ptes); p4d and pgd tables are not."""


@dataclass(slots=True)
class Page:
    """struct page of a private page: how many entries map it, how many references and pins gup holds, and whether it
    belongs to one process alone (PageAnonExclusive: fork clears it, a write or unshare fault sets it)."""

    mapcount: int = 1
    refs: int = 0
    pins: int = 0
    exclusive: bool = True

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
        self._table_bytes = bounded("RAM", self._table_bytes + size, TABLE_BYTES, "bytes of page tables")
        address = self.alloc(size)
        self.tables[address] = template[:]
        return address

    def alloc_page(self) -> int:
        """Return the physical address of a new page of RAM that one entry maps."""
        address = self.alloc(self._page_size)
        self.ram[address] = Page()
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


class PageTables:
    """The page tables of one address space: offsets, allocation and walks at every level.

    `X_offset(slot, address)` and `X_alloc(mm, slot, address)` follow the kernel's: an `_alloc` fills an empty parent
    slot with a new table of level X first.
    """

    pgd: array[int]
    p4d_offset: Callable[[Slot, int], Slot]
    pud_offset: Callable[[Slot, int], Slot]
    pmd_offset: Callable[[Slot, int], Slot]
    pte_offset: Callable[[Slot, int], Slot]
    p4d_alloc: Callable[[MmStruct, Slot, int], Slot]
    pud_alloc: Callable[[MmStruct, Slot, int], Slot]
    pmd_alloc: Callable[[MmStruct, Slot, int], Slot]
    pte_alloc: Callable[[MmStruct, Slot, int], Slot]

    def __init__(self, kernel: Kernel, levels: tuple[WalkLevel, ...] | None = None) -> None:
        self._kernel = kernel
        self._ops = kernel.ops
        self._phys = kernel.phys
        self._deposited: dict[int, int] = {}
        self._begin(kernel.geometry.levels(0) if levels is None else levels)

    def _begin(self, levels: tuple[WalkLevel, ...]) -> None:
        """Walk these levels from here on, from a new and empty top table."""
        kernel = self._kernel
        self.levels = levels
        names = [w.name for w in levels]
        self.steps: dict[Level, Step] = {}
        for name, below in pairwise(names):
            op = _PARENT[below]
            ops = [getattr(self._ops, f"{op}_{what}") for what in ("none", "bad", "leaf", "pgtable")]
            self.steps[name] = Step(op, *ops)
        self.empty = {name: kernel.arch.empty(self.steps[name].op if name in self.steps else name) for name in names}
        self._templates = {w.name: array("Q", [self.empty[w.name]]) * w.ptrs for w in levels}
        top = levels[0]
        self._top_shift, self._top_mask = top.shift, top.ptrs - 1
        self.pgd_pa = self._phys.alloc_table(self._templates[top.name])
        self.pgd = self._phys.tables[self.pgd_pa]
        self.bytes = {name: kernel.geometry.ptrs(name) * 8 if name in _COUNTED else 0 for name in names}
        for level in _PARENT:
            offset = self._offset(level)
            setattr(self, f"{level}_offset", offset)
            setattr(self, f"{level}_alloc", self._alloc(level, offset))

    def _offset(self, level: Level) -> Callable[[Slot, int], Slot]:
        for walked in self.levels[1:]:
            if walked.name == level:
                shift, mask = walked.shift, walked.ptrs - 1
                break
        else:
            return lambda slot, address: slot
        pgtable = getattr(self._ops, f"{_PARENT[level]}_pgtable")
        tables = self._phys.tables
        return lambda slot, address: (tables[pgtable(slot[0][slot[1]])], (address >> shift) & mask)

    def _alloc(self, level: Level, offset: Callable[[Slot, int], Slot]) -> Callable[[MmStruct, Slot, int], Slot]:
        none = getattr(self._ops, f"{_PARENT[level]}_none")

        def alloc(mm: MmStruct, slot: Slot, address: int) -> Slot:
            table, index = slot
            if none(table[index]):
                self.populate(mm, slot, level)
            return offset(slot, address)

        return alloc

    def populate(self, mm: MmStruct, slot: Slot, level: Level) -> None:
        """Put a new table of `level` under the parent's slot, and count it."""
        pa = self._phys.alloc_table(self._templates[level])
        slot[0][slot[1]] = getattr(self._ops, f"{_PARENT[level]}_populate")(pa)
        mm.pgtables_bytes += self.bytes[level]

    def reach(self, mm: MmStruct, end: int) -> None:
        """Have tables that reach up to `end` (bytes): crst_table_upgrade of arch/s390/mm/pgalloc.c, nothing elsewhere.

        The top table becomes the first below a new one, and counts then if it is a PUD table. A process that has
        nothing mapped (a real one always has its stack) begins anew with as many levels as it needs.
        """
        geometry = self._kernel.geometry
        levels = geometry.levels(end)
        if len(levels) <= len(self.levels):
            return
        if all(entry == self.empty["pgd"] for entry in self.pgd):
            self._phys.free_table(self.pgd_pa)
            self._begin(levels)
        while len(self.levels) < len(levels):
            below_pa = self.pgd_pa
            self._begin(geometry.lowest(len(self.levels) + 1))
            below = self.levels[1].name
            self.pgd[0] = getattr(self._ops, f"{_PARENT[below]}_populate")(below_pa)
            mm.pgtables_bytes += self.bytes[below]

    def table_under(self, mm: MmStruct, slot: Slot, level: Level) -> array[int]:
        """Return the table of a walked level under its parent's slot, made where it is missing (X_alloc)."""
        parent = self.steps[self.levels[[w.name for w in self.levels].index(level) - 1].name]
        if parent.none(slot[0][slot[1]]):
            self.populate(mm, slot, level)
        return self._phys.tables[parent.pgtable(slot[0][slot[1]])]

    def deposit(self, mm: MmStruct, address: int) -> None:
        """pgtable_trans_huge_deposit: keep a PTE table for the PMD leaf at `address`, and count it."""
        self._deposited[address] = self._phys.alloc_table(self._templates["pte"])
        mm.pgtables_bytes += self.bytes["pte"]

    def withdraw(self, mm: MmStruct, address: int) -> None:
        """zap_deposited_table: free the PTE table that was kept for the PMD leaf at `address`."""
        self._phys.free_table(self._deposited.pop(address))
        mm.pgtables_bytes -= self.bytes["pte"]

    def pgd_offset(self, address: int) -> Slot:
        """Return the top slot of an address."""
        return self.pgd, (address >> self._top_shift) & self._top_mask

    def next_table(self, level: Level, entry: int) -> array[int] | None:
        """Return the table that an entry of a walked level points to; None where it is empty, a leaf or no table."""
        step = self.steps[level]
        if step.none(entry) or step.leaf(entry):
            return None
        return self._phys.tables.get(step.pgtable(entry))

    def walk(self, address: int) -> Iterator[tuple[Level, Slot]]:
        """Yield (walked level, slot) from the top down to the leaf or the first empty entry of an address."""
        table: array[int] | None = self.pgd
        for walked in self.levels:
            if table is None:
                return
            slot = (table, (address >> walked.shift) & (walked.ptrs - 1))
            yield walked.name, slot
            if walked.name != "pte":
                table = self.next_table(walked.name, slot[0][slot[1]])

    def leaf(self, address: int) -> tuple[Level, Slot] | None:
        """Return the level and the slot of the leaf for an address, present or not; None where the slot is empty.

        The level is the one whose ops work on the leaf: the lowest that is folded into the walked one.
        """
        tables = self._phys.tables
        table = self.pgd
        for walked in self.levels[:-1]:
            index = (address >> walked.shift) & (walked.ptrs - 1)
            entry = table[index]
            step = self.steps[walked.name]
            if step.none(entry):
                return None
            if step.leaf(entry):
                return step.op, (table, index)
            below = tables.get(step.pgtable(entry))
            if below is None:
                return None
            table = below
        index = (address >> self.levels[-1].shift) & (self.levels[-1].ptrs - 1)
        return None if self._ops.pte_none(table[index]) else ("pte", (table, index))

    def pmd_slot(self, address: int) -> Slot | None:
        """mm_find_pmd's walk: the PMD slot of an address, or None where a table above is missing or a leaf."""
        slot = self.pud_slot(address)
        if slot is None:
            return None
        entry = slot[0][slot[1]]
        ops = self._ops
        if ops.pud_none(entry) or not ops.pud_present(entry) or ops.pud_leaf(entry):
            return None
        return self.pmd_offset(slot, address)

    def pud_slot(self, address: int) -> Slot | None:
        """Return the PUD slot of an address, or None where a table above is missing."""
        ops = self._ops
        pgd = self.pgd_offset(address)
        if ops.pgd_none(pgd[0][pgd[1]]):
            return None
        p4d = self.p4d_offset(pgd, address)
        if ops.p4d_none(p4d[0][p4d[1]]):
            return None
        return self.pud_offset(p4d, address)

    def none_or_clear_bad(self, level: Level, slot: Slot) -> bool:
        """X_none_or_clear_bad (mm/pgtable-generic.c) of a walked level: empty, or complained about and emptied."""
        table, index = slot
        step = self.steps[level]
        if step.none(table[index]):
            return True
        if step.bad(table[index]):
            self._kernel.trace.emit(Bug(f"mm/pgtable-generic.c: bad {step.op} *({table[index]:016x})"))
            table[index] = self.empty[level]
            return True
        return False

    def free(self, mm: MmStruct) -> None:
        """Free the top table, and refuse if anything is left under it (exit_mmap frees all before)."""
        if any(entry != self.empty[self.levels[0].name] for entry in self.pgd):
            raise Refused("exit_mmap", "page tables are left")
        self._phys.free_table(self.pgd_pa)


def free_pgtables(mm: MmStruct, ranges: list[tuple[int, int]], floor: int, ceiling: int) -> None:
    """Free the tables that only served the unmapped ranges (mm/memory.c, free_pgtables and free_pgd_range).

    `ranges`: the unmapped vmas' [start, end), ascending. `floor`: end of the vma before (0: none), `ceiling`: start
    of the vma after (0: none). A table goes only if its whole span is free of other vmas (RULES 18).
    """
    pmd_size = mm.kernel.geometry.size("pmd")
    index = 0
    while index < len(ranges):
        start, end = ranges[index]
        index += 1
        while index < len(ranges) and ranges[index][0] <= end + pmd_size:
            end = ranges[index][1]
            index += 1
        above = ranges[index][0] if index < len(ranges) else ceiling
        _free_pgd_range(mm, start, end, floor, above)


def _free_pgd_range(mm: MmStruct, start: int, end: int, floor: int, ceiling: int) -> None:
    pmd_size = mm.kernel.geometry.size("pmd")
    start &= -pmd_size
    if start < floor:
        start += pmd_size
    if ceiling:
        ceiling &= -pmd_size
        if not ceiling:
            return
        if end > ceiling:
            end -= pmd_size
    if start >= end:
        return
    _free_range(mm, mm.tables.pgd, 0, start, end, floor, ceiling)


def _free_range(mm: MmStruct, table: array[int], depth: int, start: int, end: int, floor: int, ceiling: int) -> None:
    """Free what hangs under the entries of one table for [start, end), then each child table nobody else needs."""
    tables = mm.tables
    phys = mm.kernel.phys
    walked = tables.levels[depth]
    size = 1 << walked.shift
    child = tables.levels[depth + 1].name
    address = start
    while address < end:
        stop = min((address & -size) + size, end)
        index = (address >> walked.shift) & (walked.ptrs - 1)
        slot = (table, index)
        if not tables.none_or_clear_bad(walked.name, slot):
            pa = tables.steps[walked.name].pgtable(table[index])
            if child != "pte":
                _free_range(mm, phys.tables[pa], depth + 1, address, stop, floor, ceiling)
            if _span_is_free(address, stop, size, floor, ceiling, child):
                table[index] = tables.empty[walked.name]
                phys.free_table(pa)
                mm.pgtables_bytes -= tables.bytes[child]
        address = stop


def _span_is_free(start: int, end: int, size: int, floor: int, ceiling: int, child: str) -> bool:
    if child == "pte":  # free_pte_range asks nothing: the PMD alignment of _free_pgd_range settled it
        return True
    if start & -size < floor:
        return False
    if ceiling:
        ceiling &= -size
        return bool(ceiling) and end <= ceiling
    return True
