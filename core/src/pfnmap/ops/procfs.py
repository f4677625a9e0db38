"""Ops that look at pages, or clear what was noted of them: pagemap, PAGEMAP_SCAN, clear_refs, and mincore.

Sources: fs/proc/task_mmu.c and mm/mincore.c of 6.12 and 6.1. The procfs.*, entry.*.clear_refs and fuzz.* records pin
what a pfnmap shows; of anonymous memory no record shows anything, and what is said of it here is read and not run.
The reader is root, as in the records.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL, ENOMEM, ENOTTY
from typing import TYPE_CHECKING, Any

from pfnmap.contract.kernel import LinkedKernel
from pfnmap.contract.slot import Slot
from pfnmap.contract.vma import MmStruct, VmArea
from pfnmap.errors import Refused
from pfnmap.limits import bounded
from pfnmap.mm.huge_memory import is_cow_mapping
from pfnmap.mm.mmap import vma_set_page_prot
from pfnmap.mm.mmu_notifier import mmu_notifier_invalidate_range
from pfnmap.mm.pagewalk import MmWalkOps, pmd_trans_huge_lock, pte_slots, walk_page_range
from pfnmap.mm.shmem import shmem_of
from pfnmap.mm.vm_normal_page import is_zero_pfn, vm_normal_page
from pfnmap.ops.op import Op, errno_result
from pfnmap.vm_flags import VM_PFNMAP, VM_SOFTDIRTY

if TYPE_CHECKING:
    from pfnmap.ops.state import RunState

__all__ = ["OPS"]

# pagemap

PM_ENTRY_BYTES = 8
PM_SOFT_DIRTY = 1 << 55
PM_MMAP_EXCLUSIVE = 1 << 56
PM_FILE = 1 << 61
PM_PRESENT = 1 << 63


def _pagemap(run: RunState, mm: MmStruct, va: int, count: int) -> dict[str, Any]:
    """pagemap_read: 64 bits a page. A pfnmap is a hole of which only the vma's soft-dirty flag shows (RULES 31)."""
    geometry = mm.kernel.geometry
    start = va & -geometry.PAGE_SIZE
    end = min(start + count * geometry.PAGE_SIZE, geometry.task_size)
    bounded("pagemap", (end - start) >> geometry.PAGE_SHIFT)
    entries: list[int] = []

    def pte_hole(vma: VmArea | None, start: int, end: int) -> None:
        entries.extend([_vma_soft_dirty(vma)] * ((end - start) >> geometry.PAGE_SHIFT))

    def pmd_entry(vma: VmArea, slot: Slot, start: int, end: int) -> None:
        if pmd_trans_huge_lock(vma, slot):
            raise Refused("pagemap", f"a PMD leaf outside a pfnmap at {start:#x}")
        for address, (table, i) in pte_slots(vma, slot, start, end):
            entries.append(_vma_soft_dirty(vma) | _pagemap_entry(vma, address, table[i]))

    if start < end:
        walk_page_range(mm, start, end, MmWalkOps(pmd_entry, pte_hole))
    return {"bytes": len(entries) * PM_ENTRY_BYTES, "entries": [hex(entry) for entry in entries]}


def _vma_soft_dirty(vma: VmArea | None) -> int:
    return PM_SOFT_DIRTY if vma is not None and vma.vm_flags & VM_SOFTDIRTY else 0


def _pagemap_entry(vma: VmArea, address: int, pte: int) -> int:
    """pte_to_pagemap_entry, for a PTE of memory with pages."""
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    if not kernel.ops.pte_present(pte):
        return 0
    flags = PM_PRESENT
    if kernel.ops.pte_soft_dirty(pte):
        flags |= PM_SOFT_DIRTY
    pfn = vm_normal_page(vma, address, pte)
    if pfn is not None:
        page = machine.phys.ram[pfn << kernel.geometry.PAGE_SHIFT]
        flags |= (PM_MMAP_EXCLUSIVE if page.mapcount == 1 else 0) | (0 if page.anon else PM_FILE)
    return flags | int(kernel.ops.pte_pfn(pte))


# PAGEMAP_SCAN

PAGE_IS_WRITTEN = 1 << 1
PAGE_IS_FILE = 1 << 2
PAGE_IS_PRESENT = 1 << 3
PAGE_IS_PFNZERO = 1 << 5
PAGE_IS_SOFT_DIRTY = 1 << 7
PAGE_IS_GUARD = 1 << 8
PAGE_IS_ACCESSED = 1 << 9
PM_SCAN_CATEGORIES = 0xFF


