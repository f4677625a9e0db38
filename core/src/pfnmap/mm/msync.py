"""msync (mm/msync.c)."""

from __future__ import annotations

from errno import EINVAL, ENOMEM

from pfnmap.contract.vma import MmStruct
from pfnmap.vm_flags import VM_SHARED

__all__ = ["do_msync"]


def do_msync(mm: MmStruct, address: int, length: int) -> int:
    """msync(MS_SYNC) of [address, address + length) (bytes): -EINVAL at a device's file, which has no fsync; -ENOMEM in
    the end where there was a hole."""
    page = mm.kernel.geometry.PAGE_SIZE
    if address % page:
        return -EINVAL
    end = address + -(-length // page) * page
    if end == address:  # wherever that is (`min.msync.length_0`)
        return 0
    reached = address
    hole = False
    for vma in mm.intersecting(address, end):
        hole = hole or vma.vm_start > reached
        if vma.vm_file is not None and vma.vm_flags & VM_SHARED and not vma.vm_file.f_op.fsync:
            return -EINVAL
        reached = vma.vm_end
    return -ENOMEM if hole or reached < end else 0
