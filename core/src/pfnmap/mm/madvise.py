"""madvise (mm/madvise.c). Addresses and lengths in bytes; errors are negative errnos. Pinned by the madv.* records."""

from __future__ import annotations

from errno import EACCES, EFAULT, EINVAL, ENODEV, ENOMEM, EPERM
from typing import Final

from pfnmap.contract.vma import MmStruct, VmArea
from pfnmap.errors import Refused
from pfnmap.mm.madvise_pages import (
    madvise_cold,
    madvise_collapse,
    madvise_free,
    madvise_pageout,
    madvise_populate,
)
from pfnmap.mm.mmap import merge_vmas, page_align, vma_modify
from pfnmap.mm.shmem import shmem_of, shmem_punch_hole
from pfnmap.mm.zap import unmap_single_vma
from pfnmap.vm_flags import (
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_HUGEPAGE,
    VM_IO,
    VM_LOCKED,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_MERGEABLE,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_SEALED,
    VM_SEQ_READ,
    VM_SHARED,
    VM_SPECIAL,
    VM_WIPEONFORK,
    VM_WRITE,
)

__all__ = ["ADVICES", "do_madvise"]

_FLAGS: Final = {
    # advice: (flags that go, flags that come)
    "NORMAL": (VM_RAND_READ | VM_SEQ_READ, 0),
    "SEQUENTIAL": (VM_RAND_READ, VM_SEQ_READ),
    "RANDOM": (VM_SEQ_READ, VM_RAND_READ),
    "DONTFORK": (0, VM_DONTCOPY),
    "DOFORK": (VM_DONTCOPY, 0),
    "WIPEONFORK": (0, VM_WIPEONFORK),
    "KEEPONFORK": (VM_WIPEONFORK, 0),
    "DONTDUMP": (0, VM_DONTDUMP),
    "DODUMP": (VM_DONTDUMP, 0),
    "HUGEPAGE": (VM_NOHUGEPAGE, VM_HUGEPAGE),
    "NOHUGEPAGE": (VM_HUGEPAGE, VM_NOHUGEPAGE),
    "MERGEABLE": (0, VM_MERGEABLE),
    "UNMERGEABLE": (VM_MERGEABLE, 0),
}
_DISCARD: Final = ("FREE", "DONTNEED", "DONTNEED_LOCKED", "REMOVE", "DONTFORK", "WIPEONFORK")
_POISON: Final = ("HWPOISON", "SOFT_OFFLINE")
_POPULATE: Final = ("POPULATE_READ", "POPULATE_WRITE")
_OTHER: Final = ("REMOVE", "WILLNEED", "COLD", "PAGEOUT", "FREE", "DONTNEED", "DONTNEED_LOCKED", "COLLAPSE")

ADVICES: Final = (*_FLAGS, *_OTHER, *_POISON, *_POPULATE)
"""The advices, without MADV_."""


def do_madvise(mm: MmStruct, address: int, length: int, advice: str) -> int:
    """Advise on [address, address + length); return 0 or -errno.

    Holes are gone over and make it -ENOMEM at the end; the error of a vma wins and stops (RULES 23).
    """
    kernel = mm.kernel
    page = kernel.geometry.PAGE_SIZE
    if address % page:
        return -EINVAL
    if advice in ("HUGEPAGE", "NOHUGEPAGE", "COLLAPSE") and not kernel.config.enabled("TRANSPARENT_HUGEPAGE"):
        return -EINVAL
    aligned = page_align(mm, length)
    end = address + aligned
    if (length and not aligned) or end >= 1 << 64:
        return -EINVAL
    if end == address:
        return 0
    vmas = mm.intersecting(address, end)
    if advice in _POISON:
        return _inject_error(vmas, advice)
    if advice in _POPULATE and kernel.has("populate-without-vma-walk"):
        return madvise_populate(mm, address, end, advice)
    hole = False
    reached = address
    for vma in vmas:
        hole = hole or vma.vm_start > reached
        error = _visit(mm, vma, max(vma.vm_start, address), min(vma.vm_end, end), advice)
        if error:
            return error
        reached = vma.vm_end
    return -ENOMEM if hole or reached < end else 0


def _inject_error(vmas: list[VmArea], advice: str) -> int:
    """madvise_inject_error: pins the page first, which no pfnmap allows."""
    if any(not vma.vm_flags & VM_PFNMAP for vma in vmas):
        raise Refused(f"madvise:{advice}", "memory with struct pages")
    return -EFAULT


def _visit(mm: MmStruct, vma: VmArea, start: int, end: int, advice: str) -> int:
    """madvise_vma_behavior on the part [start, end) of one vma."""
    if vma.vm_flags & VM_SEALED and advice in _DISCARD and vma.is_anonymous and not vma.vm_flags & VM_WRITE:
        return -EPERM
    if advice in _FLAGS:
        error = _flags_error(vma, advice)
        return error or _update(mm, vma, start, end, advice)
    if advice == "REMOVE":
        if vma.vm_flags & VM_LOCKED or vma.vm_file is None:
            return -EINVAL
        if not (vma.vm_flags & VM_SHARED and vma.vm_flags & VM_MAYWRITE):
            return -EACCES
        return -ENODEV if shmem_of(vma) is None else shmem_punch_hole(vma, start, end)
    if advice == "WILLNEED":
        return 0
    if advice in _POPULATE:
        return madvise_populate(mm, start, end, advice)
    forbidden = VM_PFNMAP | (0 if advice == "DONTNEED_LOCKED" else VM_LOCKED)
    if vma.vm_flags & forbidden or (advice == "COLLAPSE" and vma.vm_flags & VM_SPECIAL):
        return -EINVAL
    if advice in ("DONTNEED", "DONTNEED_LOCKED"):
        unmap_single_vma(vma, start, end)
        return 0
    return _PAGES[advice](vma, start, end)


_PAGES: Final = {
    "COLD": madvise_cold,
    "COLLAPSE": madvise_collapse,
    "FREE": madvise_free,
    "PAGEOUT": madvise_pageout,
}


def _flags_error(vma: VmArea, advice: str) -> int:
    """The errno with which a vma refuses an advice that sets flags; 0 where it does not."""
    refused = (
        (advice == "DOFORK" and vma.vm_flags & VM_IO)
        or (advice == "WIPEONFORK" and (vma.vm_file is not None or vma.vm_flags & VM_SHARED))
        or (advice == "DODUMP" and vma.vm_flags & VM_SPECIAL)
    )
    return -EINVAL if refused else 0


def _update(mm: MmStruct, vma: VmArea, start: int, end: int, advice: str) -> int:
    gone, come = _FLAGS[advice]
    # ksm_madvise ignores what KSM cannot merge; of the rest ksmd, which does not run by default, would take care.
    if advice in ("MERGEABLE", "UNMERGEABLE") and vma.vm_flags & (VM_SHARED | VM_MAYSHARE | VM_SPECIAL):
        return 0
    flags = (vma.vm_flags & ~gone) | come
    if flags != vma.vm_flags:
        vma = vma_modify(mm, vma, start, end)
        vma.vm_flags = flags
        merge_vmas(mm, vma)
    return 0