def _pagemap_scan(run: RunState, mm: MmStruct, start: int, end: int, any_of: int, return_mask: int) -> dict[str, Any]:
    """do_pagemap_scan: the pages with any of the categories (0: all), in regions of equal ones. It never walks a
    pfnmap, whatever is asked for; the rest is read (fs/proc/task_mmu.c of 6.12.117)."""
    page = mm.kernel.geometry.PAGE_SIZE
    known = PM_SCAN_CATEGORIES
    known |= PAGE_IS_GUARD if mm.kernel.has("pagemap-scan-guard") else 0
    known |= PAGE_IS_ACCESSED if mm.kernel.has("uffd-rwp") else 0
    if not mm.kernel.has("pagemap-scan"):
        error = -ENOTTY
    elif (any_of | return_mask) & ~known or start % page:
        error = -EINVAL
    elif not start <= end <= mm.kernel.geometry.task_size:
        error = -EFAULT
    else:
        end = -(-end // page) * page
        regions = _Regions(any_of, return_mask)
        walk_page_range(mm, start, end, MmWalkOps(regions.pmd_entry, regions.pte_hole))
        found = [{"start": hex(low), "end": hex(high), "categories": hex(c)} for low, high, c in regions.found]
        return {"ret": len(found), "walk_end": hex(end), "regions": found}
    return {**errno_result(error), "ret": -1, "walk_end": "0x0", "regions": []}


class _Regions:
    """What PAGEMAP_SCAN reports: (start, end, categories)."""

    def __init__(self, any_of: int, return_mask: int) -> None:
        self.found: list[tuple[int, int, int]] = []
        self._any_of = any_of
        self._return_mask = return_mask

    def pte_hole(self, vma: VmArea | None, start: int, end: int) -> None:
        """pagemap_scan_pte_hole: of a vma that is walked."""
        if vma is not None and not vma.vm_flags & VM_PFNMAP:
            self._output(_vma_categories(vma), start, end)

    def pmd_entry(self, vma: VmArea, slot: Slot, start: int, end: int) -> None:
        """pagemap_scan_pmd_entry."""
        if pmd_trans_huge_lock(vma, slot):
            raise Refused("pagemap_scan", f"a PMD leaf outside a pfnmap at {start:#x}")
        page = vma.vm_mm.kernel.geometry.PAGE_SIZE
        for address, (table, i) in pte_slots(vma, slot, start, end):
            self._output(_vma_categories(vma) | _pte_categories(vma, address, table[i]), address, address + page)

    def _output(self, categories: int, start: int, end: int) -> None:
        if self._any_of and not categories & self._any_of:
            return
        categories &= self._return_mask
        if self.found and self.found[-1][1:] == (start, categories):
            start = self.found.pop()[0]
        self.found.append((start, end, categories))


def _vma_categories(vma: VmArea) -> int:
    return PAGE_IS_SOFT_DIRTY if vma.vm_flags & VM_SOFTDIRTY else 0


def _pte_categories(vma: VmArea, address: int, pte: int) -> int:
    """pagemap_page_category: nothing is write-protected by userfaultfd here, so that all is written, or nothing where
    only a vma that is registered for it is told of (`neighbour.scan.*`)."""
    machine = vma.vm_mm.machine
    ops = machine.kernel.ops
    written = 0 if machine.kernel.has("uffd-rwp") else PAGE_IS_WRITTEN
    if ops.pte_none(pte):
        return written
    pfn = vm_normal_page(vma, address, pte)
    file = pfn is not None and not machine.phys.ram[pfn << machine.kernel.geometry.PAGE_SHIFT].anon
    return (
        PAGE_IS_PRESENT
        | written
        | (PAGE_IS_FILE if file else 0)
        | (PAGE_IS_PFNZERO if is_zero_pfn(machine, ops.pte_pfn(pte)) else 0)
        | (PAGE_IS_SOFT_DIRTY if ops.pte_soft_dirty(pte) else 0)
    )


# mincore


def _mincore(run: RunState, mm: MmStruct, addr: int, length: int) -> dict[str, Any]:
    """mincore: vma by vma, until a hole (-ENOMEM), where nothing is told (`min.mincore.enomem`)."""
    geometry = mm.kernel.geometry
    page = geometry.PAGE_SIZE
    pages = -(-length // page)
    if addr % page:
        return errno_result(-EINVAL)
    if addr + length > geometry.task_size:
        return errno_result(-ENOMEM)
    counted = _Resident(mm.kernel)
    end = addr + pages * page
    while addr < end:
        vma = mm.vma_lookup(addr)
        if vma is None:
            return {**errno_result(-ENOMEM), "pages": pages, "resident": 0}
        stop = min(vma.vm_end, end)
        walk_page_range(mm, addr, stop, counted.walk)
        addr = stop
    return {"pages": pages, "resident": counted.pages}


class _Resident:
    """Counts the pages that have an entry. The walk leaves pfnmaps out: a file without page cache has nothing resident.

    From `mincore-pfnmap` on it walks them too and splits no PUD leaf. How it does that is inferred from what 7.3.4
    shows: every page under a leaf counts, and the leaf stays.
    """

    def __init__(self, kernel: LinkedKernel) -> None:
        self.pages = 0
        self._kernel = kernel
        if kernel.has("mincore-pfnmap"):
            self.walk = MmWalkOps(self._pmd_entry, self._pte_hole, self._pud_entry, test_walk=lambda vma: True)
        else:
            self.walk = MmWalkOps(self._pmd_entry, self._pte_hole)

    def _pud_entry(self, vma: VmArea, slot: Slot, start: int, end: int) -> bool:
        ops = self._kernel.ops
        entry = slot.entry
        leaf = bool(ops.pud_trans_huge(entry) or ops.pud_devmap(entry))
        if leaf:
            self.pages += (end - start) >> self._kernel.geometry.PAGE_SHIFT
        return leaf

    def _pmd_entry(self, vma: VmArea, slot: Slot, start: int, end: int) -> None:
        if pmd_trans_huge_lock(vma, slot):
            self.pages += (end - start) >> self._kernel.geometry.PAGE_SHIFT
            return
        none = self._kernel.ops.pte_none
        page = self._kernel.geometry.PAGE_SIZE
        for address, (table, i) in pte_slots(vma, slot, start, end):
            if none(table[i]):
                self._pte_hole(vma, address, address + page)
            else:
                self.pages += 1

    def _pte_hole(self, vma: VmArea | None, start: int, end: int) -> None:
        """mincore_unmapped_range: what the page cache has is resident, though not mapped."""
        inode = None if vma is None else shmem_of(vma)
        if inode is not None and vma is not None:
            shift = self._kernel.geometry.PAGE_SHIFT
            first = vma.vm_pgoff + ((start - vma.vm_start) >> shift)
            self.pages += sum(first <= n < first + ((end - start) >> shift) for n in inode.pages)


# clear_refs

CLEAR_REFS_ALL = 1
CLEAR_REFS_ANON = 2
CLEAR_REFS_MAPPED = 3
CLEAR_REFS_SOFT_DIRTY = 4
CLEAR_REFS_MM_HIWATER_RSS = 5


def _clear_refs(run: RunState, mm: MmStruct, value: int) -> dict[str, Any]:
    """clear_refs_write. Entries of pfnmaps are never changed (RULES 31); what 4 changes of them is the vma: no longer
    soft-dirty, it has its first writes notified, and leaves made from then on are read-only (FINDINGS F21)."""
    if not CLEAR_REFS_ALL <= value <= CLEAR_REFS_MM_HIWATER_RSS:
        return errno_result(-EINVAL)
    if value == CLEAR_REFS_MM_HIWATER_RSS:
        return {}
    if value == CLEAR_REFS_SOFT_DIRTY:
        for vma in mm:
            if vma.vm_flags & VM_SOFTDIRTY:
                vma.vm_flags &= ~VM_SOFTDIRTY
                vma_set_page_prot(vma)
        mmu_notifier_invalidate_range(mm, 0, mm.kernel.geometry.task_size)
    clear = _clear_soft_dirty if value == CLEAR_REFS_SOFT_DIRTY else _clear_young
    present = mm.kernel.ops.pte_present

    def pmd_entry(vma: VmArea, slot: Slot, start: int, end: int) -> None:
        if pmd_trans_huge_lock(vma, slot):
            raise Refused("clear_refs", f"a PMD leaf outside a pfnmap at {start:#x}")
        for address, (table, i) in pte_slots(vma, slot, start, end):
            if present(table[i]):
                table[i] = clear(vma, address, table[i])

    def test_walk(vma: VmArea) -> bool:
        skipped = {CLEAR_REFS_ANON: vma.vm_file is not None, CLEAR_REFS_MAPPED: vma.vm_file is None}
        return not vma.vm_flags & VM_PFNMAP and not skipped.get(value)

    walk_page_range(mm, 0, mm.kernel.geometry.task_size, MmWalkOps(pmd_entry, test_walk=test_walk))
    return {}


def _clear_soft_dirty(vma: VmArea, address: int, pte: int) -> int:
    kernel = vma.vm_mm.kernel
    if not kernel.config.enabled("MEM_SOFT_DIRTY"):
        return pte
    if _is_pinned(vma, address, pte):  # whoever has it pinned may write at any time (`min.clear_refs.pinned_anon`)
        return pte
    return int(kernel.ops.pte_clear_soft_dirty(kernel.ops.pte_wrprotect(pte)))


def _is_pinned(vma: VmArea, address: int, pte: int) -> bool:
    """pte_is_pinned: whether a private page may be pinned."""
    if not is_cow_mapping(vma.vm_flags) or not vma.vm_mm.has_pinned:
        return False
    page = vm_normal_page(vma, address, pte)
    machine = vma.vm_mm.machine
    return page is not None and machine.phys.ram[page << machine.kernel.geometry.PAGE_SHIFT].pins > 0


def _clear_young(vma: VmArea, address: int, pte: int) -> int:
    return pte if vm_normal_page(vma, address, pte) is None else int(vma.vm_mm.kernel.ops.pte_mkold(pte))


OPS = {
    "pagemap": Op(_pagemap, {"va": "address", "count": "int"}),
    "pagemap_scan": Op(
        _pagemap_scan, {"start": "address", "end": "address", "any_of": "address", "return_mask": "address"}
    ),
    "mincore": Op(_mincore, {"addr": "address", "length": "size"}),
    "clear_refs": Op(_clear_refs, {"value": "signed"}),
}
