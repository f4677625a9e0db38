"""mbind (mm/mempolicy.c), as far as it splits vmas: a pfnmap has no pages to move."""

from __future__ import annotations

from errno import EFAULT, EINVAL

from pfnmap.contract.vma import MmStruct
from pfnmap.mm.mmap import merge_vmas, vma_modify
from pfnmap.mm.vma import vmas_without_hole

__all__ = ["do_mbind"]


def do_mbind(mm: MmStruct, address: int, length: int, policy: str) -> int:
    """Give [address, address + length) (bytes) a memory policy; 0, -EINVAL, or -EFAULT for a hole.

    Policies are equal as their texts are; a vma that has the policy already is not split.
    """
    page = mm.kernel.geometry.PAGE_SIZE
    if address % page:
        return -EINVAL
    end = address + -(-length // page) * page
    if end == address:  # no vma is cut for it (`min.mbind.length_0`)
        return 0
    vmas = vmas_without_hole(mm, address, end)
    if vmas is None:
        return -EFAULT
    for vma in vmas:
        if vma.vm_policy == policy:
            continue
        piece = vma_modify(mm, vma, max(vma.vm_start, address), min(vma.vm_end, end))
        piece.vm_policy = policy
        merge_vmas(mm, piece)
    return 0
