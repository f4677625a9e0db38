"""Faults, inserting base pages, zapping (mm/memory.c).

Order of locks, as in the kernel: the per-VMA lock or mmap_lock, then the driver's own, then the page-table lock. The
model is sequential; what it keeps of the locks is which pass of a fault runs under which (FINDINGS F9).
"""

from __future__ import annotations

from array import array
from errno import EINVAL
from typing import TYPE_CHECKING, Final

from pfnmap.errors import Refused
from pfnmap.mm import huge_memory
from pfnmap.mm.vma import FAULT_FLAG_VMA_LOCK, FAULT_FLAG_WRITE, VmFault
from pfnmap.trace import Call, Fault, Install
from pfnmap.vm_flags import (
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_IO,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_SHARED,
    VM_WRITE,
)

if TYPE_CHECKING:
    from pfnmap.mm.pgtable import Slot
    from pfnmap.mm.vma import AddressSpace, VmArea

__all__ = [
    "VM_FAULT_FALLBACK",
    "VM_FAULT_HWPOISON",
    "VM_FAULT_NOPAGE",
    "VM_FAULT_OOM",
    "VM_FAULT_RETRY",
    "VM_FAULT_SIGBUS",
    "VM_FAULT_SIGSEGV",
    "handle_mm_fault",
    "insert_pfns",
    "remap_pfn_range",
    "unmap_mapping_range",
    "unmap_page_range",
    "vm_fault_name",
    "vmf_insert_pfn",
    "zap_vma_ptes",
]

VM_FAULT_OOM: Final = 0x1
VM_FAULT_SIGBUS: Final = 0x2
VM_FAULT_HWPOISON: Final = 0x10
VM_FAULT_SIGSEGV: Final = 0x40
VM_FAULT_NOPAGE: Final = 0x100
VM_FAULT_RETRY: Final = 0x400
VM_FAULT_FALLBACK: Final = 0x800

_NAMES = {
    VM_FAULT_OOM: "OOM",
    VM_FAULT_SIGBUS: "SIGBUS",
    VM_FAULT_HWPOISON: "HWPOISON",
    VM_FAULT_SIGSEGV: "SIGSEGV",
    VM_FAULT_NOPAGE: "NOPAGE",
    VM_FAULT_RETRY: "RETRY",
    VM_FAULT_FALLBACK: "FALLBACK",
}


def vm_fault_name(code: int) -> str:
    """Return the name of a VM_FAULT code without its prefix, or the code in hex."""
    return _NAMES.get(code, hex(code))


def handle_mm_fault(vma: VmArea, address: int, flags: int) -> int:
    """Handle a fault at a byte address: from the largest order down, each only where its level's entry is empty.

    Returns a VM_FAULT code: 0 or NOPAGE when there is something to retry the access with, RETRY when the per-VMA lock
    does not do and mmap_lock is needed, SIGBUS, SIGSEGV, OOM.
    """
    mm = vma.vm_mm
    kernel = mm.kernel
    ops = kernel.ops
    geometry = kernel.geometry
    tables = mm.tables
    kernel.trace.emit(Call("handle_mm_fault", address))
    vmf = VmFault(vma, address & -geometry.PAGE_SIZE, address, flags)
    write = bool(flags & FAULT_FLAG_WRITE)

    p4d = tables.p4d_alloc(mm, tables.pgd_offset(address), address)
    vmf.pud = pud = tables.pud_alloc(mm, p4d, address)
    entry = pud[0][pud[1]]
    allowed = huge_memory.thp_vma_allowable_order(vma)
    if ops.pud_none(entry) and allowed:
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

    vmf.pmd = pmd = tables.pmd_alloc(mm, pud, address)
    entry = pmd[0][pmd[1]]
    if ops.pmd_none(entry):
        if allowed:
            ret = _huge_fault(vmf, geometry.PMD_ORDER)
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
    return _handle_pte_fault(vmf)


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
    return _traced(vmf, order, ops.huge_fault(vmf, order))


def _traced(vmf: VmFault, order: int, ret: int) -> int:
    lock = bool(vmf.flags & FAULT_FLAG_VMA_LOCK)
    vmf.vma.vm_mm.kernel.trace.emit(Fault(order, vm_fault_name(ret), vmf.address, vmf.write, lock))
    return ret


