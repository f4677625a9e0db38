"""Faults, and inserting base pages (mm/memory.c).

Order of locks, as in the kernel: the per-VMA lock or mmap_lock, then the driver's own, then the page-table lock. The
model is sequential; what it keeps of the locks is which pass of a fault runs under which (FINDINGS F9).
"""

from __future__ import annotations

from array import array
from errno import EINVAL

from pfnmap.contract.fault import (
    FAULT_FLAG_UNSHARE,
    FAULT_FLAG_VMA_LOCK,
    FAULT_FLAG_WRITE,
    VM_FAULT_FALLBACK,
    VM_FAULT_NOPAGE,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    vm_fault_name,
)
from pfnmap.contract.slot import Slot, Table
from pfnmap.contract.vma import VmArea, VmFault, answered
from pfnmap.errors import Refused
from pfnmap.limits import PTES, bounded
from pfnmap.mm import huge_memory
from pfnmap.mm.anonymous import do_anonymous_page, do_wp_page
from pfnmap.mm.pfnmap_track import setup_cachemode, track_remap, untrack_remap
from pfnmap.mm.pte_tables import FEW, count_of, fill, pte_rows, pte_tables
from pfnmap.trace import Call, Fault, Install
from pfnmap.vm_flags import (
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_IO,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_SHARED,
)

__all__ = [
    "handle_mm_fault",
    "insert_pfns",
    "remap_pfn_range",
    "vmf_insert_pfn",
]


def handle_mm_fault(vma: VmArea, address: int, flags: int) -> int:
    """Handle a fault at a byte address: from the largest order down, each only where its level's entry is empty.

    Returns a VM_FAULT code: 0 or NOPAGE when there is something to retry the access with, RETRY when the per-VMA lock
    does not do and mmap_lock is needed, SIGBUS, SIGSEGV, OOM.
    """
    mm = vma.vm_mm
    machine = mm.machine
    kernel = machine.kernel
    tables = mm.tables
    machine.trace.emit(Call("handle_mm_fault", address))
    vmf = VmFault(vma, address & -kernel.geometry.PAGE_SIZE, address, flags)
    pte = tables.pte(address)
    if pte is not None:  # a PTE table is there: no larger order is asked for
        return _handle_pte_fault(vmf, pte)

    ops = kernel.ops
    write = bool(flags & FAULT_FLAG_WRITE)
    vmf.pud = pud = tables.alloc("pud", address)
    table, index = pud
    entry = table[index]
    if tables.below["pud"][entry] is not None:
        pass
    elif ops.pud_none(entry):
        if huge_memory.thp_vma_allowable_order(vma):
            ret = _create_huge_pud(vmf)
            if not ret & VM_FAULT_FALLBACK:
                return ret
    elif ops.pud_trans_huge(entry) or ops.pud_devmap(entry):
        if not write or ops.pud_write(entry):
            huge_memory.huge_pud_set_accessed(vmf)
            return 0
        ret = _wp_huge_pud(vmf)
        if not ret & VM_FAULT_FALLBACK:
            return ret

    vmf.pmd = pmd = tables.pmd_alloc(pud, address)
    table, index = pmd
    entry = table[index]
    if tables.below["pmd"][entry] is not None:
        pass
    elif ops.pmd_none(entry):
        if huge_memory.thp_vma_allowable_order(vma):
            ret = _huge_fault(vmf, kernel.geometry.PMD_ORDER)
            if not ret & VM_FAULT_FALLBACK:
                return ret
    elif not ops.pmd_present(entry):
        raise Refused("handle_mm_fault", f"PMD entry {entry:#x} is neither empty nor present")
    elif ops.pmd_trans_huge(entry) or ops.pmd_devmap(entry):
        if not write or ops.pmd_write(entry):
            huge_memory.huge_pmd_set_accessed(vmf)
            return 0
        ret = _wp_huge_pmd(vmf)
        if not ret & VM_FAULT_FALLBACK:
            return ret
    return _handle_pte_fault(vmf, tables.pte(address))


def _create_huge_pud(vmf: VmFault) -> int:
    kernel = vmf.vma.vm_mm.kernel
    if not kernel.config.enabled("HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD"):
        return VM_FAULT_FALLBACK
    return _huge_fault(vmf, kernel.geometry.PUD_ORDER)


