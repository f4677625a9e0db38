"""mlock, munlock, mlockall, munlockall (mm/mlock.c). Errors are negative errnos.

A pfnmap is skipped: its vma gets no VM_LOCKED and is not split.
"""

from __future__ import annotations

from errno import EAGAIN, EFAULT, EINVAL, ENOMEM

from pfnmap.contract.vma import MmStruct, VmArea
from pfnmap.limits import bounded
from pfnmap.mm.gup import populate_vma_page_range
from pfnmap.mm.mmap import merge_vmas, page_align, vma_modify
from pfnmap.vm_flags import VM_LOCKED, VM_SPECIAL

__all__ = ["do_mlock", "do_mlockall", "populate"]


def do_mlock(mm: MmStruct, address: int, length: int, locked: bool) -> int:
    """Lock or unlock [address, address + length) (bytes); -ENOMEM for a hole, after the parts before it.

    Memory that nobody may touch is locked, but cannot be populated: -ENOMEM too (`min.mlock.anon_none`).
    """
    page = mm.kernel.geometry.PAGE_SIZE
    start = address & -page
    end = start + page_align(mm, length + address % page)
    if end >= 1 << 64:
        return -EINVAL
    if end == start:
        return 0
    reached = start
    for vma in mm.intersecting(start, end):
        if vma.vm_start > reached:
            return -ENOMEM
        _fixup(mm, vma, reached, min(vma.vm_end, end), locked)
        reached = vma.vm_end
    if reached < end:
        return -ENOMEM
    if not locked:
        return 0
    # __mlock_posix_error_return
    error = populate(mm, start, end, ignore_errors=False)
    return {-EFAULT: -ENOMEM, -ENOMEM: -EAGAIN}.get(error, error)


def do_mlockall(mm: MmStruct, locked: bool) -> int:
    """mlockall(MCL_CURRENT), or munlockall: every vma there is."""
    for vma in mm:
        _fixup(mm, vma, vma.vm_start, vma.vm_end, locked)
    if locked:
        populate(mm, 0, mm.kernel.geometry.task_size)
    return 0


def _fixup(mm: MmStruct, vma: VmArea, start: int, end: int, locked: bool) -> None:
    flags = vma.vm_flags | VM_LOCKED if locked else vma.vm_flags & ~VM_LOCKED
    if flags == vma.vm_flags or vma.vm_flags & VM_SPECIAL:
        return
    vma = vma_modify(mm, vma, start, end)
    vma.vm_flags = flags
    merge_vmas(mm, vma)


def populate(mm: MmStruct, start: int, end: int, *, ignore_errors: bool = True) -> int:
    """__mm_populate: fault in what is not there; a pfnmap is left alone. Returns 0, or the first -errno unless errors
    are ignored."""
    vmas = [vma for vma in mm.intersecting(start, end) if not vma.vm_flags & VM_SPECIAL]
    ranges = [(vma, max(start, vma.vm_start), min(end, vma.vm_end)) for vma in vmas]
    bounded("populate", sum(high - low for _, low, high in ranges) >> mm.kernel.geometry.PAGE_SHIFT)
    for vma, low, high in ranges:
        error = populate_vma_page_range(vma, low, high)
        if error and not ignore_errors:
            return error
    return 0
