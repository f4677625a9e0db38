"""What the mm core itself finds at a virtual address."""

from __future__ import annotations

from pfnmap.contract.vma import MmStruct
from pfnmap.mm.follow_pfnmap import follow_pfnmap, follow_pte
from pfnmap.mm.locking import mmap_lock
from pfnmap.testing.check import Violation

__all__ = ["lookup"]


def lookup(mm: MmStruct, va: int) -> int | None:
    """Return the pfn that maps an address, by follow_pfnmap (before huge pfnmaps by follow_pte), or None.

    Raises Violation for a leaf that is not special.
    """
    kernel = mm.kernel
    vma = mm.vma_lookup(va)
    assert vma is not None
    if not kernel.has("huge-pfnmap"):
        pte = follow_pte(vma, va)
        pfn: int | None = None if pte is None else kernel.ops.pte_pfn(pte)
        return pfn
    with mmap_lock(mm), follow_pfnmap(vma, va) as found:
        if found is None:
            return None
        if not found.special:
            raise Violation(f"follow_pfnmap finds {va:#x} mapped by a leaf that is not special")
        return found.pfn