def _huge_fault(vmf: VmFault, order: int) -> int:
    """Ask the driver's huge_fault, if it has one, for an order."""
    ops = vmf.vma.vm_ops
    if ops is None or ops.huge_fault is None:
        return VM_FAULT_FALLBACK
    return _traced(vmf, order, answered(ops.huge_fault, ops.huge_fault(vmf, order)))


def _traced(vmf: VmFault, order: int, ret: int) -> int:
    flags = vmf.flags
    write, vma_lock = flags & FAULT_FLAG_WRITE != 0, flags & FAULT_FLAG_VMA_LOCK != 0
    vmf.vma.vm_mm.machine.trace.emit(Fault(order, vm_fault_name(ret), vmf.address, write, vma_lock))
    return ret


def _wp_huge_pud(vmf: VmFault) -> int:
    kernel = vmf.vma.vm_mm.kernel
    if not kernel.config.enabled("HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD"):
        return VM_FAULT_FALLBACK
    if vmf.vma.vm_flags & (VM_SHARED | VM_MAYSHARE):
        ret = _huge_fault(vmf, kernel.geometry.PUD_ORDER)
        if not ret & VM_FAULT_FALLBACK:
            return ret
    assert vmf.pud is not None
    huge_memory.split_huge_pud(vmf.vma, vmf.pud, vmf.address)
    return VM_FAULT_FALLBACK


def _wp_huge_pmd(vmf: VmFault) -> int:
    if vmf.vma.vm_flags & (VM_SHARED | VM_MAYSHARE):
        ret = _huge_fault(vmf, vmf.vma.vm_mm.kernel.geometry.PMD_ORDER)
        if not ret & VM_FAULT_FALLBACK:
            return ret
    assert vmf.pmd is not None
    if huge_memory.is_anonymous_huge_page(vmf.vma, vmf.pmd.entry):
        return huge_memory.anonymous_wp_huge_pmd(vmf)
    huge_memory.split_huge_pmd(vmf.vma, vmf.pmd, vmf.address)
    return VM_FAULT_FALLBACK


def _handle_pte_fault(vmf: VmFault, pte: tuple[Table, int] | None) -> int:
    """Handle a fault below the huge levels; `pte`: its place, None where there is no table."""
    if pte is None:
        return _do_fault(vmf)
    ops = vmf.vma.vm_mm.kernel.ops
    table, index = pte
    entry = table[index]
    if ops.pte_none(entry):
        return _do_fault(vmf)
    if not ops.pte_present(entry):
        raise Refused("do_swap_page", f"PTE {entry:#x} is neither empty nor present")
    if vmf.flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE) and not ops.pte_write(entry):
        return do_wp_page(vmf, Slot(table, index))
    if vmf.write:
        table[index] = ops.ptep_set_access_flags(entry, ops.pte_mkyoung(ops.pte_mkdirty(entry)))
    else:
        table[index] = ops.ptep_set_access_flags(entry, ops.pte_mkyoung(entry))
    return 0


def _do_fault(vmf: VmFault) -> int:
    """do_pte_missing: the driver's fault for one page, which the per-VMA lock does not cover (vmf_can_call_fault)."""
    ops = vmf.vma.vm_ops
    if ops is None:
        return do_anonymous_page(vmf)
    if ops.map_pages is not None and ops.fault is not None:  # the page cache: none of the faults that a record tells
        return (0 if vmf.write else ops.map_pages(vmf)) or ops.fault(vmf)
    if ops.fault is None:
        return VM_FAULT_SIGBUS
    if vmf.flags & FAULT_FLAG_VMA_LOCK:
        return VM_FAULT_RETRY
    return _traced(vmf, 0, answered(ops.fault, ops.fault(vmf)))


def vmf_insert_pfn(vma: VmArea, address: int, pfn: int) -> int:
    """Insert the PTE for one page; a PTE that is already there stays. Returns a VM_FAULT code."""
    mm = vma.vm_mm
    machine = mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    tables = mm.tables
    machine.trace.emit(Call("vmf_insert_pfn", address))
    huge_memory.bug_on_cow(vma, "vmf_insert_pfn_prot")
    if not vma.vm_start <= address < vma.vm_end:
        return VM_FAULT_SIGBUS
    table, index = tables.pte(address) or tables.alloc("pte", address)
    if ops.pte_none(table[index]):
        table[index] = entry = ops.pte_mkspecial(ops.pfn_pte(pfn, setup_cachemode(vma, pfn)))
        machine.trace.emit(Install("pte", address, pfn, entry))
    return VM_FAULT_NOPAGE


