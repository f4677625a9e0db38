"""mseal (mm/mseal.c)."""

from __future__ import annotations

from errno import EINVAL, ENOMEM, ENOSYS

from pfnmap.contract.vma import MmStruct
from pfnmap.mm.mmap import merge_vmas, vma_modify
from pfnmap.mm.vma import vmas_without_hole
from pfnmap.vm_flags import VM_SEALED

__all__ = ["do_mseal"]


def do_mseal(mm: MmStruct, address: int, length: int) -> int:
    """Seal [address, address + length) (bytes); 0, -ENOSYS before `mseal`, -EINVAL, or -ENOMEM for a hole."""
    if not mm.kernel.has("mseal"):
        return -ENOSYS
    page = mm.kernel.geometry.PAGE_SIZE
    if address % page:
        return -EINVAL
    end = address + -(-length // page) * page
    if end == address:
        return 0
    vmas = vmas_without_hole(mm, address, end)
    if vmas is None:
        return -ENOMEM
    for vma in vmas:
        if not vma.vm_flags & VM_SEALED:
            piece = vma_modify(mm, vma, max(vma.vm_start, address), min(vma.vm_end, end))
            piece.vm_flags |= VM_SEALED
            merge_vmas(mm, piece)
    return 0
