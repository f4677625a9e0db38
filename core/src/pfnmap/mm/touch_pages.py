"""Accesses to every page of a range, one after the other, at once where they are alike: touches by the user, or
whatever looks pages up one by one and faults them in.

What one access does is said elsewhere (a touch: `pfnmap.mm.fault.user_access`), and stays so. Of what is alike the
first is touched by it, and the second; what the second did is done again for the others, with entries that numpy
computes and one `Repeat` in the trace. Alike are slots in a row of one table: empty ones where the driver says that its
handlers answer alike (`VmOperations.alike`) and the architecture that the caching is the same, or PTEs with the same
flags. Under one PMD table, whole PTE tables are repeated in the same way, and under one PUD table those of PMD leaves.
So are the other pages of a leaf that an access has made.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, NamedTuple

from pfnmap.contract.entry import Level
from pfnmap.contract.fault import FAULT_FLAG_USER
from pfnmap.contract.slot import Table, slot_of
from pfnmap.contract.vma import MmStruct, VmFault
from pfnmap.limits import bounded
from pfnmap.mm import huge_memory
from pfnmap.mm.fault import AccessResult, user_access
from pfnmap.mm.locking import mmap_lock, page_table_lock
from pfnmap.mm.pte_tables import fill, following, pte_rows
from pfnmap.trace import Call, Event, Repeat, later
from pfnmap.vm_flags import VM_PFNMAP

if TYPE_CHECKING:  # for the type checker alone: numpy is imported where it is used
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Again", "Touched", "each_page", "touch_pages"]

_FEW = 8
"""As many slots are as fast one by one."""

_OK = AccessResult("ok")
_NO = AccessResult("no")
_LEVELS: tuple[Level, ...] = ("pte", "pmd", "pud")


class Touched(NamedTuple):
    """So many accesses to `pages` in a row with the same outcome, the first at `address`; `events` of the first one."""

    address: int
    pages: int
    outcome: AccessResult
    events: tuple[Event, ...]

    @property
    def total(self) -> int:
        """How many accesses these are."""
        return self.pages

    def unrolled(self) -> Iterator[Touched]:
        """Yield them without repetition."""
        yield self


class Again(NamedTuple):
    """`touched` once more, so many `times`, each time `step` bytes further on."""

    touched: tuple[Touched | Again, ...]
    times: int
    step: int

    @property
    def total(self) -> int:
        """How many accesses these are."""
        return self.times * sum(touched.total for touched in self.touched)

    def unrolled(self) -> Iterator[Touched]:
        """Yield them without repetition; the events are those of the first time."""
        for n in range(1, self.times + 1):
            for touched in self.touched:
                for one in touched.unrolled():
                    yield one._replace(address=one.address + n * self.step)


def touch_pages(mm: MmStruct, start: int, end: int, write: bool) -> Iterator[Touched | Again]:
    """Load from or store to every page of [start, end), page-aligned, in ascending order; stop after an access that
    fails. Raises Refused where too many would have to be touched one by one."""
    yield from _Accesses(mm, lambda address: user_access(mm, address, write), "touch", idle=True).go(
        len(_LEVELS) - 1, start, end
    )


def each_page(
    mm: MmStruct, start: int, end: int, access: Callable[[int], bool], what: str
) -> Iterator[tuple[int, int, int]]:
    """Access every page of [start, end), page-aligned, in ascending order; stop after an access that answers no. What
    it does to the tables is to fault that page in, if anything, and what else it does is not repeated but told: yield
    (the first page's address, how many pages, step), where a step says that those are what was yielded for the pages
    from `step` bytes before on, that many bytes further on; without, they answer as the first one does.

    Raises Refused, naming `what`, where too many would have to be accessed one by one.
    """
    page = mm.kernel.geometry.PAGE_SIZE

    def one(address: int) -> AccessResult:
        return _OK if access(address) else _NO

    for done in _Accesses(mm, one, what).go(len(_LEVELS) - 1, start, end):
        if isinstance(done, Touched) and done.outcome is _NO:
            return
        yield start, done.total, done.step if isinstance(done, Again) else 0
        start += done.total * page


class _Accesses:
    """The accesses of one range. `idle`: one to a page that is mapped by a huge leaf does nothing."""

    def __init__(self, mm: MmStruct, access: Callable[[int], AccessResult], what: str, *, idle: bool = False) -> None:
        kernel = mm.kernel
        self._mm = mm
        self._access = access
        self._what = what
        self._idle = idle
        self._machine = mm.machine
        self._ops = kernel.ops
        self._size = {level: kernel.geometry.size(level) for level in _LEVELS}
        self._shift = kernel.geometry.PAGE_SHIFT
        self._one_by_one = bool(mm.machine.poisoned) or kernel.arch.cookies_from is not None
        self._accesses = 0

    def go(self, depth: int, start: int, end: int) -> Generator[Touched | Again, None, bool]:
        """Access [start, end), slot by slot of a level; return whether all went well."""
        level = _LEVELS[depth]
        size = self._size[level]
        trace = self._machine.trace
        address = start
        while address < end:
            alike = self._alike(level, address, end)
            for _ in range(2 if alike else 1):
                slot = self._mm.tables.slot(level, address)
                before, mark = slot.entry if slot else 0, len(trace.events)
                first, address = address, min((address & -size) + size, end)
                done = []
                for touched in self._inside(depth, first, address):
                    done.append(touched)
                    yield touched
                last = done[-1]
                if isinstance(last, Touched) and last.outcome.result != "ok":
                    return False
            if alike:
                events = trace.events[mark:]
                if count := self._repeat(level, first, alike - 2, before, events):
                    pages = size >> self._shift
                    if events:
                        trace.emit(Repeat(tuple(later(e, size, pages) for e in events), count, size, pages))
                    yield Again(tuple(done), count, size)
                    address += count * size
            elif address < end and self._larger_leaf(depth, first):
                return (yield from self._rest_of_leaf(address, end))
        return True

    def _rest_of_leaf(self, start: int, end: int) -> Generator[Touched | Again, None, bool]:
        """Access [start, end), which a leaf maps that an access to a page before it came to."""
        pages = (end - start) >> self._shift
        if self._idle:
            yield Touched(start, pages, _OK, ())
            return True
        page, trace = 1 << self._shift, self._machine.trace
        while pages:
            mark = len(trace.events)
            for touched in self._inside(0, start, start + page):
                yield touched
                if isinstance(touched, Touched) and touched.outcome.result != "ok":
                    return False
            start, pages = start + page, pages - 1
            events = trace.events[mark:]
            if pages > _FEW and not self._contended and all(isinstance(event, Call) for event in events):
                if events:
                    trace.emit(Repeat(tuple(later(event, page, 1) for event in events), pages, page, 1))
                yield Again((touched,), pages, page)
                return True
        return True

    @property
    def _contended(self) -> bool:
        """Whether another CPU does something on the way."""
        return mmap_lock(self._mm).contended or page_table_lock(self._mm).contended

    def _inside(self, depth: int, start: int, end: int) -> Iterator[Touched | Again]:
        """Access what one slot of a level maps of [start, end)."""
        if depth:
            yield from self.go(depth - 1, start, end)
            return
        self._accesses = bounded(self._what, self._accesses + 1)
        mark = len(self._machine.trace.events)
        outcome = self._access(start)
        yield Touched(start, 1, outcome, tuple(self._machine.trace.events[mark:]))

    def _larger_leaf(self, depth: int, address: int) -> bool:
        """Tell whether an address that was accessed is mapped by a leaf of a level above: all further accesses to it do
        the same."""
        leaf = self._mm.tables.leaf(address)
        return leaf is not None and leaf[0] in _LEVELS[depth + 1 :] and not self._one_by_one

    def _alike(self, level: Level, address: int, end: int) -> int:
        """Return how many slots of a level, from that of `address` on, are alike and wholly in [address, end); 0 for a
        few."""
        size = self._size[level]
        if self._one_by_one or (end - address) // size <= _FEW or address % size or self._contended:
            return 0
        vma = self._mm.vma_lookup(address)
        slot = self._mm.tables.slot(level, address)
        if vma is None or slot is None or not vma.vm_flags & VM_PFNMAP or huge_memory.is_cow_mapping(vma.vm_flags):
            return 0
        table, index = slot
        count = min((min(end, vma.vm_end) - address) // size, len(table) - index)
        empty = bool(getattr(self._ops, f"{level}_none")(table[index]))
        if empty:
            ops = vma.vm_ops
            if ops is None or ops.alike is None:
                return 0
            count = min(count, ops.alike(VmFault(vma, address, address, FAULT_FLAG_USER)) // size)
        elif level != "pte":
            return 0
        if count <= _FEW:
            return 0
        words = _words(table)[index : index + count]
        if empty:
            same = getattr(self._ops, f"{level}_none")(words) != 0
        else:
            flags = words ^ self._ops.pfn_pte(self._ops.pte_pfn(words), vma.vm_page_prot)
            same = flags == flags[0]
        count = count if same.all() else int(same.argmin())
        return count if count > _FEW else 0

    def _repeat(self, level: Level, first: int, count: int, before: int, events: list[Event]) -> int:
        """Do what was done to the slot of `first`, which held `before`, to those after it; return to how many."""
        ops = self._ops
        slot = self._mm.tables.slot(level, first)
        assert slot is not None
        table, index = slot
        entry = table[index]
        words = _words(table)[index + 1 : index + 1 + count]
        if not getattr(ops, f"{level}_none")(before):
            if any(not isinstance(event, Call) for event in events):
                return 0
            if entry != before:
                words ^= words.dtype.type(entry ^ before)
            return count
        if getattr(ops, f"{level}_none")(entry):
            return 0
        if level == "pmd" and self._mm.tables.below[level][entry] is not None:
            return self._repeat_table(table, index, count)
        if level == "pud" and self._mm.tables.below[level][entry] is not None:
            return self._repeat_pmd_table(table, index, count)
        if not getattr(ops, f"{level}_leaf")(entry) if level != "pte" else False:
            return 0
        if level == "pmd" and ops.arch_needs_pgtable_deposit():
            return 0
        pages = self._size[level] >> self._shift
        pfn = getattr(ops, f"{level}_pfn")(entry)
        count = self._of_one_cachemode(pfn, count, pages)
        words[:count] = following(ops, level, pfn, entry, count + 1, pages)[1:]
        return count

    def _repeat_table(self, table: Table, index: int, count: int) -> int:
        """Fill `count` PTE tables more in the same way as that of a slot, if it maps pages in a row with the same
        flags; return how many."""
        tables = self._mm.tables
        done = tables.below["pmd"][table[index]]
        assert done is not None
        pages = len(done)
        pfn = self._ops.pte_pfn(done[0])
        if (following(self._ops, "pte", pfn, done[0], pages, 1) != _words(done)).any():
            return 0
        count = self._of_one_cachemode(pfn, count, pages)
        after = done[0] ^ self._ops.pfn_pte(pfn, 0) ^ self._ops.pfn_pte(pfn + pages, 0)
        made = tables.populate_all(table, index + 1, count)
        fill(self._ops, pte_rows(self._mm, made), pfn + pages, after, count * pages)
        return count

    def _repeat_pmd_table(self, table: Table, index: int, count: int) -> int:
        """Fill `count` PMD tables more in the same way as that of a slot, if it maps pages in a row with leaves that
        have the same flags; return how many."""
        tables, ops = self._mm.tables, self._ops
        done = tables.below["pud"][table[index]]
        assert done is not None
        first, pages = done[0], self._size["pmd"] >> self._shift
        if ops.pmd_none(first) or not ops.pmd_leaf(first) or ops.arch_needs_pgtable_deposit():
            return 0
        pfn = ops.pmd_pfn(first)
        if (following(ops, "pmd", pfn, first, len(done), pages) != _words(done)).any():
            return 0
        count = self._of_one_cachemode(pfn, count, len(done) * pages)
        leaves = following(ops, "pmd", pfn, first, (count + 1) * len(done), pages)
        for n in range(1, count + 1):
            made = tables.table_under(slot_of((table, index + n)), "pmd")
            _words(made)[:] = leaves[n * len(done) : (n + 1) * len(done)]
        return count

    def _of_one_cachemode(self, pfn: int, count: int, pages: int) -> int:
        """Return how many of `count` blocks of `pages` after the one at a PFN have its caching."""
        alike: int = self._ops.pfnmap_pages_alike(self._machine, pfn, (count + 1) * pages)
        return max(alike // pages - 1, 0)


def _words(table: Table) -> NDArray[np.uint64]:
    import numpy as np

    return np.frombuffer(table, np.uint64)
