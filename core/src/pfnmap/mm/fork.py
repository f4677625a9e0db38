"""fork and exit of an address space (kernel/fork.c, mm/mmap.c)."""

from __future__ import annotations

from pfnmap.contract.vma import AnonVma, MmStruct, VmArea
from pfnmap.mm.copy_page_range import copy_page_range
from pfnmap.mm.pgtable import free_pgtables
from pfnmap.mm.vma import vm_area_dup, vma_link, vma_unlink
from pfnmap.mm.zap import unmap_single_vma
from pfnmap.vm_flags import VM_DONTCOPY, VM_LOCKED, VM_PFNMAP, VM_WIPEONFORK

__all__ = ["dup_mmap", "exit_mmap"]


def dup_mmap(mm: MmStruct) -> MmStruct | None:
    """Return a child's copy of an address space: vmas but the VM_DONTCOPY ones, then their entries.

    A leaf that spans vmas is copied whole with any of them (FINDINGS F3). None where the architecture refuses to track
    the copy of a pfnmap: what was copied so far is undone, and fork is -ENOMEM whatever the reason (copy_mm).
    """
    child = MmStruct(mm.machine, levels=mm.tables.levels)
    child.thp_disabled = mm.thp_disabled
    child.thp_disabled_except_advised = mm.thp_disabled_except_advised
    for vma in mm:
        if vma.vm_flags & VM_DONTCOPY:
            continue
        wiped = bool(vma.vm_flags & VM_WIPEONFORK)
        anon_vma = AnonVma(singular=False) if vma.anon_vma is not None and not wiped else None
        copy = vm_area_dup(vma, vm_mm=child, vm_flags=vma.vm_flags & ~VM_LOCKED, anon_vma=anon_vma)
        if copy.vm_flags & VM_PFNMAP and mm.kernel.has("pat-fork-failure"):
            mm.kernel.ops.untrack_pfn_clear(copy)  # track_pfn_copy will say whether it is tracked
        vma_link(copy)
        opens_first = mm.kernel.has("fork-opens-before-copying")
        if opens_first:
            _open(copy)
        failed = not wiped and copy_page_range(copy, vma)
        if not opens_first:
            _open(copy)
        if failed:
            exit_mmap(child)
            return None
    return child


def _open(vma: VmArea) -> None:
    if vma.vm_ops is not None and vma.vm_ops.open is not None:
        vma.vm_ops.open(vma)


def exit_mmap(mm: MmStruct) -> None:
    """Unmap everything and free every table."""
    vmas = list(mm)
    for vma in vmas:
        unmap_single_vma(vma, vma.vm_start, vma.vm_end, tables_go=True)
    for vma in vmas:
        vma_unlink(vma)
    free_pgtables(mm, [(vma.vm_start, vma.vm_end) for vma in vmas], 0, 0)
    for vma in vmas:
        if vma.vm_ops is not None and vma.vm_ops.close is not None:
            vma.vm_ops.close(vma)
    mm.tables.free()
