"""PAT's tracking of pfnmaps: which vmas hold a reservation of a memory type (VM_PAT), until `pat-pfnmap-track`.

Source: arch/x86/mm/pat/memtype.c of 6.1.192 and 6.12.117. A vma that one remap_pfn_range filled is tracked; to undo
that, or to repeat it for a fork, PAT finds the physical address by looking the vma's first page up, and these walks
show in the records of 6.1 (`follow_pte`: `fork`, `munmap`, `mprotect`, `pci_memory`, `mremap`). Its table of memory
types is not modelled: every reservation is granted.
"""

from __future__ import annotations

from errno import EINVAL

from pfnmap import VmArea, hookimpl
from pfnmap.vm_flags import VM_ARCH_1, VM_MAYWRITE, VM_SHARED

from .boot import X86Boot

__all__ = ["PatOps"]

VM_PAT = VM_ARCH_1


class PatOps(X86Boot):
    """The hooks that follow a pfnmap's life."""

    @hookimpl
    def track_pfn_remap(self, vma: VmArea, pfn: int, address: int, size: int) -> int:
        if (address, address + size) == (vma.vm_start, vma.vm_end):
            vma.vm_flags |= VM_PAT
        return 0

    @hookimpl
    def track_pfn_copy(self, dst: VmArea, src: VmArea) -> int:
        if src.vm_flags & VM_PAT:
            if not _follow_phys(src):
                # The protection is in the page tables only: without them there is no telling it, COW mapping or not.
                if not _is_cow_mapping(src):
                    src.vm_mm.kernel.warn_once("arch/x86/mm/pat/memtype.c track_pfn_copy")
                return -EINVAL
            dst.vm_flags |= VM_PAT
        return 0

    @hookimpl
    def untrack_pfn(self, vma: VmArea) -> int:
        if vma.vm_flags & VM_PAT:
            if not _follow_phys(vma) and not _is_cow_mapping(vma):
                vma.vm_mm.kernel.warn_once("arch/x86/mm/pat/memtype.c untrack_pfn")
                return 0
            vma.vm_flags &= ~VM_PAT
        return 0

    @hookimpl
    def untrack_pfn_clear(self, vma: VmArea) -> int:
        vma.vm_flags &= ~VM_PAT
        return 0


def _follow_phys(vma: VmArea) -> bool:
    """Look up what a vma's first page maps; False where that is nothing, or a page of RAM that was copied on write.

    The callers hold mmap_lock or, for unmap_mapping_range, i_mmap_rwsem; the model's do not say so, hence the lock
    here.
    """
    kernel = vma.vm_mm.kernel
    mm = kernel.mm
    with mm.mmap_lock(vma.vm_mm):
        if not kernel.has("huge-pfnmap"):
            pte = mm.follow_pte(vma, vma.vm_start)
            return pte is not None and mm.vm_normal_page(vma, vma.vm_start, pte) is None
        with mm.follow_pfnmap(vma, vma.vm_start) as args:
            return args is not None and args.special


def _is_cow_mapping(vma: VmArea) -> bool:
    return vma.vm_flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE
