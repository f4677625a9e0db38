"""Zapping: the entries of a range go, its tables stay (mm/memory.c). A file of its own: memory.c is long in the kernel
too."""

from __future__ import annotations

from array import array

from pfnmap.contract.slot import Slot, Table
from pfnmap.contract.vma import AddressSpace, VmArea
from pfnmap.mm import huge_memory
from pfnmap.mm.anonymous import unmap_page
from pfnmap.mm.contpte import contpte_unfold
from pfnmap.mm.mmu_notifier import mmu_notifier_invalidate_range
from pfnmap.mm.pte_tables import count_of, pte_rows, pte_tables
from pfnmap.trace import Call
from pfnmap.vm_flags import VM_PFNMAP

__all__ = ["unmap_mapping_range", "unmap_single_vma", "zap_vma_ptes"]


def unmap_single_vma(vma: VmArea, start: int, end: int, *, mmap_locked: bool = True, tables_go: bool = False) -> None:
    """Drop every entry of [start, end) of a vma, and what the architecture tracks of a pfnmap; tables stay.

    `tables_go`: those that map nothing else are freed next, before anyone looks, so that they need not be emptied.
    """
    mmu_notifier_invalidate_range(vma.vm_mm, start, end)
    if vma.vm_flags & VM_PFNMAP:
        vma.vm_mm.kernel.ops.untrack_pfn(vma, 0, 0)
    _zap(vma, vma.vm_mm.tables.pgd, 0, start, end, mmap_locked, tables_go)


def _zap(vma: VmArea, table: Table, depth: int, start: int, end: int, mmap_locked: bool, tables_go: bool) -> None:
    """unmap_page_range and the zap_X_range below it, over the entries of one table."""
    mm = vma.vm_mm
    ops = mm.kernel.ops
    tables = mm.tables
    walked = tables.levels[depth]
    if walked.name == "pte":
        first = (start >> walked.shift) & (walked.ptrs - 1)
        _zap_ptes(vma, table, first, start, (end - start) >> walked.shift)
        return
    step = tables.steps[walked.name]
    size = 1 << walked.shift
    special = vma.vm_flags & VM_PFNMAP and not huge_memory.is_cow_mapping(vma.vm_flags)
    empty, mask = tables.empty[walked.name], walked.ptrs - 1
    address = start
    while address < end:
        index = (address >> walked.shift) & mask
        if table[index] == empty:
            address = (address & -size) + size
            continue
        whole: list[range] = []
        if special and step.op == "pmd" and not address % size:
            whole = pte_tables(tables, table, index, (end - address) // size)
        if whole:
            for rows in () if tables_go else pte_rows(mm, whole):
                rows[:] = tables.empty["pte"]
            address += count_of(whole) * size
            continue
        stop = min((address & -size) + size, end)
        slot = Slot(table, index)
        entry = table[index]
        if step.op == "pud" and (ops.pud_trans_huge(entry) or ops.pud_devmap(entry)):
            if stop - address == size:
                huge_memory.zap_huge_pud(vma, slot, address)
            else:
                if not mmap_locked and not mm.kernel.has("unmap-no-vma-lock-warning"):
                    mm.machine.warn_once("include/linux/rwsem.h unmap_page_range", "F4")
                huge_memory.split_huge_pud(vma, slot, address)
        elif step.op == "pmd" and (ops.pmd_trans_huge(entry) or ops.pmd_devmap(entry)):
            if stop - address == size:
                huge_memory.zap_huge_pmd(vma, slot, address)
            else:
                huge_memory.split_huge_pmd(vma, slot, address)
                if (child := tables.below["pmd"][table[index]]) is not None:
                    _zap(vma, child, depth + 1, address, stop, mmap_locked, tables_go)
        elif not tables.none_or_clear_bad(walked.name, slot):
            child = mm.machine.phys.tables[step.pgtable(table[slot[1]])]
            _zap(vma, child, depth + 1, address, stop, mmap_locked, tables_go)
        address = stop


def _zap_ptes(vma: VmArea, table: Table, first: int, start: int, count: int) -> None:
    """zap_pte_range from the byte address `start` on: the pages of private memory are mapped once less."""
    kernel = vma.vm_mm.kernel
    contpte_unfold(vma.vm_mm, table, first, count)
    if not vma.vm_flags & VM_PFNMAP or huge_memory.is_cow_mapping(vma.vm_flags):
        size = kernel.geometry.PAGE_SIZE
        for n, entry in enumerate(table[first : first + count]):
            if not kernel.ops.pte_none(entry):
                unmap_page(vma, start + n * size, entry)
    table[first : first + count] = array("Q", [kernel.arch.empty("pte")]) * count


def zap_vma_ptes(vma: VmArea, address: int, size: int) -> None:
    """Drop the entries of a part of a pfnmap vma (bytes)."""
    if vma.vm_flags & VM_PFNMAP and vma.vm_start <= address and address + size <= vma.vm_end:
        unmap_single_vma(vma, address, address + size)


def unmap_mapping_range(mapping: AddressSpace, holebegin: int, holelen: int) -> None:
    """Drop what every vma of a mapping has of the file range [holebegin, holebegin + holelen) (bytes; 0: to the
    end)."""
    machine = mapping.machine
    kernel = machine.kernel
    machine.trace.emit(Call("unmap_mapping_range"))
    shift = kernel.geometry.PAGE_SHIFT
    for vma in list(mapping.i_mmap.values()):
        begin = vma.vm_pgoff << shift
        low = max(holebegin, begin)
        high = begin + vma.size
        if holelen:
            high = min(high, holebegin + holelen)
        if low < high:
            start = vma.vm_start - begin
            unmap_single_vma(vma, start + low, start + high, mmap_locked=False)