def _wp_huge_pud(vmf: VmFault) -> int:
    kernel = vmf.vma.vm_mm.kernel
    if not kernel.config.enabled("HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD"):
        return VM_FAULT_FALLBACK
    if vmf.vma.vm_flags & (VM_SHARED | VM_MAYSHARE):
        ret = _huge_fault(vmf, kernel.geometry.PUD_ORDER)
        if not ret & VM_FAULT_FALLBACK:
            return ret
    raise Refused("wp_huge_pud", "a PUD leaf that is split on a write fault")


def _wp_huge_pmd(vmf: VmFault) -> int:
    if vmf.vma.vm_flags & (VM_SHARED | VM_MAYSHARE):
        ret = _huge_fault(vmf, vmf.vma.vm_mm.kernel.geometry.PMD_ORDER)
        if not ret & VM_FAULT_FALLBACK:
            return ret
    raise Refused("wp_huge_pmd", "a PMD leaf that is split on a write fault")


def _handle_pte_fault(vmf: VmFault) -> int:
    vma = vmf.vma
    mm = vma.vm_mm
    ops = mm.kernel.ops
    assert vmf.pmd is not None
    table, index = vmf.pmd
    if ops.pmd_none(table[index]):
        return _do_fault(vmf)
    pte, at = mm.tables.pte_offset(vmf.pmd, vmf.address)
    entry = pte[at]
    if ops.pte_none(entry):
        return _do_fault(vmf)
    if not ops.pte_present(entry):
        raise Refused("do_swap_page", f"PTE {entry:#x} is neither empty nor present")
    if vmf.write:
        if not ops.pte_write(entry):
            return _do_wp_page(vmf, (pte, at))
        pte[at] = ops.ptep_set_access_flags(entry, ops.pte_mkyoung(ops.pte_mkdirty(entry)))
    else:
        pte[at] = ops.ptep_set_access_flags(entry, ops.pte_mkyoung(entry))
    return 0


def _do_fault(vmf: VmFault) -> int:
    """do_pte_missing: the driver's fault for one page, which the per-VMA lock does not cover (vmf_can_call_fault)."""
    ops = vmf.vma.vm_ops
    if ops is None:
        raise Refused("do_anonymous_page", "anonymous memory")
    if vmf.flags & FAULT_FLAG_VMA_LOCK:
        return VM_FAULT_RETRY
    return _traced(vmf, 0, ops.fault(vmf))


def _do_wp_page(vmf: VmFault, slot: Slot) -> int:
    """A write to a PTE that is not writable. A shared pfnmap without pfn_mkwrite becomes writable in place
    (wp_pfn_shared, wp_page_reuse)."""
    vma = vmf.vma
    ops = vma.vm_mm.kernel.ops
    if not (vma.vm_flags & (VM_SHARED | VM_MAYSHARE) and vma.vm_flags & VM_PFNMAP):
        raise Refused("do_wp_page", "copy on write")
    table, index = slot
    entry = ops.pte_mkdirty(ops.pte_mkyoung(table[index]))
    if vma.vm_flags & VM_WRITE:
        entry = ops.pte_mkwrite(entry, vma.vm_flags)
    table[index] = ops.ptep_set_access_flags(table[index], entry)
    return 0


def vmf_insert_pfn(vma: VmArea, address: int, pfn: int) -> int:
    """Insert the PTE for one page; a PTE that is already there stays. Returns a VM_FAULT code."""
    mm = vma.vm_mm
    kernel = mm.kernel
    ops = kernel.ops
    tables = mm.tables
    kernel.trace.emit(Call("vmf_insert_pfn", address))
    if not vma.vm_start <= address < vma.vm_end:
        return VM_FAULT_SIGBUS
    p4d = tables.p4d_alloc(mm, tables.pgd_offset(address), address)
    pmd = tables.pmd_alloc(mm, tables.pud_alloc(mm, p4d, address), address)
    table, index = tables.pte_alloc(mm, pmd, address)
    if ops.pte_none(table[index]):
        table[index] = entry = ops.pte_mkspecial(ops.pfn_pte(pfn, vma.vm_page_prot))
        kernel.trace.emit(Install("pte", address, pfn, entry))
    return VM_FAULT_NOPAGE