def insert_pfns(vma: VmArea, address: int, pfn: int, size: int, prot: int) -> None:
    """Map `size` bytes from `address` on to consecutive base pages from `pfn`, with special PTEs (remap_p4d_range and
    below). The entries must be empty. Those under one PUD entry are computed in one numpy operation.
    """
    mm = vma.vm_mm
    tables = mm.tables
    span = mm.kernel.geometry.size("pud")
    shift = mm.kernel.geometry.PAGE_SHIFT
    bounded("insert_pfns", size >> shift, PTES, "PTEs")
    end = address + size
    while address < end:
        stop = min((address & -span) + span, end)
        pmd = tables.alloc("pmd", address)
        _insert_under_pud(vma, pmd, address, stop, pfn, prot)
        pfn += (stop - address) >> shift
        address = stop


def _insert_under_pud(vma: VmArea, pmd: Slot, start: int, end: int, pfn: int, prot: int) -> None:
    """Fill [start, end), whose first PMD slot is `pmd`."""
    import numpy as np

    mm = vma.vm_mm
    tables = mm.tables
    ops = mm.kernel.ops
    geometry = mm.kernel.geometry
    shift, span = geometry.PAGE_SHIFT, geometry.size("pmd")
    table, index = pmd
    address = start
    while address < end:
        entry = ops.pte_mkspecial(ops.pfn_pte(pfn, prot))
        whole = 0 if address % span else (end - address) // span
        if whole > FEW and table[index : index + whole] == array("Q", (tables.empty["pmd"],)) * whole:
            made = tables.populate_all(table, index, whole)
        else:
            made = pte_tables(tables, table, index, whole)
        if made:
            whole = count_of(made)
            count = whole * geometry.PTRS_PER_PTE
            fill(ops, pte_rows(mm, made), pfn, entry, count)
        else:
            whole = 1
            ptes, first = tables.pte_alloc(Slot(table, index), address)
            count = (min((address & -span) + span, end) - address) >> shift
            fill(ops, [np.frombuffer(ptes, np.uint64)[None, first : first + count]], pfn, entry, count)
        mm.machine.trace.emit(Install("pte", address, pfn, entry, count))
        pfn += count
        address += count << shift
        index += whole


def remap_pfn_range(vma: VmArea, address: int, pfn: int, size: int, prot: int) -> int:
    """Map `size` bytes from `address` on to consecutive base pages from `pfn`, with PTEs (PMD leaves with
    `remap-pfn-range-pmd`).

    Returns 0, or -EINVAL for a part of a COW mapping, whose vm_pgoff must tell the pfn of all of it, and where the
    architecture has other caching for some of it.
    """
    page = vma.vm_mm.kernel.geometry.PAGE_SIZE
    size = -(-size // page) * page
    prot = track_remap(vma, prot, pfn, address, size)
    if prot < 0:
        return prot
    if vma.vm_flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE:
        if (address, address + size) != (vma.vm_start, vma.vm_end):
            untrack_remap(vma, pfn, size)
            return -EINVAL
        vma.vm_pgoff = pfn
    vma.vm_flags |= VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP
    kernel = vma.vm_mm.kernel
    if kernel.has("remap-pfn-range-pmd") and kernel.pfnmap("pmd"):
        _remap_pmds(vma, address, pfn, size, prot)
    else:
        insert_pfns(vma, address, pfn, size, prot)
    return 0


def _remap_pmds(vma: VmArea, address: int, pfn: int, size: int, prot: int) -> None:
    """The unmerged change: PMD leaves for the blocks that are aligned and wholly inside, PTEs before and after.

    From the letter of the posted series; nothing of it was run.
    """
    mm = vma.vm_mm
    machine = mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    tables = mm.tables
    shift, span = kernel.geometry.PAGE_SHIFT, kernel.geometry.size("pmd")
    end = address + size
    congruent = (address - (pfn << shift)) % span == 0
    while address < end:
        stop = min((address & -span) + span, end)
        if congruent and stop - address == span:
            table, index = tables.alloc("pmd", address)
            table[index] = entry = ops.pmd_mkspecial(ops.pmd_mkhuge(ops.pfn_pmd(pfn, prot)))
            machine.trace.emit(Install("pmd", address, pfn, entry))
        else:
            insert_pfns(vma, address, pfn, stop - address, prot)
        pfn += (stop - address) >> shift
        address = stop
