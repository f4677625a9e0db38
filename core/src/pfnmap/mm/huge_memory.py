"""Huge leaves: which orders are allowed, inserting, zapping and splitting them (mm/huge_memory.c).

The page-fault part of `thp_vma_allowable_orders` is pinned by the thp.* records and FINDINGS F6, inserting by the
entry.* records, splitting by the mprotect.* and munmap.* ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pfnmap.trace import Call, Install
from pfnmap.vm_flags import VM_HUGEPAGE, VM_NOHUGEPAGE, VM_PFNMAP, VM_WRITE

if TYPE_CHECKING:
    from pfnmap.mm.pgtable import Slot
    from pfnmap.mm.vma import VmArea, VmFault

__all__ = [
    "huge_pmd_set_accessed",
    "huge_pud_set_accessed",
    "thp_vma_allowable_order",
    "vma_thp_disabled",
    "vmf_insert_pfn_pmd",
    "vmf_insert_pfn_pud",
    "zap_huge_pmd",
    "zap_huge_pud",
]

VM_FAULT_SIGBUS = 0x2
VM_FAULT_NOPAGE = 0x100


def vma_thp_disabled(vma: VmArea) -> bool:
    """Tell whether MADV_NOHUGEPAGE or prctl(PR_SET_THP_DISABLE) forbid huge leaves in a vma."""
    mm = vma.vm_mm
    if vma.vm_flags & VM_NOHUGEPAGE or mm.thp_disabled:
        return True
    return mm.thp_disabled_except_advised and not vma.vm_flags & VM_HUGEPAGE


def thp_vma_allowable_order(vma: VmArea) -> bool:
    """Tell whether a fault in this vma may ask for PMD and PUD orders at all (both or none, for a pfnmap).

    The sysfs knob gates pfnmaps until `thp-bypass-pfnmap`; the driver tests alignment and size itself. An anonymous
    vma answers False: the model maps anonymous memory with base pages only (as the recordings' processes do).
    """
    kernel = vma.vm_mm.kernel
    if not kernel.config.enabled("TRANSPARENT_HUGEPAGE") or not vma.vm_flags & VM_PFNMAP:
        return False
    if not kernel.ops.has_transparent_hugepage() or vma_thp_disabled(vma):
        return False
    if kernel.has("thp-bypass-pfnmap"):
        return True
    return kernel.thp == "always" or (kernel.thp == "madvise" and bool(vma.vm_flags & VM_HUGEPAGE))


def vmf_insert_pfn_pmd(vmf: VmFault, pfn: int, write: bool) -> int:
    """Insert a PMD leaf for `pfn` (base pages) at the PMD-aligned fault address; return a VM_FAULT code."""
    vma = vmf.vma
    kernel = vma.vm_mm.kernel
    ops = kernel.ops
    address = vmf.address & -kernel.geometry.size("pmd")
    kernel.trace.emit(Call("vmf_insert_pfn_pmd", vmf.address))
    if not vma.vm_start <= address < vma.vm_end:
        return VM_FAULT_SIGBUS
    assert vmf.pmd is not None
    table, index = vmf.pmd
    old = table[index]
    if not ops.pmd_none(old):
        if write and ops.pmd_pfn(old) == pfn:
            table[index] = ops.pmdp_set_access_flags(old, _pmd_made_writable(vma, ops.pmd_mkyoung(old)))
        return VM_FAULT_NOPAGE
    entry = ops.pmd_mkspecial(ops.pmd_mkhuge(ops.pfn_pmd(pfn, vma.vm_page_prot)))
    if write:
        entry = _pmd_made_writable(vma, ops.pmd_mkyoung(entry))
    if ops.arch_needs_pgtable_deposit():
        vma.vm_mm.tables.deposit(vma.vm_mm, address)
    table[index] = entry
    kernel.trace.emit(Install("pmd", address, pfn, entry))
    return VM_FAULT_NOPAGE


def _pmd_made_writable(vma: VmArea, pmd: int) -> int:
    """maybe_pmd_mkwrite(pmd_mkdirty(pmd))."""
    ops = vma.vm_mm.kernel.ops
    pmd = ops.pmd_mkdirty(pmd)
    return ops.pmd_mkwrite(pmd, vma.vm_flags) if vma.vm_flags & VM_WRITE else pmd


def vmf_insert_pfn_pud(vmf: VmFault, pfn: int, write: bool) -> int:
    """Insert a PUD leaf for `pfn` (base pages) at the PUD-aligned fault address; return a VM_FAULT code."""
    vma = vmf.vma
    kernel = vma.vm_mm.kernel
    ops = kernel.ops
    address = vmf.address & -kernel.geometry.size("pud")
    kernel.trace.emit(Call("vmf_insert_pfn_pud", vmf.address))
    if not vma.vm_start <= address < vma.vm_end:
        return VM_FAULT_SIGBUS
    assert vmf.pud is not None
    table, index = vmf.pud
    old = table[index]
    if not ops.pud_none(old):
        if write and ops.pud_pfn(old) == pfn:
            table[index] = _pud_made_writable(vma, ops.pud_mkyoung(old))
        return VM_FAULT_NOPAGE
    entry = ops.pud_mkspecial(ops.pud_mkhuge(ops.pfn_pud(pfn, vma.vm_page_prot)))
    if write:
        entry = _pud_made_writable(vma, ops.pud_mkyoung(entry))
    table[index] = entry
    kernel.trace.emit(Install("pud", address, pfn, entry))
    return VM_FAULT_NOPAGE


def _pud_made_writable(vma: VmArea, pud: int) -> int:
    """maybe_pud_mkwrite(pud_mkdirty(pud))."""
    ops = vma.vm_mm.kernel.ops
    pud = ops.pud_mkdirty(pud)
    return ops.pud_mkwrite(pud) if vma.vm_flags & VM_WRITE else pud


def huge_pmd_set_accessed(vmf: VmFault) -> None:
    """Mark a PMD leaf accessed, and dirty on a write: the fault of a CPU that does not do it itself (RULES 7)."""
    vma = vmf.vma
    kernel = vma.vm_mm.kernel
    ops = kernel.ops
    kernel.trace.emit(Call("huge_pmd_set_accessed", vmf.address))
    assert vmf.pmd is not None
    table, index = vmf.pmd
    entry = ops.pmd_mkyoung(table[index])
    if vmf.write:
        entry = ops.pmd_mkdirty(entry)
    table[index] = ops.pmdp_set_access_flags(table[index], entry)


def huge_pud_set_accessed(vmf: VmFault) -> None:
    """Mark a PUD leaf accessed, and dirty on a write."""
    vma = vmf.vma
    kernel = vma.vm_mm.kernel
    ops = kernel.ops
    kernel.trace.emit(Call("huge_pud_set_accessed", vmf.address))
    assert vmf.pud is not None
    table, index = vmf.pud
    entry = ops.pud_mkyoung(table[index])
    table[index] = ops.pud_mkdirty(entry) if vmf.write else entry


def zap_huge_pmd(vma: VmArea, slot: Slot, address: int) -> None:
    """Drop a PMD leaf; `address` is the leaf's."""
    mm = vma.vm_mm
    mm.kernel.trace.emit(Call("zap_huge_pmd", address))
    slot[0][slot[1]] = mm.kernel.arch.empty("pmd")
    if mm.kernel.ops.arch_needs_pgtable_deposit():
        mm.tables.withdraw(mm, address)


def zap_huge_pud(vma: VmArea, slot: Slot, address: int) -> None:
    """Drop a PUD leaf; `address` is the leaf's."""
    mm = vma.vm_mm
    mm.kernel.trace.emit(Call("zap_huge_pud", address))
    slot[0][slot[1]] = mm.kernel.arch.empty("pud")