def insert_pfns(vma: VmArea, address: int, pfn: int, size: int, prot: int) -> None:
    """Map `size` bytes from `address` on to consecutive base pages from `pfn`, with special PTEs (remap_p4d_range and
    below). One numpy operation a table; the entries must be empty."""
    import numpy as np

    mm = vma.vm_mm
    kernel = mm.kernel
    ops = kernel.ops
    tables = mm.tables
    shift = kernel.geometry.PAGE_SHIFT
    span = kernel.geometry.size("pmd")
    steps = np.arange(kernel.geometry.PTRS_PER_PTE, dtype=np.uint64)
    end = address + size
    while address < end:
        stop = min((address & -span) + span, end)
        p4d = tables.p4d_alloc(mm, tables.pgd_offset(address), address)
        pmd = tables.pmd_alloc(mm, tables.pud_alloc(mm, p4d, address), address)
        table, index = tables.pte_alloc(mm, pmd, address)
        count = (stop - address) >> shift
        entries = ops.pte_mkspecial(ops.pfn_pte(steps[:count] + np.uint64(pfn), prot))
        np.frombuffer(table, dtype=np.uint64)[index : index + count] = entries
        kernel.trace.emit(Install("pte", address, pfn, table[index], count))
        address, pfn = stop, pfn + count


def remap_pfn_range(vma: VmArea, address: int, pfn: int, size: int, prot: int) -> int:
    """Map `size` bytes from `address` on to consecutive base pages from `pfn`, with PTEs only.

    Returns 0, or -EINVAL for a part of a COW mapping, whose vm_pgoff must tell the pfn of all of it.
    """
    page = vma.vm_mm.kernel.geometry.PAGE_SIZE
    size = -(-size // page) * page
    if vma.vm_flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE:
        if (address, address + size) != (vma.vm_start, vma.vm_end):
            return -EINVAL
        vma.vm_pgoff = pfn
    vma.vm_flags |= VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP
    insert_pfns(vma, address, pfn, size, prot)
    return 0


def unmap_page_range(vma: VmArea, start: int, end: int) -> None:
    """Drop every entry of [start, end) of a vma; tables stay (zap_p4d_range and below)."""
    mm = vma.vm_mm
    _zap(vma, mm.tables.pgd, 0, start, end)


def _zap(vma: VmArea, table: array[int], depth: int, start: int, end: int) -> None:
    mm = vma.vm_mm
    ops = mm.kernel.ops
    tables = mm.tables
    walked = tables.levels[depth]
    if walked.name == "pte":
        first = (start >> walked.shift) & (walked.ptrs - 1)
        count = (end - start) >> walked.shift
        table[first : first + count] = array("Q", [tables.empty["pte"]]) * count
        return
    step = tables.steps[walked.name]
    size = 1 << walked.shift
    address = start
    while address < end:
        stop = min((address & -size) + size, end)
        slot = (table, (address >> walked.shift) & (walked.ptrs - 1))
        entry = table[slot[1]]
        if step.op == "pud" and (ops.pud_trans_huge(entry) or ops.pud_devmap(entry)):
            if stop - address != size:
                raise Refused("split_huge_pud", "a part of a PUD leaf")
            huge_memory.zap_huge_pud(vma, slot, address)
        elif step.op == "pmd" and (ops.pmd_trans_huge(entry) or ops.pmd_devmap(entry)):
            if stop - address != size:
                raise Refused("split_huge_pmd", "a part of a PMD leaf")
            huge_memory.zap_huge_pmd(vma, slot, address)
        elif not tables.none_or_clear_bad(walked.name, slot):
            child = mm.kernel.phys.tables[step.pgtable(table[slot[1]])]
            _zap(vma, child, depth + 1, address, stop)
        address = stop


def zap_vma_ptes(vma: VmArea, address: int, size: int) -> None:
    """Drop the entries of a part of a pfnmap vma (bytes)."""
    if vma.vm_flags & VM_PFNMAP and vma.vm_start <= address and address + size <= vma.vm_end:
        unmap_page_range(vma, address, address + size)


def unmap_mapping_range(mapping: AddressSpace, holebegin: int, holelen: int) -> None:
    """Drop what every vma of a mapping has of the file range [holebegin, holebegin + holelen) (bytes; 0: to the end)."""
    kernel = mapping.kernel
    kernel.trace.emit(Call("unmap_mapping_range"))
    shift = kernel.geometry.PAGE_SHIFT
    for vma in list(mapping.i_mmap.values()):
        begin = vma.vm_pgoff << shift
        low = max(holebegin, begin)
        high = begin + vma.size
        if holelen:
            high = min(high, holebegin + holelen)
        if low < high:
            unmap_page_range(vma, vma.vm_start + low - begin, vma.vm_start + high - begin)
