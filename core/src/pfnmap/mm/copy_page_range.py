"""Copying the entries of a vma to a child's (mm/memory.c). A file of its own: memory.c is long in the kernel too."""

from __future__ import annotations

from array import array
from typing import Any

from pfnmap.contract.slot import Slot, Table
from pfnmap.contract.vma import VmArea
from pfnmap.mm import huge_memory
from pfnmap.mm.anonymous import private_page
from pfnmap.mm.contpte import contpte_unfold
from pfnmap.mm.mmu_notifier import mmu_notifier_invalidate_range
from pfnmap.mm.pte_tables import count_of, pte_rows_of, pte_tables, turn
from pfnmap.vm_flags import VM_MIXEDMAP, VM_PFNMAP, VM_SHARED, VM_WRITE

__all__ = ["copy_page_range"]


def copy_page_range(dst: VmArea, src: VmArea) -> int:
    """fork: copy the entries of a vma to the child's (RULES 11, 19, 20). Tables are made also where they stay empty.

    A pfnmap is always copied, other memory only where it has private pages (vma_needs_copy). Returns 0, or the errno
    with which the architecture refuses to track the copy.
    """
    if not src.vm_flags & (VM_PFNMAP | VM_MIXEDMAP) and src.anon_vma is None:
        return 0
    if src.vm_flags & VM_PFNMAP and (error := src.vm_mm.kernel.ops.track_pfn_copy(dst, src)):
        return int(error)
    mm = src.vm_mm
    tables = mm.tables
    if huge_memory.is_cow_mapping(src.vm_flags):
        mmu_notifier_invalidate_range(mm, src.vm_start, src.vm_end)
    walked = tables.levels[0]
    size = 1 << walked.shift
    address = src.vm_start
    while address < src.vm_end:
        stop = min((address & -size) + size, src.vm_end)
        _copy(dst, src, dst.vm_mm.tables.pgd_offset(address), tables.pgd_offset(address), 0, address, stop)
        address = stop
    return 0


def _copy(dst: VmArea, src: VmArea, dst_slot: Slot, src_slot: Slot, depth: int, start: int, end: int) -> None:
    """copy_X_range below one entry: leaves are copied, tables gone into."""
    machine = src.vm_mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    tables = src.vm_mm.tables
    level = tables.levels[depth].name
    step = tables.steps[level]
    entry = src_slot.entry
    if step.op == "pud" and (ops.pud_trans_huge(entry) or ops.pud_devmap(entry)):
        huge_memory.copy_huge_pud(dst.vm_mm, dst_slot, src, src_slot, start)
        return
    if step.op == "pmd" and (ops.pmd_trans_huge(entry) or ops.pmd_devmap(entry)):
        huge_memory.copy_huge_pmd(dst.vm_mm, dst_slot, src, src_slot, start)
        return
    if tables.none_or_clear_bad(level, src_slot):
        return
    below = tables.levels[depth + 1]
    dst_table = dst.vm_mm.tables.table_under(dst_slot, below.name)
    src_table = machine.phys.tables[step.pgtable(src_slot.entry)]
    mask = below.ptrs - 1
    if below.name == "pte":
        first = (start >> below.shift) & mask
        _copy_ptes(src, dst_table, src_table, first, start, (end - start) >> below.shift)
        return
    size = 1 << below.shift
    special = src.vm_flags & VM_PFNMAP and not huge_memory.is_cow_mapping(src.vm_flags)
    address = start
    while address < end:
        stop = min((address & -size) + size, end)
        index = (address >> below.shift) & mask
        if special and tables.steps[below.name].op == "pmd" and not address % size:
            whole = pte_tables(tables, src_table, index, (end - address) // size)
            count = count_of(whole)
            if whole and dst_table[index : index + count] == array("Q", (tables.empty[below.name],)) * count:
                _copy_tables(dst, src, whole, dst.vm_mm.tables.populate_all(dst_table, index, count))
                address += count * size
                continue
        _copy(dst, src, Slot(dst_table, index), Slot(src_table, index), depth + 1, address, stop)
        address = stop


def _copy_tables(dst: VmArea, src: VmArea, old: list[range], new: list[range]) -> None:
    """copy_present_ptes of whole tables."""
    import numpy as np

    ops = src.vm_mm.kernel.ops
    for olds, news in pte_rows_of(src.vm_mm, old, new):
        if not turn(ops, lambda pte: _copied(src, pte), olds, (olds, news)):
            news[:] = dst.vm_mm.tables.empty["pte"]
            np.copyto(news, _copied(src, olds), where=ops.pte_none(olds) == 0)


def _copied(src: VmArea, pte: Any) -> Any:
    """Return the child's copy of what is not copied on write: old, and clean too where shared."""
    ops = src.vm_mm.kernel.ops
    return ops.pte_mkold(ops.pte_mkclean(pte) if src.vm_flags & VM_SHARED else pte)


def _copy_ptes(src: VmArea, dst_table: Table, src_table: Table, first: int, start: int, count: int) -> None:
    """copy_present_ptes of a range from the byte address `start` on: old in the copy; clean too where shared, read-only
    in both where copied on write."""
    import numpy as np

    kernel = src.vm_mm.kernel
    ops = kernel.ops
    contpte_unfold(src.vm_mm, src_table, first, count)
    chosen = slice(first, first + count)
    old = np.frombuffer(src_table, dtype=np.uint64)[chosen]
    filled = ops.pte_none(old) == 0
    copied = _copied(src, old)
    if huge_memory.is_cow_mapping(src.vm_flags):
        for n in np.flatnonzero(filled).tolist():
            old[n], copied[n] = _copy_private(src, start + n * kernel.geometry.PAGE_SIZE, int(old[n]))
    new = np.frombuffer(dst_table, dtype=np.uint64)[chosen]
    new[filled] = copied[filled]


def _copy_private(src: VmArea, address: int, entry: int) -> tuple[int, int]:
    """Return the parent's and the child's PTE after a fork: both read-only, the page nobody's own any more.

    A page that may be pinned is copied for the child at once, and stays the parent's as it is (copy_present_page).
    """
    machine = src.vm_mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    page = private_page(src, address, entry)
    if page is not None and page.pins and src.vm_mm.has_pinned:
        pfn = machine.phys.alloc_page() >> kernel.geometry.PAGE_SHIFT
        child = ops.pte_mkdirty(ops.pfn_pte(pfn, src.vm_page_prot))
        return entry, ops.pte_mkwrite(child, src.vm_flags) if src.vm_flags & VM_WRITE else child
    if page is not None:
        page.mapcount += 1
        page.exclusive = False
    entry = ops.pte_wrprotect(entry)
    return entry, ops.pte_mkold(entry)
